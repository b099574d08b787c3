"""Uploads that meet a full disk, a cut line or an edge that is restarted: nothing that came is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
import trio

from edge import quarantine
from edge.media.child import Limits, prepare
from peer import publish as publishing
from shared.connection import Connection
from shared.core.bulk import MAX_UPLOAD_BYTES
from shared.core.errors import Reason, Refused
from shared.setting_types import HostPortText
from tests.node_parts import (
    Published,
    full_after,
    new_clip,
    open_house,
    published,
    published_once,
)


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_clip(tmp_path_factory)


# -- full disks ---------------------------------------------------------------------------------------


def fills_up(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    """From now on the quarantine's disk has room for so much."""
    real = quarantine.Landing._append
    left = [free_bytes]

    def append(self: quarantine.Landing, data: bytes) -> None:
        if len(data) > left[0]:
            raise Refused(Reason.NO_SPACE, "the edge cannot write: No space left on device")
        left[0] -= len(data)
        real(self, data)

    monkeypatch.setattr(quarantine.Landing, "_append", append)


async def test_a_disk_that_fills_up_under_an_upload_keeps_what_came(
    tmp_path: Path, film: Published, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path, film) as house:
        with monkeypatch.context() as patch:
            fills_up(patch, MAX_UPLOAD_BYTES)
            error = await house.refusal(clip)
        assert isinstance(error, Refused)
        assert error.reason is Reason.NO_SPACE
        assert [(folder / "source").stat().st_size for folder in house.quarantine] == [MAX_UPLOAD_BYTES]
        await house.assert_serves(film)
        await house.publish(clip, "New")
        assert house.quarantine == []


async def test_a_disk_with_no_room_at_all_refuses_at_once(
    tmp_path: Path, film: Published, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "SPARE_DISK_BYTES", 1 << 60)
    async with open_house(tmp_path, film) as house:
        error = await house.refusal(clip)
        assert str(error) == "no space: the edge's disk has no room for this file"


async def test_a_store_that_fills_up_keeps_what_it_holds(
    tmp_path: Path, film: Published, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path, film) as house:
        before = published(tmp_path / "edge")
        with monkeypatch.context() as patch:
            full_after(patch, tmp_path / "edge" / "pieces", 3)
            error = await house.refusal(clip)
        assert isinstance(error, Refused)
        assert error.reason is Reason.NO_SPACE
        assert published(tmp_path / "edge") == before
        assert len(house.quarantine) == 1  # the file was not at fault: once there is room it goes on
        await house.publish(clip, "New")
        assert len(published(tmp_path / "edge")) == 2


async def test_an_edge_over_its_quota_refuses_the_title(tmp_path: Path, film: Published, clip: Path) -> None:
    async with open_house(tmp_path, film, quota=len(film.data) + (1 << 20)) as house:
        error = await house.refusal(clip)
        assert isinstance(error, Refused)
        assert error.reason is Reason.NO_SPACE
        assert "quota" in str(error)
        await house.assert_serves(film)


# -- cut off in the middle ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def rendition(clip: Path) -> bytes:
    """SHA-256 of what becomes of the clip when nothing goes wrong."""
    target = clip.with_name("rendition.mp4")
    trio.run(prepare, clip, target, Limits())
    return sha256(target.read_bytes()).digest()


@dataclass(slots=True)
class Cutter:
    """Sees every chunk that is sent, in small pieces; `act` is called before each."""

    act: Callable[[Connection], None]
    offsets: list[int] = field(default_factory=list)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(publishing, "PAUSE_SECONDS", 0.1)
        monkeypatch.setattr(publishing, "MAX_UPLOAD_BYTES", 64 * 1024)
        real = publishing._Visit._send_chunk

        async def send_chunk(
            visit: publishing._Visit,
            connection: Connection,
            upload: bytes,
            offset: int,
            data: bytes,
            places: trio.Semaphore,
        ) -> None:
            self.offsets.append(offset)
            self.act(connection)
            await real(visit, connection, upload, offset, data, places)

        monkeypatch.setattr(publishing._Visit, "_send_chunk", send_chunk)


async def test_an_upload_that_is_cut_again_and_again_arrives_whole(
    tmp_path: Path, film: Published, clip: Path, rendition: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice, stages = Random(3), list[str]()
    cutter = Cutter(lambda connection: connection.close(Reason.INTERNAL) if dice.random() < 0.1 else None)
    cutter.watch(monkeypatch)
    async with open_house(tmp_path, film) as house:
        address = await house.publish(clip, "New", lambda stage, share: stages.append(stage))
        assert stages.count("connecting again") >= 3
        assert cutter.offsets.count(0) == 1  # it went on where it was
        assert address.title is not None
        assert published(tmp_path / "edge")[address.title] == rendition
        assert house.quarantine == []


async def test_an_edge_that_is_restarted_goes_on_with_the_upload(
    tmp_path: Path, film: Published, clip: Path, rendition: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_way = trio.Event()
    cutter = Cutter(lambda connection: half_way.set() if len(cutter.offsets) == 15 else None)
    cutter.watch(monkeypatch)

    async def restart() -> None:
        await half_way.wait()
        at = HostPortText(str(house.edge.ready.address.at))
        await house.edge.stop()
        assert len(house.quarantine) == 1  # not all of it was there
        await house.start_edge(listen=at)

    async with open_house(tmp_path, film) as house:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restart)
            address = await house.publish(clip, "New")
        assert cutter.offsets.count(0) == 1
        assert address.title is not None
        assert published(tmp_path / "edge")[address.title] == rendition
        assert house.quarantine == []


# -- after a crash ------------------------------------------------------------------------------------


def shorten(folder: Path, film: Published, pieces: list[int]) -> Path:
    """Leaves an edge with so much of a film."""
    title = folder / "edge" / "pieces" / film.infohash.hex()
    for index in set(range(film.manifest.piece_count)) - set(pieces):
        (title / str(index)).unlink()
    return title


@pytest.mark.parametrize("pieces", [[], [0], [0, 1]])
async def test_a_title_cut_off_while_it_was_filed_is_removed_at_the_next_start(
    tmp_path: Path, film: Published, pieces: list[int]
) -> None:
    async with open_house(tmp_path, film) as house:
        await house.edge.stop()
        title = shorten(tmp_path, film, pieces)
        await house.start_edge()
        assert not title.exists()
        assert await house.publish(film.clip, "Under another name")


async def test_a_title_that_lost_a_piece_to_the_disk_keeps_the_others(
    tmp_path: Path, film: Published
) -> None:
    async with open_house(tmp_path, film) as house:
        await house.edge.stop()
        title = shorten(tmp_path, film, [0, 2])
        await house.start_edge()
        assert sorted(path.name for path in title.iterdir()) == ["0", "2", "manifest"]


async def test_a_fragment_of_another_edges_title_is_kept(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        other = tmp_path / "other"
        await trio.to_thread.run_sync(shutil.copytree, film.folder / "edge" / "pieces", other / "pieces")
        title = other / "pieces" / film.infohash.hex()
        (title / str(film.manifest.piece_count - 1)).unlink()
        await house.another_edge("other")
        assert (title / "manifest").exists()
