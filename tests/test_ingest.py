"""An edge's uploads against a tracker that says whatever a test wants: what is kept, what goes,
and what is never touched."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from edge import ingest, quarantine
from edge.core.admission import Admission
from edge.core.edge import Edge
from edge.ingest import Ingest
from edge.media.child import Limits, Prepared
from edge.quarantine import WINDOW_BYTES, Landing, Order, sweep
from shared.core.actions import Send
from shared.core.bulk import MAX_UPLOAD_BYTES
from shared.core.errors import Reason, Refused
from shared.core.ids import Address, HostPort, NodeId
from shared.core.manifest import Manifest
from shared.core.messages import Message, Refusal, Registered, Stage, Upload, UploadState
from shared.core.shape import PIECE_BYTES
from shared.identity import Identity
from shared.piece_store import PieceStore
from tests.tracker_parts import TRACKER_ID, node

ANN, BEN = node("ann"), node("ben")
DATA = Random(9).randbytes(3 * PIECE_BYTES + 500)  # the file, and what is made of it
FILM = Upload(1, "film.mp4", "Film", len(DATA), sha256(DATA).digest())
TRACKER = Address(TRACKER_ID, HostPort("192.0.2.1", 4430))
PREPARED = Prepared("avc1.64001f", 1280, 720, 4000, 1000, 1000, 500, ((len(DATA) - 500, 4000),))


async def copied(source: Path, target: Path, *_: object) -> Prepared:
    """In place of the media child: the film is what was uploaded."""
    await trio.to_thread.run_sync(shutil.copyfile, source, target)
    return PREPARED


@dataclass(slots=True)
class Desk:
    """An ingest whose publishers and tracker are the test."""

    root: Path
    nursery: trio.Nursery
    identity: Identity = field(default_factory=Identity.generate)
    answers: deque[Reason] = field(default_factory=deque)  # of the tracker; then it registers
    asked: int = 0
    room_asked: list[int] = field(default_factory=list)
    core: Edge = field(init=False)
    store: PieceStore = field(init=False)
    ingest: Ingest = field(init=False)
    _hears: trio.MemorySendChannel[tuple[NodeId, Message]] = field(init=False)
    _heard: trio.MemoryReceiveChannel[tuple[NodeId, Message]] = field(init=False)

    def __post_init__(self) -> None:
        self._hears, self._heard = trio.open_memory_channel(1000)
        self.core = Edge(TRACKER, Admission(frozenset(), True), Random(1))
        self.store = PieceStore(self.root / "pieces", 1 << 30)
        self.ingest = Ingest(
            self.core,
            self.identity,
            self.store,
            self.root / "quarantine",
            Limits(),
            1 << 30,
            TRACKER,
            self._pump,
            self._ask,
            self._make_room,
        )
        self.ingest.nursery = self.nursery

    def _pump(self) -> None:
        while (action := self.core.next_action()) is not None:
            if isinstance(action, Send):
                self._hears.send_nowait((action.to, action.message))

    async def _make_room(self, size_bytes: int) -> None:
        await trio.lowlevel.checkpoint()
        self.room_asked.append(size_bytes)

    async def _ask(self, request: int) -> Message:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return Refusal(request, self.answers.popleft(), "no") if self.answers else Registered(request)

    async def state(self, publisher: NodeId = ANN) -> UploadState:
        """The next thing that a publisher is told. Raises Refused."""
        while True:
            to, message = await self._heard.receive()
            if to == publisher and isinstance(message, UploadState):
                return message
            if to == publisher and isinstance(message, Refusal):
                raise Refused(message.reason, message.detail)

    async def end(self, publisher: NodeId = ANN) -> UploadState:
        """What a publisher is told when all is done. Raises Refused."""
        while (state := await self.state(publisher)).stage is not Stage.PUBLISHED:
            pass
        return state

    async def upload(self) -> None:
        """Ann's file comes in whole, and the work on it begins."""
        self.ingest.begin(ANN, FILM)
        job = self.ingest._jobs[(await self.state()).upload]
        for offset in range(0, len(DATA), MAX_UPLOAD_BYTES):
            data = DATA[offset : offset + MAX_UPLOAD_BYTES]
            async with job.landing.place(offset, len(data)):
                await job.landing.write(offset, data)
        self.ingest._work_if_whole(job)

    async def publish(self) -> Manifest:
        """Ann's file is published."""
        await self.upload()
        await self.end()
        manifest = self.store.manifest(self.store.infohashes()[0])
        assert manifest is not None
        return manifest

    def landed(self) -> list[str]:
        """Files in the quarantine."""
        root = self.root / "quarantine"
        return sorted(path.name for path in root.rglob("*") if path.is_file()) if root.exists() else []


