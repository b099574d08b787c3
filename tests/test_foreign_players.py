"""Players that know nothing of us read the door's HLS and MP4, frame by frame."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from tests.shelf import Shelf, make_film, open_door

FRAMES = 300  # ten seconds of thirty


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_film(tmp_path_factory.mktemp("film"), seconds=10)


@pytest.fixture(params=["master.m3u8", "mp4"])
def path(request: pytest.FixtureRequest, shelf: Shelf) -> str:
    return shelf.film_path if request.param == "mp4" else shelf.master_path


@pytest.fixture
def shelf(film: Path) -> Shelf:
    shelf = Shelf()
    shelf.add(film)
    return shelf


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
    count = ["-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames"]
    told = await run(ffprobe, "-v", "error", *count, "-of", "csv=p=0", source)
    return int(told.split()[0].strip(","))


async def test_ffprobe_and_ffmpeg_read_every_frame(shelf: Shelf, film: Path, path: str) -> None:
    ffprobe, ffmpeg = _tool("ffprobe"), _tool("ffmpeg")
    assert await frames(ffprobe, str(film.with_name("source.mp4"))) == FRAMES
    async with open_door(shelf) as (_, base):
        assert await frames(ffprobe, base + path) == FRAMES
        said = await run(ffmpeg, "-i", base + path, "-f", "null", "-")
    assert re.findall(r"frame=\s*(\d+)", said)[-1] == str(FRAMES)


async def test_mpv_plays_to_the_end(shelf: Shelf, path: str) -> None:
    mpv = _tool("mpv")
    quick = ["--no-config", "--vo=null", "--ao=null", "--ao-null-untimed", "--untimed"]
    async with open_door(shelf) as (_, base):
        said = await run(mpv, *quick, base + path)
    assert "Exiting... (End of file)" in said
    assert "error" not in said.lower()
