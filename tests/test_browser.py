"""The page in a real browser: it plays, seeks, and shows where the bytes come from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import pytest
import trio

from shared.core.errors import Reason, Refused
from tests.browser import Page, open_browser
from tests.shelf import TITLE, Shelf, make_film, open_door

SECONDS = 12
NASTY = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film"), SECONDS)


@pytest.fixture
def shelf(film: Path) -> Shelf:
    shelf = Shelf()
    shelf.add(film)
    return shelf


@asynccontextmanager
async def visit(shelf: Shelf, profile: Path, path: str) -> AsyncIterator[Page]:
    """A browser on the shelf's page; leaves only if the console stayed free of errors."""
    async with open_door(shelf) as (_, base), open_browser(profile) as page:
        await page.open(base + path)
        yield page
        assert await page.complaints() == []


async def seek(page: Page, to: float) -> None:
    """Seek, and wait until the picture moves on from there."""
    await page.run("const v = document.querySelector('video'); v.currentTime = arguments[0]; v.play();", to)
    moved = await page.wait_for(
        f"(v => !v.seeking && v.currentTime > {to + 0.2} && v.currentTime)(document.querySelector('video'))"
    )
    assert to < moved < to + 4


async def test_the_page_plays_to_the_end_and_seeks(shelf: Shelf, tmp_path: Path) -> None:
    async with visit(shelf, tmp_path / "profile", shelf.page_path) as page:
        await page.run("""
            window.failed = [];
            const v = document.querySelector('video');
            for (const kind of ['error', 'abort']) v.addEventListener(kind, () => failed.push(kind));
        """)
        await page.wait_for("document.querySelector('video').currentTime > 0.5")
        for to in (8, 1, 5):
            await seek(page, to)
        await page.wait_for("document.querySelector('#held').textContent.includes('pieces')")
        await page.screenshot(tmp_path / "playing.png")
        await page.run("document.querySelector('video').playbackRate = 4")
        await page.wait_for("document.querySelector('video').ended")
        played = await page.run("""
            const v = document.querySelector('video');
            return { failed, at: v.currentTime, length: v.duration, width: v.videoWidth,
                     quality: v.getVideoPlaybackQuality().totalVideoFrames };
        """)
    assert played["failed"] == []
    assert played["at"] == pytest.approx(played["length"], abs=0.1)
    assert played["length"] == pytest.approx(SECONDS, abs=0.2)
    assert played["width"] == 640
    assert played["quality"] > 100
    assert shelf.opened == shelf.closed


async def test_the_page_shows_where_bytes_come_from(shelf: Shelf, tmp_path: Path) -> None:
    async with visit(shelf, tmp_path / "profile", shelf.page_path) as page:
        await page.wait_for("document.querySelector('#offload').textContent.includes('%')")
        assert await page.run("return document.querySelectorAll('#sources .kind').length") == 3
        assert await page.run("return document.title") == f"{TITLE} \u2013 Penstock"
        shown = await page.run("""
            const text = (id) => document.getElementById(id).textContent.replaceAll('\\u00a0', ' ');
            const ids = ['offload', 'facts', 'down', 'up', 'cap', 'stalls', 'held', 'peer'];
            return Object.fromEntries(ids.map((id) => [id, text(id)]));
        """)
        painted = await page.run("""
            const map = document.getElementById('map');
            const pixels = map.getContext('2d').getImageData(0, 0, map.width, map.height).data;
            return pixels.some((value) => value);
        """)
        for scheme, width in (("dark", 1280), ("light", 420)):
            await page.prefer(scheme)
            await page.resize(width, 900)
            assert await page.run("return document.documentElement.scrollWidth <= window.innerWidth")
            await page.screenshot(tmp_path / f"{scheme}.png")
    share, unit = shown["offload"].split(" ")
    assert (0 < int(share) < 100, unit) == (True, "%")
    assert shown["down"] == "9.9 Mbit/s"
    assert shown["up"] == "3.3 Mbit/s"
    assert shown["cap"] == "55 % of 6.0 Mbit/s"
    assert shown["stalls"] == "0"
    assert shown["facts"].startswith("0:12 \u00b7 640\u00d7360 \u00b7 ")
    assert shown["peer"] == "pc, shared \u00b7 tracker connected"
    assert shown["held"].endswith(" pieces")
    assert painted


async def test_the_list_leads_to_the_film_by_keyboard(shelf: Shelf, tmp_path: Path) -> None:
    async with visit(shelf, tmp_path / "profile", "/") as page:
        await page.wait_for("document.querySelector('#titles a')")
        await page.screenshot(tmp_path / "list.png")
        await page.run("document.querySelector('#titles a').focus()")
        await page.press("\ue007")
        await page.wait_for(f"location.pathname === '{shelf.page_path}'")
        await page.wait_for("document.querySelector('video')?.currentTime > 0.2")


async def test_titles_are_text_only(film: Path, tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.add(film, title=NASTY)
    async with visit(shelf, tmp_path / "profile", "/") as page:
        await page.wait_for("document.querySelector('#titles a')")
        assert await page.run("return document.querySelector('#titles a').textContent") == NASTY
        await page.run(f"location.href = '{shelf.page_path}'")
        await page.wait_for("document.querySelector('video')?.currentTime > 0.2")
        assert await page.run("return document.querySelector('#title').textContent") == NASTY
        assert await page.run("return document.images.length") == 1


async def test_playback_goes_on_when_sources_come_back(shelf: Shelf, tmp_path: Path) -> None:
    media = shelf.first.media
    assert media is not None
    async with open_door(shelf) as (_, base), open_browser(tmp_path / "profile") as page:
        shelf.reading, shelf.cut_at = Refused(Reason.BUSY, "no source is free"), media.segments[1].offset
        await page.open(base + shelf.page_path)
        await page.wait_for("document.querySelector('video').currentTime > 0.5")
        with trio.fail_after(30):
            await shelf.refused.wait()
        shelf.cut_at = None
        await page.run("document.querySelector('video').playbackRate = 4")
        await page.wait_for("document.querySelector('video').ended")
        assert await page.run("return document.querySelector('#notice').hidden")


async def test_the_page_shows_the_cap_and_pauses_uploads(shelf: Shelf, tmp_path: Path) -> None:
    async with visit(shelf, tmp_path / "profile", "/") as page:
        said = await page.wait_for("document.querySelector('#sharing-line').textContent")
        assert "10.0\u00a0Mbit/s" in said
        assert "less than you set" in said
        assert "household sends 2.0\u00a0Mbit/s" in said
        assert "41.0\u00a0GB" in await page.run("return document.querySelector('#sharing-use').textContent")
        await page.run("document.querySelector('#pause').focus()")
        await page.press("\ue007")
        await page.wait_for("document.querySelector('#sharing-now').textContent.includes('paused')")
        await page.press("\ue007")
        await page.wait_for("document.querySelector('#sharing-now').textContent.startsWith('Uploading')")
        assert shelf.chosen == [(None, inf, None), (None, 0.0, None)]