@asynccontextmanager
async def open_desk(root: Path) -> AsyncIterator[Desk]:
    with pytest.MonkeyPatch.context() as patch, trio.fail_after(20):
        patch.setattr(ingest, "prepare", copied)
        patch.setattr(ingest, "REGISTER_PAUSE_SECONDS", 0.01)
        async with trio.open_nursery() as nursery:
            yield Desk(root, nursery)
            nursery.cancel_scope.cancel()


def assert_served(desk: Desk, manifest: Manifest) -> None:
    assert desk.store.held(manifest.infohash) == frozenset(range(manifest.piece_count))
    assert desk.core.seeding.holdings[manifest.infohash].held.complete


# -- what the tracker says ----------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [Reason.NOT_ALLOWED, Reason.MALFORMED, Reason.TOO_LARGE])
async def test_a_title_published_before_survives_any_refusal(tmp_path: Path, reason: Reason) -> None:
    async with open_desk(tmp_path) as desk:
        manifest = await desk.publish()
        desk.answers.append(reason)
        desk.ingest.begin(ANN, FILM)
        with pytest.raises(Refused):
            await desk.end()
        assert_served(desk, manifest)
        desk.ingest.begin(ANN, FILM)
        assert (await desk.end()).address.endswith(manifest.title_id.hex())


@pytest.mark.parametrize("reason", sorted(ingest.PASSING))
async def test_a_tracker_in_trouble_is_asked_again(tmp_path: Path, reason: Reason) -> None:
    async with open_desk(tmp_path) as desk:
        desk.answers.extend([reason, reason])
        assert_served(desk, await desk.publish())
        assert desk.asked == 3
        assert desk.landed() == []


@pytest.mark.parametrize("reason", sorted(ingest.FINAL))
async def test_a_new_title_that_is_refused_for_good_is_nowhere(tmp_path: Path, reason: Reason) -> None:
    async with open_desk(tmp_path) as desk:
        desk.answers.append(reason)
        await desk.upload()
        with pytest.raises(Refused) as caught:
            await desk.end()
        assert caught.value.reason is reason
        assert desk.store.infohashes() == []
        assert desk.core.seeding.holdings == {}
        desk.ingest.begin(ANN, FILM)
        assert (await desk.state()).stage is Stage.RECEIVING


async def test_what_an_edge_that_is_not_allowed_received_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_desk(tmp_path) as desk:
        desk.answers.append(Reason.NOT_ALLOWED)
        with caplog.at_level(logging.WARNING):
            await desk.upload()
            with pytest.raises(Refused):
                await desk.end()
        (warning,) = caplog.messages
        assert "`edges`" in warning
        assert desk.identity.id.hex() in warning
        assert desk.landed() == ["source"]
        desk.ingest.begin(ANN, FILM)  # and not a byte is uploaded
        assert (await desk.state()).received_bytes == len(DATA)
        await desk.end()
        assert desk.landed() == []


