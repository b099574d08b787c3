"""Publishing what is no film, or half of one, to edges that are full, closed or restarted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio

from edge import ingest, quarantine
from peer.publish import publish, read_film
from shared.core.bulk import UploadRequest
from shared.core.errors import ConnectionLost, LocalError, PenstockError, Reason, Refused
from shared.core.ids import Kind
from shared.core.messages import Refusal, Stage, Upload, UploadState
from tests.node_parts import (
    PUBLISHER,
    TITLE,
    House,
    Published,
    Stranger,
    new_clip,
    open_house,
    published_once,
    stranger,
)


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_clip(tmp_path_factory)


def written(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


# -- what is at fault itself ------------------------------------------------------------------------

NO_FILMS: dict[str, Callable[[Path, Path], bytes]] = {
    "text.mp4": lambda clip, secret: b"It was a dark and stormy night. " * 100,
    "playlist.m3u8": lambda clip, secret: f"#EXTM3U\n#EXTINF:5,\n{secret}\n".encode(),
    "concat.mp4": lambda clip, secret: f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
    "truncated.mp4": lambda clip, secret: clip.read_bytes()[: clip.stat().st_size // 2],
    "headless.mp4": lambda clip, secret: clip.read_bytes()[5000:],
    "noise.mkv": lambda clip, secret: b"\x1aE\xdf\xa3" + Random(1).randbytes(50_000),
    "zeros.ts": lambda clip, secret: bytes(10_000),
}


async def test_what_is_no_film_is_refused_and_thrown_away(
    tmp_path: Path, film: Published, clip: Path
) -> None:
    async with open_house(tmp_path, film) as house:
        for name, make in NO_FILMS.items():
            error = await house.refusal(written(tmp_path / name, make(clip, film.clip)))
            assert isinstance(error, Refused), name
            assert error.reason is Reason.NOT_A_FILM, name
            assert error.detail, name
            assert str(film.clip) not in str(error)
            assert house.quarantine == [], name
        assert len(published_now(house)) == 1
        await house.assert_serves(film)


def published_now(house: House) -> list[str]:
    return [folder.name for folder in (house.folder / "edge" / "pieces").iterdir() if folder.is_dir()]


@pytest.mark.parametrize(
    ("name", "title", "says"),
    [
        ("empty.mp4", "Film", "is empty"),
        ("missing.mp4", "Film", "cannot be read"),
        ("folder", "Film", "is not a file"),
        ("new\nline.mp4", "Film", "cannot be printed"),
        ("back\\slash.mp4", "Film", "would be a path"),
        ("esc\x1b[2J.mp4", "Film", "cannot be printed"),
        ("fine.mp4", "a\x1b[2Jb", "cannot be printed"),
        ("fine.mp4", "\u202etxt", "cannot be printed"),
        ("fine.mp4", "", "is empty"),
        ("fine.mp4", "x" * 300, "is over"),
    ],
)
def test_what_cannot_be_published_never_leaves(tmp_path: Path, name: str, title: str, says: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name != "missing.mp4":
        path.write_bytes(b"" if name == "empty.mp4" else b"film")
    with pytest.raises(LocalError) as caught:
        read_film(path, title, lambda stage, share: None)
    assert says in str(caught.value)


# -- publishers that do not play by the rules -------------------------------------------------------


def order(name: str = "a.mp4", title: str = "A", length: int = 10, digest: bytes = bytes(32)) -> Upload:
    return Upload(3, name, title, length, digest)


async def begin(one: Stranger, upload: Upload) -> UploadState:
    await one.say(upload)
    return await one.hear(UploadState)


async def chunk(one: Stranger, upload: bytes, offset: int, data: bytes) -> bytes:
    return await one.ask(UploadRequest(upload, offset, len(data)).encode() + data)


@pytest.mark.parametrize(
    "upload",
    [
        order(name="../../etc/passwd"),
        order(name="/etc/passwd"),
        order(name="a\\b.mp4"),
        order(name=".."),
        order(title=" spaces "),
        order(title="x" * 201),
    ],
    ids=lambda upload: f"{upload.name} {upload.title[:9]}",
)
async def test_a_name_or_title_that_is_none_is_refused_by_the_edge(
    tmp_path: Path, film: Published, upload: Upload
) -> None:
    async with open_house(tmp_path, film) as house, stranger(house.edge.ready.address, Kind.TOOL) as one:
        await one.say(upload)
        refused = await one.hear(Refusal)
        assert (refused.request, refused.reason) == (3, Reason.MALFORMED)
        assert refused.detail
        assert house.quarantine == []


async def test_lies_about_an_upload_are_found(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house, stranger(house.edge.ready.address, Kind.TOOL) as one:
        state = await begin(one, order())
        assert (state.stage, state.received_bytes) == (Stage.RECEIVING, 0)
        assert await chunk(one, state.upload, 5, b"beyond") == bytes([Reason.MALFORMED])
        assert await chunk(one, state.upload, 1 << 30, b"far beyond") == bytes([Reason.MALFORMED])
        answers: list[bytes] = []

        async def send(offset: int, data: bytes) -> None:
            answers.append(await chunk(one, state.upload, offset, data))

        async with trio.open_nursery() as nursery:  # the wrong way round, and overlapping
            nursery.start_soon(send, 8, b"89")
            nursery.start_soon(send, 4, b"45678")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(send, 0, b"01234")
        assert sorted(answers) == [b"\0" + size.to_bytes(8, "big") for size in (5, 9, 10)]
        refused = await one.hear(Refusal)  # ten bytes, but not those that were promised
        assert refused.reason is Reason.BAD_DATA
        assert house.quarantine == []
        with pytest.raises(Refused):
            await chunk(one, state.upload, 0, b"0")


async def test_a_chunk_shorter_than_it_says_costs_the_connection(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        async with stranger(house.edge.ready.address, Kind.TOOL) as one:
            state = await begin(one, order())
            with suppress(Refused, ConnectionLost):
                await one.ask(UploadRequest(state.upload, 0, 10).encode() + b"short")
            assert (await one.end()).reason is Reason.MALFORMED
        await house.assert_serves(film)


async def test_somebody_elses_upload_takes_no_bytes(tmp_path: Path, film: Published) -> None:
    async with (
        open_house(tmp_path, film) as house,
        stranger(house.edge.ready.address, Kind.TOOL) as one,
        stranger(house.edge.ready.address, Kind.TOOL) as another,
    ):
        state = await begin(one, order())
        with pytest.raises(Refused):
            await chunk(another, state.upload, 0, b"poison")
        assert (await begin(one, order())).received_bytes == 0


async def test_a_chunk_whose_forerunners_never_come_is_given_up(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "EARLY_SECONDS", 0.2)
    async with open_house(tmp_path, film) as house, stranger(house.edge.ready.address, Kind.TOOL) as one:
        state = await begin(one, order())
        assert await chunk(one, state.upload, 5, b"56789") == bytes([Reason.TIMEOUT])


async def test_only_so_many_uploads_at_once(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MAX_JOBS", 3)
    async with open_house(tmp_path, film) as house:
        async with stranger(house.edge.ready.address, Kind.TOOL) as one:
            for number in range(3):
                await begin(one, order(f"{number}.mp4"))
            await one.say(order("3.mp4"))
            assert (await one.hear(Refusal)).reason is Reason.BUSY
        async with stranger(house.edge.ready.address, Kind.TOOL) as another:  # who left, left room
            while True:
                await another.say(order("4.mp4"))
                with trio.move_on_after(0.2):
                    await another.hear(UploadState)
                    break


async def test_who_may_not_publish_is_told_so(tmp_path: Path, film: Published, clip: Path) -> None:
    async with open_house(tmp_path, film, local_publishers=False) as house:
        error = await house.refusal(clip)
        assert str(error) == "not allowed: your node id is not in the edge's `publishers` setting"
        assert house.quarantine == []
        await house.edge.stop()
        await house.start_edge(local_publishers=False, publishers=(PUBLISHER.id.hex(),))
        assert await house.publish(clip, "New")


async def test_a_file_over_the_edges_limit_is_refused_before_it_is_sent(
    tmp_path: Path, film: Published, clip: Path
) -> None:
    async with open_house(tmp_path, film, max_upload=1 << 20) as house:
        error = await house.refusal(clip)
        assert str(error) == f"too large: this edge takes files of up to {1 << 20} bytes"


async def test_an_address_that_is_no_edges_is_named(tmp_path: Path, film: Published, clip: Path) -> None:
    async with open_house(tmp_path, film) as house:
        read = read_film(clip, "New", lambda stage, share: None)
        with pytest.raises(PenstockError, match="is no edge but a tracker"):
            await publish(read, house.tracker.ready.address, PUBLISHER, lambda stage, share: None)


async def test_a_film_that_shrinks_on_the_way_is_the_publishers_trouble(
    tmp_path: Path, film: Published, clip: Path
) -> None:
    async with open_house(tmp_path, film) as house:
        path = tmp_path / "shrinking.mp4"
        await trio.to_thread.run_sync(shutil.copy, clip, path)
        read = read_film(path, "New", lambda stage, share: None)
        path.write_bytes(b"gone")
        with pytest.raises(LocalError, match="became shorter"):
            await publish(read, house.edge.ready.address, PUBLISHER, lambda stage, share: None)
        path.unlink()
        with pytest.raises(LocalError, match="cannot be read"):
            await publish(read, house.edge.ready.address, PUBLISHER, lambda stage, share: None)


async def test_a_wrong_hash_throws_the_upload_away(tmp_path: Path, film: Published, clip: Path) -> None:
    async with open_house(tmp_path, film) as house:
        lie = replace(read_film(clip, "New", lambda stage, share: None), sha256=bytes(32))
        with pytest.raises(Refused) as caught:
            await publish(lie, house.edge.ready.address, PUBLISHER, lambda stage, share: None)
        assert caught.value.reason is Reason.BAD_DATA
        assert house.quarantine == []


# -- names ---------------------------------------------------------------------------------------------


async def test_a_long_name_and_title_in_any_script_are_fine(
    tmp_path: Path, film: Published, clip: Path
) -> None:
    async with open_house(tmp_path, film) as house:
        path, title = tmp_path / ("映" * 85), "🎬" * 200  # as long as file systems and the rules allow
        await trio.to_thread.run_sync(shutil.copy, clip, path)
        assert await house.publish(path, title)
        error = await house.refusal(path, "Another title")
        assert "published already" in str(error)


async def test_the_same_film_again_is_the_same_title(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        address = await house.publish(film.clip, TITLE)
        assert address.title == film.manifest.title_id
        error = await house.refusal(film.clip, "Another title")
        assert "published already" in str(error)
        assert house.quarantine == []
