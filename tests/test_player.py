"""The player's door: what any player may ask, and what it is told when something is amiss."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from peer import film_response, player
from peer.byte_range import NotSatisfiable, asked_range, etag_matches
from peer.player import serve_player
from shared.core.errors import (
    ConnectionLost,
    LocalError,
    PenstockError,
    ProtocolError,
    Reason,
    Refused,
    StoreError,
    StoreFull,
)
from shared.core.manifest import Manifest
from tests.shelf import TITLE, Shelf, make_film


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film"), seconds=10)


@pytest.fixture
def shelf(film: Path) -> Shelf:
    shelf = Shelf()
    shelf.add(film)
    return shelf


@asynccontextmanager
async def door(shelf: Shelf) -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
    """A client of a door on the shelf, and the door's base address."""
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(partial(serve_player, shelf, "127.0.0.1", 0))
        base = f"http://{host}:{port}"
        async with httpx2.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
            yield client, base
        nursery.cancel_scope.cancel()


def only(shelf: Shelf) -> Manifest:
    return next(manifest for manifest, _ in shelf.films.values())


def film_url(shelf: Shelf, ending: str = "mp4") -> str:
    manifest = only(shelf)
    return f"/titles/{manifest.title_id.hex()}/{manifest.infohash.hex()}.{ending}"