async def test_a_title_published_before_is_not_uploaded_again(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        await desk.publish()
        desk.ingest.begin(BEN, FILM)
        assert (await desk.state(BEN)).stage is Stage.REGISTERING
        await desk.end(BEN)


async def test_a_title_that_lost_a_piece_is_uploaded_again_and_whole(tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        manifest = await desk.publish()
        (tmp_path / "pieces" / manifest.infohash.hex() / "1").unlink()
        with pytest.raises(Refused):
            desk.store.read(manifest.infohash, 1)
        desk.core.lost(manifest.infohash, 1, 0.0)
        desk.answers.append(Reason.NOT_ALLOWED)
        await desk.upload()
        with pytest.raises(Refused):
            await desk.end()
        desk.ingest.begin(ANN, FILM)
        await desk.end()
        assert_served(desk, manifest)


async def test_a_publisher_that_leaves_while_its_upload_is_looked_for_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    async with open_desk(tmp_path) as desk:
        desk.ingest.begin(ANN, FILM)
        desk.ingest.forget(ANN)
        assert desk.ingest._jobs == {}
        desk.ingest.begin(ANN, FILM)
        assert (await desk.state()).stage is Stage.RECEIVING


# -- nothing that waits for a disk does so in the loop ------------------------------------------------


async def test_films_and_folders_are_read_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, seen = threading.get_ident(), set[int]()
    real_open, real_disk_usage = Path.open, shutil.disk_usage

    def opened(path: Path, mode: str = "r") -> object:
        seen.add(threading.get_ident())
        return real_open(path, mode)

    def disk_usage(path: Path) -> object:
        seen.add(threading.get_ident())
        return real_disk_usage(path)

    async with open_desk(tmp_path) as desk:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", opened)
            patch.setattr(shutil, "disk_usage", disk_usage)
            await desk.publish()
    assert seen
    assert ours not in seen


# -- the quarantine -----------------------------------------------------------------------------------


def landing(root: Path, length: int = 100 * MAX_UPLOAD_BYTES) -> Landing:
    found = Landing(root, bytes(32), Order("a.mp4", "A", length, bytes(32).hex()))
    found.open()
    return found


async def test_a_disk_that_others_fill_stops_an_upload_before_the_brim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = landing(tmp_path, 100)
    assert await one.write(0, b"0123") == 4
    brim = SimpleNamespace(free=quarantine.SPARE_DISK_BYTES + 3)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: brim)
        with pytest.raises(Refused) as caught:
            await one.write(4, b"4567")
        assert caught.value.reason is Reason.NO_SPACE
        assert await one.write(4, b"456") == 7
    assert one.source.read_bytes() == b"0123456"


async def test_chunks_in_memory_are_few_and_each_gets_its_turn(tmp_path: Path) -> None:
    one, size = landing(tmp_path, 20 * 1000), 1000
    most = 0

    async def send(offset: int, length: int) -> None:
        nonlocal most
        async with one.place(offset, length):
            most = max(most, one._in_memory_bytes)
            await one.write(offset, bytes(length))

    with pytest.MonkeyPatch.context() as patch, trio.fail_after(20):
        patch.setattr(quarantine, "WINDOW_BYTES", 4 * size)
        async with trio.open_nursery() as nursery:
            for offset in reversed(range(0, 20 * size, size)):  # the first one comes last
                nursery.start_soon(send, offset, size)
                await trio.testing.wait_all_tasks_blocked()
    assert one.whole
    assert most == 4 * size
    assert one._in_memory_bytes == 0


async def test_one_upload_gets_eight_megabytes_and_a_chunk_too_far_ahead_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WINDOW_BYTES == 8 << 20
    monkeypatch.setattr(quarantine, "EARLY_SECONDS", 0.05)
    one = landing(tmp_path)
    async with one.place(WINDOW_BYTES - 10, 10):
        pass
    with pytest.raises(Refused) as caught:
        async with one.place(WINDOW_BYTES - 9, 10):
            pass
    assert caught.value.reason is Reason.TIMEOUT


def aged(folder: Path, *, source_too: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "source").write_bytes(b"some")
    for path in (folder / "source", folder) if source_too else (folder,):
        os.utime(path, (1.0, 1.0))
    return folder


def test_a_sweep_takes_what_nobody_touched_for_days(tmp_path: Path) -> None:
    old, growing, live = aged(tmp_path / "a"), aged(tmp_path / "b", source_too=False), aged(tmp_path / "c")
    sweep(tmp_path, frozenset({"c"}))
    assert [path.exists() for path in (old, growing, live)] == [False, True, True]


async def test_a_running_edge_sweeps_but_not_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = trio.Event()

    def sweep_and_tell(root: Path, under_way: Set[str]) -> None:
        sweep(root, under_way)
        trio.from_thread.run_sync(swept.set)

    monkeypatch.setattr(ingest, "SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(ingest, "sweep", sweep_and_tell)
    async with open_desk(tmp_path) as desk:
        desk.ingest.begin(ANN, FILM)
        live = tmp_path / "quarantine" / (await desk.state()).upload.hex()
        for path in (live / "source", live):
            os.utime(path, (1.0, 1.0))
        old = aged(tmp_path / "quarantine" / "old")
        desk.nursery.start_soon(desk.ingest.keep_swept)
        await swept.wait()
        assert (old.exists(), live.exists()) == (False, True)
