"""Any film in, one fragmented MP4 out: what is copied, what is transcoded, and how it is cut."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.media import child
from edge.media.clip import write_clip
from edge.media.film import Limits, Prepared
from edge.media.remux import check_file, prepare_film
from edge.media.timeline import JOIN_SECONDS, Timeline
from shared.core.errors import LocalError
from tests.films import Recipe, make_film, packets, pictures, rotation, sound_seconds

LIMITS = Limits()
H264 = Recipe("mp4", "libx264", "aac", seconds=10.0, gop=50)
FFPROBE = shutil.which("ffprobe")


def silent(stage: str, done: float) -> None:
    pass


def ready(source: Path, limits: Limits = LIMITS) -> tuple[Path, Prepared]:
    target = source.with_name("prepared.mp4")
    return target, prepare_film(source, target, limits, silent)


def check_segments(target: Path, prepared: Prepared) -> None:
    """Bytes tile the file; the header with any one segment decodes alone, from a key frame on."""
    raw = target.read_bytes()
    assert prepared.total_bytes == len(raw)
    assert sum(ms for _, ms in prepared.segments) == prepared.duration_ms
    at = prepared.init_bytes
    alone = target.with_name("alone.mp4")
    shown = 0
    for size_bytes, ms in prepared.segments:
        assert raw[at + 4 : at + 8] == b"moof"
        alone.write_bytes(raw[: prepared.init_bytes] + raw[at : at + size_bytes])
        if prepared.width:
            seen = pictures(alone)
            assert seen[0][1], "does not start with a key frame"
            assert abs(len(seen) / 25 - ms / 1000) < 0.2
            shown += len(seen)
        else:
            assert abs(sound_seconds(alone) - ms / 1000) < 0.1
        at += size_bytes
    if prepared.width:
        assert shown == len(pictures(target))


@pytest.mark.parametrize(
    ("muxer", "b_frames"), [("mp4", 0), ("mp4", 2), ("mpegts", 2), ("matroska", 2), ("flv", 2)]
)
def test_h264_and_aac_are_copied(tmp_path: Path, muxer: str, b_frames: int) -> None:
    source = make_film(tmp_path / "film", replace(H264, muxer=muxer, b_frames=b_frames))
    target, prepared = ready(source)
    assert prepared.codecs.startswith("avc1.")
    assert prepared.codecs.endswith(",mp4a.40.2")
    assert (prepared.width, prepared.height) == (176, 144)
    assert len(prepared.segments) == 3
    assert abs(prepared.duration_ms - 10_000) < 150
    if muxer == "mpegts":  # start codes become lengths, ADTS headers go
        assert len(packets(target, "video")) == len(packets(source, "video"))
    else:
        assert packets(target, "video") == packets(source, "video")
        assert packets(target, "audio") == packets(source, "audio")
    times = [at for at, _ in pictures(target)]
    assert all(0.03 < after - before < 0.05 for before, after in list(pairwise(times))[1:])
    check_segments(target, prepared)


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(Recipe("avi", "mpeg4", "libmp3lame"), id="MPEG-4 and MP3 in AVI"),
        pytest.param(Recipe("webm", "libvpx-vp9", "libopus", sound_rate=48000), id="WebM"),
        pytest.param(Recipe("mpeg", "mpeg1video", "mp2"), id="MPEG-1"),
        pytest.param(Recipe("mpegts", "mpeg2video", "mp2", b_frames=2), id="MPEG-2 TS"),
        pytest.param(Recipe("3gp", "mpeg4", "aac", sound_rate=22050, layout="mono"), id="3GP"),
        pytest.param(Recipe("asf", "wmv2", "wmav2"), id="WMV"),
        pytest.param(Recipe("rm", "rv20", "ac3"), id="RealMedia"),
        pytest.param(Recipe("flv", "flv", "libmp3lame"), id="Sorenson FLV"),
        pytest.param(Recipe("matroska", "libx264", "flac", pixels="yuv444p"), id="H.264 4:4:4"),
        pytest.param(Recipe("h264", "libx264", None, b_frames=2), id="raw H.264"),
        pytest.param(Recipe("avi", "mjpeg", "pcm_s16le", pixels="yuvj420p"), id="Motion JPEG"),
    ],
)
def test_other_films_are_transcoded(tmp_path: Path, recipe: Recipe) -> None:
    target, prepared = ready(make_film(tmp_path / "film", recipe))
    assert prepared.codecs.startswith("avc1.64")
    assert prepared.codecs.endswith(",mp4a.40.2") == (recipe.audio is not None)
    assert abs(prepared.duration_ms - 2000) < 250
    seen = pictures(target)
    assert abs(len(seen) - 50) <= 1
    assert seen[0][1]
    if recipe.audio is not None:
        assert abs(sound_seconds(target) - 2.0) < 0.2


def test_a_transcoded_film_has_a_key_frame_every_two_seconds(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film", Recipe("avi", "mpeg4", "libmp3lame", seconds=9.0, gop=9))
    target, prepared = ready(source)
    keys = [at for at, key in pictures(target) if key]
    assert len(keys) == 5
    assert all(abs(after - before - 2.0) < 0.15 for before, after in pairwise(keys))
    assert [round(ms, -3) for _, ms in prepared.segments] in ([4000, 5000], [4000, 4000, 1000])
    check_segments(target, prepared)


def test_good_pictures_are_copied_beside_foreign_sound(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film", replace(H264, muxer="matroska", audio="flac"))
    target, prepared = ready(source)
    assert packets(target, "video") == packets(source, "video")
    assert prepared.codecs.endswith("mp4a.40.2")
    assert abs(sound_seconds(target) - 10.0) < 0.2


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("mp3", None, "libmp3lame", seconds=9),
        Recipe("wav", None, "pcm_s16le", seconds=9, layout="mono"),
        Recipe("adts", None, "aac", seconds=9),
        Recipe("ogg", None, "flac", seconds=9),
        Recipe("rm", None, "ac3", seconds=9),
    ],
    ids=lambda recipe: recipe.muxer,
)
def test_sound_alone_is_a_film_too(tmp_path: Path, recipe: Recipe) -> None:
    target, prepared = ready(make_film(tmp_path / "film", recipe))
    assert (prepared.codecs, prepared.width, prepared.height) == ("mp4a.40.2", 0, 0)
    assert [round(ms, -3) for _, ms in prepared.segments] == [4000, 5000] or len(prepared.segments) == 3
    check_segments(target, prepared)


def test_pictures_without_sound(tmp_path: Path) -> None:
    target, prepared = ready(make_film(tmp_path / "film", replace(H264, audio=None)))
    assert "," not in prepared.codecs
    check_segments(target, prepared)


def test_odd_sides_become_even(tmp_path: Path) -> None:
    recipe = Recipe("avi", "mjpeg", None, width=176, height=144, pixels="yuvj420p")
    source = make_film(tmp_path / "film", recipe)
    raw = source.read_bytes()
    start_of_frame = b"\xff\xc0\x00\x11\x08"
    assert raw.count(start_of_frame + bytes([0, 144, 0, 176])) == 50
    odd = raw.replace(start_of_frame + bytes([0, 144, 0, 176]), start_of_frame + bytes([0, 143, 0, 175]))
    source.write_bytes(odd)
    target, prepared = ready(source)
    assert prepared.width % 2 == prepared.height % 2 == 0
    assert pictures(target)


def test_a_film_held_upright_stays_upright(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film", Recipe("mp4", "mpeg4", "aac", rotation=90))
    target, _ = ready(source)
    assert rotation(source) == rotation(target) == 90


def test_rare_key_frames_are_mended(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film", replace(H264, seconds=24, gop=1000, audio=None, fps=5))
    _, prepared = ready(source)
    assert max(ms for _, ms in prepared.segments) <= 5200


def test_a_recording_that_starts_in_mid_picture(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film", replace(H264, muxer="mpegts"))
    raw = source.read_bytes()
    start = len(raw) // 8 // 188 * 188
    source.write_bytes(raw[:564] + raw[start:])  # the tables, then the middle
    target, prepared = ready(source)
    assert 7000 < prepared.duration_ms < 9000
    assert pictures(target)[0][1]


def test_the_same_film_gives_the_same_bytes(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film", Recipe("avi", "mpeg4", "libmp3lame"))
    target, first = ready(source)
    digest = hashlib.sha256(target.read_bytes()).digest()
    target, second = ready(source)
    assert (hashlib.sha256(target.read_bytes()).digest(), second) == (digest, first)


def test_bandwidth_is_of_the_costliest_segment(tmp_path: Path) -> None:
    _, prepared = ready(make_film(tmp_path / "film", H264))
    full = [8000 * size_bytes // ms for size_bytes, ms in prepared.segments if ms >= 2000]
    assert prepared.bandwidth == max(*full, prepared.average_bandwidth)
    media_bytes = prepared.total_bytes - prepared.init_bytes
    assert prepared.average_bandwidth == 8000 * media_bytes // prepared.duration_ms


@pytest.mark.skipif(FFPROBE is None, reason="ffprobe is not installed")
def test_ffprobe_agrees(tmp_path: Path) -> None:
    target, prepared = ready(make_film(tmp_path / "film", H264))
    command = [str(FFPROBE), "-v", "error", "-show_streams", "-show_format", "-of", "json", str(target)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    assert done.stderr == b""
    said = json.loads(done.stdout)
    assert [stream["codec_name"] for stream in said["streams"]] == ["h264", "aac"]
    assert abs(1000 * float(said["format"]["duration"]) - prepared.duration_ms) < 100


async def test_the_child_prepares_and_tells_how_far_it_is(tmp_path: Path) -> None:
    source = make_film(tmp_path / "a film; with $odd name", H264)
    target = tmp_path / "prepared.mp4"
    heard: list[tuple[str, float]] = []
    prepared = await child.prepare(source, target, LIMITS, lambda *said: heard.append(said))
    assert prepared == check_file(target)
    assert {stage for stage, _ in heard} == {"probing", "copying", "checking"}
    shares = [done for stage, done in heard if stage == "copying"]
    assert shares == sorted(shares)
    assert shares[-1] > 0.5


def test_the_edge_process_never_loads_the_media_library() -> None:
    script = "import sys, edge.media.child; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False).returncode == 0


def test_the_test_film(tmp_path: Path) -> None:
    source = tmp_path / "clip.mp4"
    heard: list[float] = []
    write_clip(source, seconds=6, width=320, height=180, fps=25, report=heard.append)
    assert heard == [5 / 6, 1.0]
    target, prepared = ready(source)
    assert packets(target, "video") == packets(source, "video")
    assert len({hashlib.sha256(raw).digest() for raw in packets(source, "video")}) == 150
    assert abs(prepared.duration_ms - 6000) < 100
    assert len([1 for _, key in pictures(source) if key]) == 3
    again = tmp_path / "again.mp4"
    write_clip(again, seconds=6, width=320, height=180, fps=25)
    assert again.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "wrong", [(0, 320, 180, 25), (1, 63, 180, 25), (1, 320, 10_000, 25), (1, 320, 180, 0)]
)
def test_a_test_film_of_no_size_is_refused(tmp_path: Path, wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(LocalError, match="a test film has"):
        write_clip(tmp_path / "clip.mp4", *wrong)
    assert not (tmp_path / "clip.mp4").exists()


Ticks = st.none() | st.integers(-(2**40), 2**40)


@given(st.lists(st.tuples(Ticks, Ticks, st.integers(0, 10_000)), max_size=60), st.booleans())
def test_times_always_rise(given_times: list[tuple[int | None, int | None, int]], joins: bool) -> None:
    """Decoding times strictly rise and nothing is shown before it is decoded, whatever comes in."""
    timeline = Timeline(1000.0, joins)
    placed = [timeline.place(*times) for times in given_times]
    assert all(before[0] < after[0] for before, after in pairwise(placed))
    assert all(pts >= dts for dts, pts in placed)


Leaps = st.integers(-(2**40), 2**40).filter(lambda ticks: abs(ticks) > 1000 * JOIN_SECONDS)


@given(st.lists(Leaps, max_size=5), st.integers(2, 30))
def test_restarted_clocks_are_joined(leaps: list[int], count: int) -> None:
    """However far a transport stream's clock leaps, its pictures follow each other without a gap."""
    timeline = Timeline(1000.0, joins=True)
    clock, placed = 0, []
    for leap in [0, *leaps]:
        clock += leap
        for _ in range(count):
            placed.append(timeline.place(clock, None, 40)[0])
            clock += 40
    assert all(after - before == 40 for before, after in pairwise(placed))