# --- ranges ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("Bytes = 10-19", (10, 20)),
        ("bytes= 10-19 ", (10, 20)),
        ("bytes=90-", (90, 100)),
        ("bytes=90-1000000000000", (90, 100)),
        ("bytes=-7", (93, 100)),
        ("bytes=-700", (0, 100)),
        ("bytes=20-10", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes", None),
        ("bytes=a-b", None),
        ("bytes=+1-2", None),
        ("bytes=1-2,5-6", None),
        ("bytes=1_0-20", None),
        ("bytes=\u0661-\u0662", None),
        ("seconds=1-2", None),
        (f"bytes={'9' * 5000}-", None),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert asked_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", f"bytes={'9' * 20}-"])
def test_ranges_behind_the_end(header: str) -> None:
    with pytest.raises(NotSatisfiable):
        asked_range(header, 100)


@given(header=st.text("bytes=0123456789-, \t", max_size=40), length=st.integers(0, 1 << 40))
def test_any_range_lies_in_the_file(header: str, length: int) -> None:
    """Whatever is asked, the answer is the whole file, a part of it that is not empty, or 416."""
    try:
        part = asked_range(header, length)
    except NotSatisfiable:
        return
    assert part is None or 0 <= part[0] < part[1] <= length


def test_if_range_must_be_this_very_version() -> None:
    assert asked_range("bytes=1-2", 9, if_range='"a"', etag='"a"') == (1, 3)
    assert asked_range("bytes=1-2", 9, if_range='"b"', etag='"a"') is None
    assert asked_range("bytes=1-2", 9, if_range='W/"a"', etag='"a"') is None
    assert asked_range("bytes=99-", 9, if_range='"b"', etag='"a"') is None
    assert asked_range("bytes=1-2", 9, if_range="Mon, 05 Jan 2026 10:00:00 GMT", etag='"a"') is None


def test_etags_are_compared_weakly_for_caches() -> None:
    assert etag_matches('"x", W/"a"', '"a"')
    assert etag_matches("*", '"a"')
    assert not etag_matches('"x"', '"a"')
    assert not etag_matches(None, '"a"')


# --- the film --------------------------------------------------------------------------------


async def test_the_whole_film_is_the_published_one(shelf: Shelf, film: Path) -> None:
    async with door(shelf) as (client, _):
        answer = await client.get(film_url(shelf))
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(film.read_bytes()).digest()
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{only(shelf).infohash.hex()}"'
    assert answer.headers["content-length"] == str(film.stat().st_size)
    assert shelf.largest_read <= film_response.PART_BYTES
    assert shelf.opened == shelf.closed == 1


@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=1000-300000", "bytes=-5000", "bytes=100000-"])
async def test_a_part_of_the_film(shelf: Shelf, film: Path, asked: str) -> None:
    whole = film.read_bytes()
    part = asked_range(asked, len(whole))
    assert part is not None
    async with door(shelf) as (client, _):
        answer = await client.get(film_url(shelf), headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[slice(*part)]
    assert answer.headers["content-range"] == f"bytes {part[0]}-{part[1] - 1}/{len(whole)}"
    assert answer.headers["content-length"] == str(part[1] - part[0])


async def test_a_range_behind_the_end(shelf: Shelf, film: Path) -> None:
    length = film.stat().st_size
    async with door(shelf) as (client, _):
        answer = await client.get(film_url(shelf), headers={"Range": f"bytes={length}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{length}"
    assert shelf.opened == 0


async def test_ranges_that_are_ignored(shelf: Shelf, film: Path) -> None:
    async with door(shelf) as (client, _):
        several = await client.get(film_url(shelf), headers={"Range": "bytes=0-1,5-6"})
        stale = await client.get(film_url(shelf), headers={"Range": "bytes=0-1", "If-Range": '"old"'})
        same = await client.get(
            film_url(shelf), headers={"Range": "bytes=0-1", "If-Range": several.headers["etag"]}
        )
    assert (several.status_code, stale.status_code, same.status_code) == (200, 200, 206)
    assert several.content == stale.content == film.read_bytes()


async def test_head_fetches_nothing(shelf: Shelf, film: Path) -> None:
    async with door(shelf) as (client, _):
        answer = await client.head(film_url(shelf), headers={"Range": "bytes=0-1"})
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(film.stat().st_size)
    assert answer.headers["accept-ranges"] == "bytes"
    assert shelf.opened == shelf.reads == 0


async def test_a_copy_that_is_still_right_is_not_sent_again(shelf: Shelf) -> None:
    async with door(shelf) as (client, _):
        etag = (await client.head(film_url(shelf))).headers["etag"]
        answer = await client.get(film_url(shelf), headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content, shelf.opened) == (304, b"", 0)


async def test_a_plain_file_is_a_download(tmp_path: Path) -> None:
    shelf = Shelf()
    (tmp_path / "notes.txt").write_bytes(b"mill")
    (tmp_path / "empty.txt").write_bytes(b"")
    shelf.add(tmp_path / "notes.txt", plain=True)
    empty = shelf.add(tmp_path / "empty.txt", plain=True, number=2)
    async with door(shelf) as (client, _):
        notes = await client.get(film_url(shelf))
        nothing = await client.get(f"/titles/{empty.title_id.hex()}/{empty.infohash.hex()}.mp4")
        unplayable = await client.get(f"/titles/{empty.title_id.hex()}/master.m3u8")
    assert (notes.content, notes.headers["content-type"]) == (b"mill", "application/octet-stream")
    assert (nothing.status_code, nothing.content) == (200, b"")
    assert unplayable.status_code == 404


async def test_a_player_that_leaves_cancels_its_read_at_once(shelf: Shelf) -> None:
    shelf.hold_at = 200_000
    async with door(shelf) as (client, _):
        async with client.stream("GET", film_url(shelf)) as answer:
            assert answer.status_code == 200
            await shelf.waiting.wait()
            assert shelf.closed == 0
        with trio.fail_after(5):
            await shelf.left.wait()
    assert shelf.closed == 1


async def test_a_player_that_leaves_before_the_first_byte_cancels_its_read(shelf: Shelf) -> None:
    shelf.hold_at = 0
    async with door(shelf) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(client.get, film_url(shelf))
        await shelf.waiting.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await shelf.left.wait()


async def test_a_player_that_pauses_is_not_read_ahead_for(tmp_path: Path) -> None:
    shelf = Shelf()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 << 20)
    shelf.add(tmp_path / "large", plain=True)
    async with door(shelf) as (client, _):
        async with client.stream("GET", film_url(shelf)) as answer:
            parts = answer.aiter_raw(chunk_size=65536)
            await anext(parts)
            reads = -1
            while reads != shelf.reads:  # until the sockets are full
                reads = shelf.reads
                await trio.sleep(0.2)
            assert reads * film_response.PART_BYTES < 32 << 20
            await parts.aclose()  # type: ignore[attr-defined]
        with trio.fail_after(5):
            await shelf.left.wait()


# --- playlists -------------------------------------------------------------------------------


async def test_playlists_lead_to_the_film(shelf: Shelf, film: Path) -> None:
    manifest = only(shelf)
    async with door(shelf) as (client, base):
        listed = await client.get("/playlist.m3u")
        address = listed.text.splitlines()[2]
        assert address == f"{base}/titles/{manifest.title_id.hex()}/master.m3u8"
        master = await client.get(address)
        variant = await client.get(httpx2.URL(address).join(master.text.splitlines()[-1]))
    assert listed.headers["content-type"].startswith("audio/x-mpegurl")
    assert master.headers["content-type"].startswith("application/vnd.apple.mpegurl")
    assert variant.status_code == 200
    assert variant.text.count("#EXT-X-BYTERANGE") == len(manifest.media.segments if manifest.media else ())
    assert variant.text.count(f"{manifest.infohash.hex()}.mp4") > 1


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


async def run(*command: str) -> str:
    """A program's output; it fails the test unless it exits with 0 within a minute."""
    with trio.fail_after(60):
        done = await trio.run_process(
            command, stdin=subprocess.DEVNULL, capture_stdout=True, capture_stderr=True, check=False
        )
    text = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, text[-2000:]
    return text


async def frames(ffprobe: str, source: str) -> int:
    wanted = (
        "-v",
        "error",
        "-count_frames",
        "-select_streams",
        "v:0",
        "-show_entries",
        "stream=nb_read_frames",
    )
    return int((await run(ffprobe, *wanted, "-of", "csv=p=0", source)).strip().strip(",").split()[0])


@pytest.mark.parametrize("ending", ["master.m3u8", "mp4"])
async def test_ffprobe_and_ffmpeg_read_every_frame(shelf: Shelf, film: Path, ending: str) -> None:
    ffprobe, ffmpeg = _tool("ffprobe"), _tool("ffmpeg")
    expected = await frames(ffprobe, str(film.with_name("source.mp4")))
    assert expected == 300
    path = film_url(shelf) if ending == "mp4" else film_url(shelf).rsplit("/", 1)[0] + "/master.m3u8"
    async with door(shelf) as (_, base):
        assert await frames(ffprobe, base + path) == expected
        said = await run(ffmpeg, "-v", "info", "-i", base + path, "-f", "null", "-")
    assert re.findall(r"frame=\s*(\d+)", said)[-1] == str(expected)


@pytest.mark.parametrize("ending", ["master.m3u8", "mp4"])
async def test_mpv_plays_to_the_end(shelf: Shelf, ending: str) -> None:
    mpv = _tool("mpv")
    path = film_url(shelf) if ending == "mp4" else film_url(shelf).rsplit("/", 1)[0] + "/master.m3u8"
    async with door(shelf) as (_, base):
        said = await run(
            mpv, "--no-config", "--vo=null", "--ao=null", "--untimed", "--no-terminal", "--term-status-msg=",
            "--terminal=yes", "--length=100", base + path,
        )  # fmt: skip
    assert "Exiting... (End of file)" in said
    assert "error" not in said.lower()


# --- pages and JSON --------------------------------------------------------------------------


async def test_pages_load_nothing_from_elsewhere(shelf: Shelf) -> None:
    async with door(shelf) as (client, _):
        for path in ("/", f"/watch/{only(shelf).title_id.hex()}"):
            page = await client.get(path)
            assert page.status_code == 200
            assert page.headers["content-security-policy"].startswith("default-src 'self';")
            assert page.headers["x-content-type-options"] == "nosniff"
            parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
            assert parts
            for part in parts:
                assert part.startswith("/")
                assert (await client.get(part)).status_code == 200
            assert "<style" not in page.text and " style=" not in page.text and "onclick" not in page.text


async def test_page_files_are_sent_once(shelf: Shelf) -> None:
    async with door(shelf) as (client, _):
        script = await client.get("/page/hls.light.min.js")
        again = await client.get("/page/hls.light.min.js", headers={"If-None-Match": script.headers["etag"]})
        escape = await client.get("/page/..%2f__init__.py")
        licence = await client.get("/page/hls.LICENSE.txt")
    assert script.headers["content-type"].startswith("text/javascript")
    assert (again.status_code, again.content, escape.status_code) == (304, b"", 404)
    assert "Apache License" in licence.text


async def test_json(shelf: Shelf) -> None:
    title_id = only(shelf).title_id.hex()
    async with door(shelf) as (client, _):
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/api/v1/statistics")).json()["mode"] == "shared"
        (title,) = (await client.get("/api/v1/titles")).json()["titles"]
        closed = await client.get(f"/api/v1/titles/{title_id}/statistics")
        await client.get(title["hls"])
        opened = (await client.get(f"/api/v1/titles/{title_id}/statistics")).json()
    assert (title["title"], title["title_id"], title["page"]) == (TITLE, title_id, f"/watch/{title_id}")
    assert title["renditions"][0]["mp4"] == film_url(shelf)
    assert closed.status_code == 404
    assert set(opened["renditions"][0]["held"]) == {"."}
    assert opened["peer"]["tracker"] == "connected"


# --- who may ask, and refusals ---------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"Host": "films.example"}, {"Origin": "http://films.example"}, {"Sec-Fetch-Site": "cross-site"}],
)
async def test_pages_of_other_sites_get_nothing(shelf: Shelf, headers: dict[str, str]) -> None:
    async with door(shelf) as (client, _):
        answer = await client.get(film_url(shelf), headers=headers)
    assert answer.status_code == 403
    assert answer.text.count("\n") == 1
    assert "content-security-policy" in answer.headers
    assert shelf.opened == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "films.example"])
