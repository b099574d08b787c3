"""An edge of several processes: to everybody outside it is one node, and none of its processes is missed."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from aioquic.quic.connection import QuicConnection

from peer import publish as publishing
from shared.core.bulk import PieceRequest
from shared.core.errors import ConnectionLost
from shared.core.ids import HostPort
from shared.core.merkle import HASH_BYTES
from shared.piece_store import PieceStore
from shared.quic import QuicEngine
from shared.steering import Berth
from tests.house_parts import wait_until
from tests.node_parts import (
    House,
    Published,
    Stranger,
    new_clip,
    open_house,
    published,
    published_once,
    stranger,
)

WORKERS = 2
STAYING = 8
BERTHS = 1 + 2 * WORKERS
FIRST, SECOND = 1, 3  # the berths that they begin at


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_clip(tmp_path_factory)


@asynccontextmanager
async def crewed(folder: Path, film: Published | None = None, **edge: Any) -> AsyncIterator[House]:
    async with open_house(folder, film, workers=WORKERS, log_level="info", **edge) as house:
        yield house


def aim(monkeypatch: pytest.MonkeyPatch, berth: int) -> None:
    """Whoever dials from this process chooses first ids that fall to this berth."""

    def connect(self: QuicEngine, *arguments: Any) -> None:
        chosen = Berth(berth, BERTHS).mark(self._peer_cid.cid)
        self._peer_cid.cid = self._original_destination_connection_id = chosen
        QuicConnection.connect(self, *arguments)

    monkeypatch.setattr(QuicEngine, "connect", connect)


def processes() -> list[int]:
    """Process ids of the edge that this process supervises: the lead's first."""
    return sorted(int(process.name) for process in Path("/proc").glob("[0-9]*") if _is_ours(process))


def _is_ours(process: Path) -> bool:
    try:
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        return int(parent) == os.getpid() and b"-m\0edge\0" in (process / "cmdline").read_bytes()
    except OSError:  # gone meanwhile
        return False


async def ended(*pids: int) -> None:
    """Returns when none of them is left."""

    async def are_gone() -> bool:
        return not set(pids) & set(processes())

    await wait_until(are_gone, seconds=20)


async def all_there() -> bool:
    """Whether nobody is missing."""
    return len(processes()) >= 1 + WORKERS


async def edges(house: House) -> list[dict[str, Any]]:
    """The edges that the tracker knows."""
    async with httpx2.AsyncClient(base_url=f"http://{house.tracker.ready.api}", trust_env=False) as client:
        nodes = (await client.get("/api/v1/nodes")).json()["nodes"]
    return [node for node in nodes if node["kind"] == "edge"]


async def fetch(one: Stranger, film: Published) -> int:
    """Every piece of the film, byte by byte; how many bytes."""
    fetched = 0
    for index in range(film.manifest.piece_count):
        leaves = film.manifest.leaf_count(index)
        answer = await one.ask(PieceRequest(film.infohash, index, 0, leaves).encode())
        assert answer == b"\0" + answer[1 : 1 + leaves * HASH_BYTES] + film.piece(index)
        fetched += len(film.piece(index))
    return fetched


def kernel_drops(at: HostPort) -> int:
    """Datagrams that the kernel threw away at this port's sockets."""
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(int(row[-1]) for row in rows if row[1].endswith(f":{at.port:04X}"))


def in_words(capfd: pytest.CaptureFixture[str]) -> list[tuple[int, ...]]:
    """What workers said when they ended: datagrams, those for nobody, those astray."""
    said = capfd.readouterr().err
    pattern = r"worker ends: (\d+) datagrams came, (\d+) for nobody here, (\d+) of them astray"
    return [tuple(map(int, found)) for found in re.findall(pattern, said)]


# -- one node -----------------------------------------------------------------------------------------


