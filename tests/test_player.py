"""The player's door: what any player may ask, and what it is told when something is amiss."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx2
import pytest
import trio
import trio.testing

from peer import player
from peer.player import serve_player
from shared import file_response
from shared.core.byte_range import asked_range
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
from tests.shelf import TITLE, Shelf, make_film, open_door


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film"), seconds=10)


@pytest.fixture(scope="module")
def whole(film: Path) -> bytes:
    return film.read_bytes()


@pytest.fixture
def shelf(film: Path) -> Shelf:
    shelf = Shelf()
    shelf.add(film)
    return shelf


# --- the film --------------------------------------------------------------------------------


async def test_the_whole_film_is_the_published_one(shelf: Shelf, whole: bytes) -> None:
    async with open_door(shelf) as (client, _):
        answer = await client.get(shelf.film_path)
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(whole).digest()
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"] == f'"{shelf.first.infohash.hex()}"'
    assert answer.headers["content-length"] == str(len(whole))
    assert shelf.largest_read <= file_response.PART_BYTES
    assert shelf.opened == shelf.closed == 1


async def test_a_download_moves_no_playhead(shelf: Shelf, whole: bytes) -> None:
    async with open_door(shelf) as (client, _):
        await client.get(shelf.film_path)
        assert (await client.get(shelf.film_path + "?download")).content == whole
    assert shelf.playing == [True, False]


@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=1000-300000", "bytes=-5000", "bytes=100000-"])
async def test_a_part_of_the_film(shelf: Shelf, whole: bytes, asked: str) -> None:
    part = asked_range(asked, len(whole))
    assert part is not None
    async with open_door(shelf) as (client, _):
        answer = await client.get(shelf.film_path, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[slice(*part)]
    assert answer.headers["content-range"] == f"bytes {part[0]}-{part[1] - 1}/{len(whole)}"
    assert answer.headers["content-length"] == str(part[1] - part[0])


async def test_a_range_behind_the_end(shelf: Shelf, whole: bytes) -> None:
    length = len(whole)
    async with open_door(shelf) as (client, _):
        answer = await client.get(shelf.film_path, headers={"Range": f"bytes={length}-"})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{length}"
    assert shelf.opened == 0


async def test_ranges_that_are_ignored(shelf: Shelf, whole: bytes) -> None:
    async with open_door(shelf) as (client, _):
        several = await client.get(shelf.film_path, headers={"Range": "bytes=0-1,5-6"})
        stale = await client.get(shelf.film_path, headers={"Range": "bytes=0-1", "If-Range": '"old"'})
        same = await client.get(
            shelf.film_path, headers={"Range": "bytes=0-1", "If-Range": several.headers["etag"]}
        )
    assert (several.status_code, stale.status_code, same.status_code) == (200, 200, 206)
    assert several.content == stale.content == whole


async def test_head_fetches_nothing(shelf: Shelf, whole: bytes) -> None:
    async with open_door(shelf) as (client, _):
        answer = await client.head(shelf.film_path, headers={"Range": "bytes=0-1"})
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(whole))
    assert answer.headers["accept-ranges"] == "bytes"
    assert shelf.opened == shelf.reads == 0


async def test_a_copy_that_is_still_right_is_not_sent_again(shelf: Shelf) -> None:
    async with open_door(shelf) as (client, _):
        etag = (await client.head(shelf.film_path)).headers["etag"]
        answer = await client.get(shelf.film_path, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content, shelf.opened) == (304, b"", 0)


async def test_a_plain_file_is_a_download(tmp_path: Path) -> None:
    shelf = Shelf()
    (tmp_path / "notes.txt").write_bytes(b"mill")
    (tmp_path / "empty.txt").write_bytes(b"")
    shelf.add(tmp_path / "notes.txt", plain=True)
    empty = shelf.add(tmp_path / "empty.txt", plain=True, number=2)
    async with open_door(shelf) as (client, _):
        notes = await client.get(shelf.film_path)
        nothing = await client.get(f"/titles/{empty.title_id.hex()}/{empty.infohash.hex()}.mp4")
        unplayable = await client.get(f"/titles/{empty.title_id.hex()}/master.m3u8")
    assert (notes.content, notes.headers["content-type"]) == (b"mill", "application/octet-stream")
    assert (nothing.status_code, nothing.content) == (200, b"")
    assert unplayable.status_code == 404


async def test_a_player_that_leaves_cancels_its_read_at_once(shelf: Shelf) -> None:
    shelf.hold_at = 1
    async with open_door(shelf) as (client, _):
        async with client.stream("GET", shelf.film_path) as answer:
            assert answer.status_code == 200
            await shelf.waiting.wait()
            assert shelf.closed == 0
        with trio.fail_after(5):
            await shelf.left.wait()
    assert shelf.closed == 1


async def test_a_player_that_leaves_before_the_first_byte_cancels_its_read(shelf: Shelf) -> None:
    shelf.hold_at = 0
    async with open_door(shelf) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(client.get, shelf.film_path)
        await shelf.waiting.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await shelf.left.wait()


async def test_a_player_that_pauses_is_not_read_ahead_for(tmp_path: Path) -> None:
    shelf = Shelf()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 << 20)
    shelf.add(tmp_path / "large", plain=True)
    async with open_door(shelf) as (_, base):
        url = httpx2.URL(base)
        async with await trio.open_tcp_stream(url.host, url.port or 0) as player:
            request = f"GET {shelf.film_path} HTTP/1.1\r\nHost: {url.netloc.decode()}\r\n\r\n"
            await player.send_all(request.encode())
            assert (await player.receive_some(64)).startswith(b"HTTP/1.1 200")
            await trio.testing.wait_all_tasks_blocked(0.2)  # sockets are full
            assert 0 < shelf.reads * file_response.PART_BYTES < 32 << 20
            assert shelf.closed == 0
        with trio.fail_after(5):
            await shelf.left.wait()


# --- playlists -------------------------------------------------------------------------------


async def test_playlists_lead_to_the_film(shelf: Shelf, film: Path) -> None:
    manifest = shelf.first
    async with open_door(shelf) as (client, base):
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


# --- pages and JSON --------------------------------------------------------------------------


async def test_pages_load_nothing_from_elsewhere(shelf: Shelf) -> None:
    async with open_door(shelf) as (client, _):
        for path in ("/", shelf.page_path):
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
    async with open_door(shelf) as (client, _):
        script = await client.get("/page/hls.light.min.js")
        again = await client.get("/page/hls.light.min.js", headers={"If-None-Match": script.headers["etag"]})
        escape = await client.get("/page/..%2f__init__.py")
        licence = await client.get("/page/hls.LICENSE.txt")
    assert script.headers["content-type"].startswith("text/javascript")
    assert (again.status_code, again.content, escape.status_code) == (304, b"", 404)
    assert "Apache License" in licence.text


async def test_json(shelf: Shelf) -> None:
    title_id = shelf.first.title_id.hex()
    async with open_door(shelf) as (client, _):
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/api/v1/statistics")).json()["mode"] == "shared"
        (title,) = (await client.get("/api/v1/titles")).json()["titles"]
        closed = await client.get(f"/api/v1/titles/{title_id}/statistics")
        await client.get(title["hls"])
        opened = (await client.get(f"/api/v1/titles/{title_id}/statistics")).json()
    assert (title["title"], title["title_id"], title["page"]) == (TITLE, title_id, f"/watch/{title_id}")
    assert title["renditions"][0]["mp4"] == shelf.film_path
    assert closed.status_code == 404
    assert set(opened["renditions"][0]["held"]) == {"."}
    assert opened["renditions"][0]["length"] == shelf.first.length
    assert opened["peer"]["tracker_up"] is True


# --- who may ask, and refusals ---------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"Host": "films.example"}, {"Origin": "http://films.example"}, {"Sec-Fetch-Site": "cross-site"}],
)
async def test_pages_of_other_sites_get_nothing(shelf: Shelf, headers: dict[str, str]) -> None:
    async with open_door(shelf) as (client, _):
        answer = await client.get(shelf.film_path, headers=headers)
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
    async with open_door(shelf) as (client, _):
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
    url = shelf.film_path
    async with open_door(shelf) as (client, _):
        shelf.refusal = error
        one_refusal(await client.get(url), error, status)
        one_refusal(await client.get("/playlist.m3u"), error, status)
        one_refusal(await client.get(f"/watch/{'01' * 16}"), error, status)


@pytest.mark.parametrize(("error", "status"), REFUSALS)
async def test_a_failure_before_the_first_byte_is_said(
    shelf: Shelf, error: PenstockError, status: int
) -> None:
    shelf.reading, shelf.cut_at = error, 0
    async with open_door(shelf) as (client, _):
        one_refusal(await client.get(shelf.film_path), error, status)
    assert shelf.opened == shelf.closed == 1


async def test_a_failure_later_cuts_the_answer(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    shelf.reading, shelf.cut_at = StoreFull("the disk is full"), 200_000
    async with open_door(shelf) as (client, _):
        with caplog.at_level(logging.WARNING), pytest.raises(httpx2.RemoteProtocolError):
            await client.get(shelf.film_path)
        shelf.cut_at = None
        assert (await client.get(shelf.film_path)).status_code == 200
    (record,) = caplog.records
    assert "the disk is full" in record.message
    assert record.exc_info is None
    assert shelf.opened == shelf.closed == 2


async def test_an_opened_title_plays_on_without_its_tracker(shelf: Shelf, whole: bytes) -> None:
    master = shelf.master_path
    async with open_door(shelf) as (client, _):
        assert (await client.get(master)).status_code == 200
        shelf.refusal = LocalError("the tracker cannot be reached")
        assert (await client.get(shelf.film_path.replace(".mp4", ".m3u8"))).status_code == 200
        assert (await client.get(shelf.film_path)).content == whole


async def ask_in_vain(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> httpx2.Response:
    monkeypatch.setattr(file_response, "FIRST_BYTE_SECONDS", 0.05)
    monkeypatch.setattr(player, "WAIT_SECONDS", 0.05)
    async with open_door(shelf) as (client, _):
        return await client.get(shelf.film_path)


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


async def test_only_so_many_titles_are_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(player, "MAX_OPENED", 2)
    shelf, titles = Shelf(), []
    for number in (1, 2, 3):
        path = tmp_path / f"{number}.txt"
        path.write_text(path.name)
        titles.append(shelf.add(path, number=number, plain=True))
    paths = [f"/api/v1/titles/{title.title_id.hex()}/statistics" for title in titles]
    async with open_door(shelf) as (client, _):
        for title in (titles[0], titles[1], titles[0], titles[2]):
            await client.get(f"/watch/{title.title_id.hex()}")
        answers = [(await client.get(path)).status_code for path in paths]
    assert answers == [200, 404, 200]
