"""Players that know nothing of us, in front of a real peer of a real house: browser, ffmpeg, mpv,
and our own commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from shared.core.ids import parse_address
from tests.browser import Page, open_browser
from tests.house_parts import (
    Done,
    Standing,
    last_json,
    run,
    says_one_line,
    sha256_of,
    small_film,
    stored_film,
)
from tests.house_parts import standing_house as stand
from tests.test_foreign_players import _tool as tool
from tests.test_foreign_players import frames
from tests.test_foreign_players import run as run_tool

SECONDS = 8
FRAMES = 25 * SECONDS


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("house")
    with stand(folder, small_film(folder, SECONDS)) as standing:
        yield standing


@pytest.fixture(scope="module")
def published(house: Standing) -> Path:
    """The rendition's bytes as they lie in the edge's store, to compare others with."""
    path = house.folder / "published.mp4"
    path.write_bytes(stored_film(house.folder / "edge"))
    return path


def _title(house: Standing) -> str:
    title = parse_address(house.title).title
    assert title is not None
    return title.hex()


def _film(house: Standing) -> str:
    """Where the peer has the film as MP4."""
    master = httpx2.get(f"{house.door}/titles/{_title(house)}/master.m3u8", trust_env=False, timeout=60).text
    infohash = re.search(r"([0-9a-f]{64})\.m3u8", master)
    assert infohash is not None, master
    return f"{house.door}/titles/{_title(house)}/{infohash[1]}.mp4"


async def _seek(page: Page, to: float) -> None:
    await page.run("const v = document.querySelector('video'); v.currentTime = arguments[0]; v.play();", to)
    moved = await page.wait_for(
        f"(v => !v.seeking && v.currentTime > {to + 0.2} && v.currentTime)(document.querySelector('video'))"
    )
    assert to < moved < to + 4


async def test_the_browser_plays_to_the_end_and_seeks(house: Standing, tmp_path: Path) -> None:
    async with open_browser(tmp_path / "profile") as page:
        await page.open(f"{house.door}/")
        await page.wait_for("document.querySelector('#titles a')")
        await page.run("document.querySelector('#titles a').click()")
        await page.wait_for("document.querySelector('video')?.currentTime > 0.5")
        assert await page.run("return location.pathname") == f"/watch/{_title(house)}"
        await _seek(page, 6)
        await _seek(page, 1)
        await page.wait_for("document.querySelector('#held').textContent.includes('pieces')")
        await page.screenshot(tmp_path / "playing.png")
        await page.run("document.querySelector('video').playbackRate = 4")
        await page.wait_for("document.querySelector('video').ended")
        seen = await page.run("""
            const v = document.querySelector('video');
            return { at: v.currentTime, length: v.duration, width: v.videoWidth, error: v.error,
                     title: document.title, edges: document.querySelector('#from-edges').textContent };
        """)
        await page.screenshot(tmp_path / "ended.png")
        assert await page.complaints() == []
    assert seen["error"] is None
    assert seen["at"] == pytest.approx(seen["length"], abs=0.1)
    assert seen["length"] == pytest.approx(SECONDS, abs=0.2)
    assert (seen["width"], seen["title"]) == (480, "The small film \u2013 Penstock")
    assert re.search(r"[1-9]", seen["edges"])


@pytest.mark.parametrize("path", ["hls", "mp4"])
async def test_ffmpeg_and_mpv_read_every_frame(house: Standing, path: str) -> None:
    film = f"{house.door}/titles/{_title(house)}/master.m3u8" if path == "hls" else _film(house)
    assert await frames(tool("ffprobe"), film) == FRAMES
    said = await run_tool(tool("ffmpeg"), "-v", "error", "-xerror", "-i", film, "-f", "null", "-")
    assert said == ""
    quick = ["--no-config", "--vo=null", "--ao=null", "--ao-null-untimed", "--untimed"]
    assert "Exiting... (End of file)" in await run_tool(tool("mpv"), *quick, film)


def test_fetch_gets_the_published_bytes(house: Standing, published: Path, tmp_path: Path) -> None:
    """With no peer running here it brings one of its own, and leaves nothing but the file."""
    output = tmp_path / "film.mp4"
    done = run("fetch", house.title, "-o", output, "--data", tmp_path / "peer", **_no_daemon())
    assert done == Done(0, f"{output}: {published.stat().st_size} bytes, verified\n", "")
    assert sha256_of(output) == sha256_of(published)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "peer"]


def test_fetch_goes_through_the_running_peer(house: Standing, published: Path, tmp_path: Path) -> None:
    output = tmp_path / "film.mp4"
    output.write_bytes(b"an older film")
    done = run("fetch", house.title, "-o", output, "--data", tmp_path / "peer", **_daemon(house))
    assert (done.status, done.err) == (0, "")
    assert sha256_of(output) == sha256_of(published)
    assert not (tmp_path / "peer").exists()


@pytest.mark.parametrize("running", [True, False], ids=["daemon", "own peer"])
def test_play_headless_says_how_it_went(
    house: Standing, published: Path, tmp_path: Path, running: bool
) -> None:
    variables = _daemon(house) if running else _no_daemon()
    data = tmp_path / "peer"
    done = run("play", house.title, "--headless", "--json", "--data", data, **variables)
    assert (done.status, done.err) == (0, "")
    told = last_json(done.out)
    assert set(told) == {"startup_seconds", "stalls", "stall_seconds", "bytes", "verified"}
    assert (told["stalls"], told["stall_seconds"], told["verified"]) == (0, 0, True)
    assert told["bytes"] == published.stat().st_size
    assert data.exists() is not running


def test_play_for_other_players_says_where(house: Standing) -> None:
    done = run("play", house.title, "--player", "none", **_daemon(house))
    page, stream = done.out.splitlines()
    assert (done.status, done.err) == (0, "")
    assert (page, stream) == (
        f"{house.door}/watch/{_title(house)}",
        f"{house.door}/titles/{_title(house)}/master.m3u8",
    )
    assert httpx2.get(stream, trust_env=False).text.startswith("#EXTM3U")


def test_play_starts_mpv_and_ends_with_it(house: Standing, tmp_path: Path) -> None:
    tool("mpv")
    (tmp_path / "mpv").mkdir()
    (tmp_path / "mpv/mpv.conf").write_text("vo=null\nao=null\nao-null-untimed=yes\nuntimed=yes\n")
    data = tmp_path / "peer"
    variables = {**_no_daemon(), "MPV_HOME": str(tmp_path / "mpv")}
    done = run("play", house.title, "--player", "mpv", "--data", data, **variables)
    assert done.status == 0, done
    assert "Exiting... (End of file)" in done.out


def test_an_unknown_title_is_said(house: Standing, tmp_path: Path) -> None:
    unknown = f"{house.tracker}/{'ab' * 16}"
    for command in (["fetch", unknown, "-o", tmp_path / "x"], ["play", unknown, "--headless"]):
        says_one_line(run(*command, "--data", tmp_path / "peer", **_no_daemon()), 1, "unknown title")
    assert not (tmp_path / "x.part").exists()


def _daemon(house: Standing) -> dict[str, str]:
    """Settings of a person whose peer is the house's."""
    return {"PENSTOCK_PEER_PLAYER": urlsplit(house.door).netloc}


def _no_daemon() -> dict[str, str]:
    """Settings of a person without a running peer, whoever else has one on this machine."""
    return {"PENSTOCK_PEER_PLAYER": "127.0.0.1:1"}