async def test_all_berths_are_one_node_with_one_load(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every berth answers, whether or not somebody is at it; the tracker sees one edge and all its load."""
    async with crewed(tmp_path, film) as house:
        taken = 0
        for berth in range(BERTHS):
            aim(monkeypatch, berth)
            async with stranger(house.edge.ready.address) as viewer:
                await viewer.join(house, film)
                taken += await fetch(viewer, film)
                await trio.sleep(0.1)  # the last piece counts when it is acknowledged

        async def reported() -> bool:
            (edge,) = await edges(house)
            return edge["report"] is not None and edge["report"]["uploaded_bytes"] >= taken

        await wait_until(reported, seconds=10)
        (edge,) = await edges(house)
        assert edge["report"]["uploaded_bytes"] == taken
        assert edge["id"] == house.edge.ready.address.node.hex()
        assert edge["at"] == str(house.edge.ready.address.at)


async def test_uploads_may_land_on_any_worker(
    tmp_path: Path, film: Published, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever worker takes a film, all workers serve it as soon as it is published."""
    async with crewed(tmp_path) as house:
        for path, berth in ((clip, FIRST), (film.clip, SECOND)):
            aim(monkeypatch, berth)
            address = await house.publish(path, "New")
            new = published_film(house, path, address.title)
            for where in (FIRST, SECOND):
                aim(monkeypatch, where)
                async with stranger(house.edge.ready.address) as viewer:
                    await viewer.join(house, new)
                    assert await fetch(viewer, new) == len(new.data)
        assert house.quarantine == []


def published_film(house: House, clip: Path, title: object) -> Published:
    """A title in the edge's store, as the tests know films."""
    store = PieceStore(house.folder / "edge" / "pieces", 1 << 30)
    manifest = next(one for one in map(store.manifest, store.infohashes()) if one and one.title_id == title)
    data = b"".join(store.read(manifest.infohash, index)[1] for index in range(manifest.piece_count))
    return Published(house.folder, clip, manifest, data)


# -- replaced -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Audience:
    """Viewers who never stop asking, some of them new each moment."""

    house: House
    film: Published
    connections: int = 0
    staying: int = 0
    asked: int = 0
    lost_datagrams: int = 0
    endings: list[ConnectionLost] = field(default_factory=list)

    async def is_there(self) -> bool:
        """Whether all who stay came: so many that no worker is without one."""
        return self.staying == STAYING

    async def stay(self, leave: trio.Event) -> None:
        """One viewer, until it shall leave."""
        async with stranger(self.house.edge.ready.address) as viewer:
            self.connections += 1
            await viewer.join(self.house, self.film)
            self.staying += 1
            while not leave.is_set():
                await fetch(viewer, self.film)
                self.asked += self.film.manifest.piece_count
                await trio.sleep(0.1)
            self.lost_datagrams += viewer.connection.statistics().lost_datagrams
            if viewer.connection.loss is not None:
                self.endings.append(viewer.connection.loss)

    async def come_and_go(self, leave: trio.Event) -> None:
        """New viewers, one after the other."""
        once = trio.Event()
        once.set()
        while not leave.is_set():
            async with stranger(self.house.edge.ready.address) as viewer:
                self.connections += 1
                await viewer.join(self.house, self.film)
                await fetch(viewer, self.film)
                self.asked += self.film.manifest.piece_count
                self.lost_datagrams += viewer.connection.statistics().lost_datagrams


async def test_replacing_the_workers_loses_no_connection_and_no_datagram(
    tmp_path: Path, film: Published, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every request of every viewer is answered, none loses its connection, nothing is for nobody."""
    async with crewed(tmp_path, film) as house:
        before = processes()
        audience, leave = Audience(house, film), trio.Event()
        async with trio.open_nursery() as nursery:
            for _ in range(STAYING):
                nursery.start_soon(audience.stay, leave)
            nursery.start_soon(audience.come_and_go, leave)
            await wait_until(audience.is_there, seconds=20)
            await trio.sleep(0.5)
            os.kill(os.getpid(), signal.SIGHUP)
            await ended(before[0])  # the lead is the last to be replaced
            assert len(set(processes()) & set(before)) == WORKERS  # they serve whom they have
            await trio.sleep(0.5)
            assert kernel_drops(house.edge.ready.address.at) == 0
            leave.set()
        assert audience.connections > 10
        assert audience.endings == []
        assert audience.lost_datagrams == 0
        await ended(*before)
        assert len(processes()) == 1 + WORKERS
        await house.assert_serves(film)
    counts = in_words(capfd)
    assert len(counts) == WORKERS
    assert all(came > 100 for came, _, _ in counts)
    assert [rest for _, *rest in counts] == [[0, 0]] * WORKERS


async def test_who_stays_over_the_grace_is_sent_to_the_new_worker_between_two_pieces(
    tmp_path: Path, film: Published
) -> None:
    async with crewed(tmp_path, film, worker_grace=0.2) as house:
        before = processes()
        viewer = await house.start_peer("viewer")
        assert await viewer.download(film) == film.data
        os.kill(os.getpid(), signal.SIGHUP)
        await ended(*before)
        await house.assert_serves(film)
        assert await viewer.download(film) == film.data


async def test_an_upload_outlives_the_lead_and_its_worker(
    tmp_path: Path, film: Published, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publisher notices nothing but a pause, and sends nothing twice that was received."""
    read, offsets = publishing._read, list[int]()

    def read_slowly(one: publishing.Film, offset: int) -> bytes:
        if len(offsets) == 1:
            os.kill(os.getpid(), signal.SIGHUP)
        if offsets:
            time.sleep(1.0)
        offsets.append(offset)
        return read(one, offset)

    monkeypatch.setattr(publishing, "_read", read_slowly)
    async with crewed(tmp_path, film, worker_grace=0.2) as house:
        before = processes()
        address = await house.publish(clip, "New")
        await ended(*before)
        assert offsets.count(0) == 1
        assert address.title in published(house.folder / "edge")