async def test_the_door_opens_on_loopback_only(shelf: Shelf, host: str) -> None:
    with pytest.raises(LocalError, match=r"^peer\.player: .*use 127\.0\.0\.1"):
        await serve_player(shelf, host, 0)


BAD_PATHS = [
    "/nowhere",
    "/watch/xyz",
    f"/watch/{'0' * 31}G",
    f"/titles/{'00' * 17}/master.m3u8",
    f"/titles/{'00' * 16}/master.m3u8",
    f"/titles/{'00' * 16}/{'00' * 32}.mp4",
    f"/titles/{'00' * 16}/{'00' * 32}.m3u8",
    f"/titles/{'01' * 16}/{'00' * 32}.mp4",
    f"/titles/{'01' * 16}/short.mp4",
    f"/titles/{'01' * 16}/%00.m3u8",
    "/api/v1/titles/%0d%0a/statistics",
]


@pytest.mark.parametrize("path", BAD_PATHS)
async def test_what_is_not_there_is_404(shelf: Shelf, path: str) -> None:
    async with door(shelf) as (client, _):
        answer = await client.get(path)
    assert answer.status_code == 404
    assert len(answer.text.strip().splitlines()) == 1


REFUSALS: list[tuple[PenstockError, int]] = [
    (Refused(Reason.UNKNOWN_TITLE, "no such title"), 404),
    (Refused(Reason.NOT_ALLOWED, "you are not in the title's group"), 403),
    (Refused(Reason.TICKET_EXPIRED, "ask again"), 403),
    (Refused(Reason.NO_SPACE, "the quota is full"), 507),
    (Refused(Reason.BUSY, "no slot"), 503),
    (ConnectionLost(Reason.TIMEOUT, "the tracker does not answer"), 503),
    (ProtocolError(Reason.BAD_DATA, "wrong\nhash"), 503),
    (LocalError("peer.tracker: 127.0.0.1:4430 cannot be reached; is it running?"), 503),
    (StoreFull("peer.store: the disk is full; free some space"), 507),
    (StoreError("peer.store: the disk is read-only"), 500),
]


def one_refusal(answer: httpx2.Response, error: PenstockError, status: int) -> None:
    assert answer.status_code == status
    assert answer.text == " ".join(str(error).split()) + "\n"
    assert answer.headers["content-type"].startswith("text/plain")
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(("error", "status"), REFUSALS)
async def test_refusals_are_one_line(shelf: Shelf, error: PenstockError, status: int) -> None:
    url = film_url(shelf)
    async with door(shelf) as (client, _):
        shelf.refusal = error
        one_refusal(await client.get(url), error, status)
        one_refusal(await client.get("/playlist.m3u"), error, status)
        one_refusal(await client.get(f"/watch/{'01' * 16}"), error, status)


@pytest.mark.parametrize(("error", "status"), REFUSALS)
async def test_a_failure_before_the_first_byte_is_said(
    shelf: Shelf, error: PenstockError, status: int
) -> None:
    shelf.reading, shelf.cut_at = error, 0
    async with door(shelf) as (client, _):
        one_refusal(await client.get(film_url(shelf)), error, status)
    assert shelf.opened == shelf.closed == 1


async def test_a_failure_later_cuts_the_answer(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    shelf.reading, shelf.cut_at = StoreFull("the disk is full"), 200_000
    async with door(shelf) as (client, _):
        with caplog.at_level(logging.WARNING), pytest.raises(httpx2.RemoteProtocolError):
            await client.get(film_url(shelf))
        shelf.cut_at = None
        assert (await client.get(film_url(shelf))).status_code == 200
    (record,) = caplog.records
    assert "the disk is full" in record.message
    assert record.exc_info is None
    assert shelf.opened == shelf.closed == 2


async def test_an_opened_title_plays_on_without_its_tracker(shelf: Shelf, film: Path) -> None:
    master = film_url(shelf).rsplit("/", 1)[0] + "/master.m3u8"
    async with door(shelf) as (client, _):
        assert (await client.get(master)).status_code == 200
        shelf.refusal = LocalError("the tracker cannot be reached")
        assert (await client.get(film_url(shelf, "m3u8"))).status_code == 200
        assert (await client.get(film_url(shelf))).content == film.read_bytes()


async def ask_in_vain(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> httpx2.Response:
    monkeypatch.setattr(film_response, "FIRST_BYTE_SECONDS", 0.05)
    monkeypatch.setattr(player, "WAIT_SECONDS", 0.05)
    async with door(shelf) as (client, _):
        return await client.get(film_url(shelf))


async def test_sources_that_never_answer(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.hold_at = 0
    answer = await ask_in_vain(shelf, monkeypatch)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert shelf.opened == shelf.closed == 1


@pytest.mark.parametrize("silent", ["open_title", "manifest"])
async def test_a_tracker_or_manifest_that_never_comes(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    async def never(*_: object) -> None:
        await trio.sleep_forever()

    waiting: Callable[..., Awaitable[None]] = never
    monkeypatch.setattr(shelf, silent, waiting)
    answer = await ask_in_vain(shelf, monkeypatch)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.text.count("\n") == 1


async def test_only_so_many_titles_are_remembered(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, film: Path
) -> None:
    monkeypatch.setattr(player, "MAX_OPENED", 2)
    for number in (2, 3):
        shelf.films |= {}
        shelf.add(film, number=number)
    app = player._Door(shelf)
    entries = [await shelf.open_title(manifest.title_id) for manifest, _ in shelf.films.values()]
    assert len(entries) == len(app.opened) + len(entries)
