"""Files that are no films, children that misbehave, and limits: one line each, and nothing leaks."""

from __future__ import annotations

import os
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import av
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.media import child
from edge.media.boxes import MAX_HEADER_BYTES
from edge.media.child import Limits, prepare
from edge.media.layout import read_layout
from edge.media.probe import open_as
from edge.media.remux import prepare_film
from edge.media.segments import describe_film
from edge.media.sniff import describe, sniff
from shared.core.errors import LocalError, PenstockError, ProtocolError, Reason, Refused, StoreFull
from tests.films import Recipe, make_film

LIMITS = Limits()
SECRET = b"the secret of the mill"
FILM = Recipe("mp4", "libx264", "aac", seconds=6.0, gop=25)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.ts"
    path.write_bytes(make_film(tmp_path / "inner.ts", replace(FILM, muxer="mpegts")).read_bytes() + SECRET)
    return path


def written(path: Path, raw: bytes) -> Path:
    path.write_bytes(raw)
    return path


async def refusal(source: Path, limits: Limits = LIMITS) -> PenstockError:
    """Prepare a file that must not work; check what every refusal has in common."""
    target = source.with_name("prepared.mp4")
    with trio.fail_after(20), pytest.raises(PenstockError) as caught:
        await prepare(source, target, limits)
    assert not target.exists()
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    assert SECRET.decode() not in text
    return caught.value


def zipped(secret: Path) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.write(secret, "film.mp4")
    return out.getvalue()


NO_FILMS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda s: b"", "an empty file"),
    "text": (lambda s: b"Dear viewer,\nthis is a letter.\n", "a text file"),
    "random": (lambda s: bytes(range(128, 256)) * 50, "no known film"),
    "playlist": (lambda s: f"#EXTM3U\n#EXTINF:6,\n{s}\n#EXT-X-ENDLIST\n".encode(), "a playlist"),
    "file URL": (lambda s: f"#EXTM3U\n#EXTINF:6,\nfile://{s}\n".encode(), "a playlist"),
    "late playlist": (lambda s: f"\n\n#EXTM3U\n#EXTINF:6,\n{s}\n".encode(), "a text file"),
    "concat": (lambda s: f"ffconcat version 1.0\nfile '{s}'\n".encode(), "a concat list"),
    "passwd": (lambda s: b"ffconcat version 1.0\nfile /etc/passwd\n", "a concat list"),
    "session": (lambda s: b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 9 RTP/AVP 96\n", "a session"),
    "dash": (lambda s: f"<?xml version='1.0'?><MPD><BaseURL>{s}</BaseURL></MPD>".encode(), "a web page"),
    "png": (lambda s: b"\x89PNG\r\n\x1a\n" + bytes(200), "a picture"),
    "heif": (lambda s: b"\0\0\0\x18ftypheic" + bytes(200), "a picture"),
    "zip": (zipped, "a ZIP archive"),
    "program": (lambda s: Path(sys.executable).read_bytes()[:5000], "a program"),
    "sync byte only": (lambda s: b"G" * 3, "a text file"),
}


@pytest.mark.parametrize("name", NO_FILMS)
async def test_what_is_no_film_is_named_and_refused(tmp_path: Path, secret: Path, name: str) -> None:
    write, words = NO_FILMS[name]
    source = tmp_path / "film.mp4"
    source.write_bytes(write(secret))
    error = await refusal(source)
    assert isinstance(error, Refused)
    assert error.reason is Reason.NOT_A_FILM
    assert words in error.detail


def quicktime_link(secret: Path) -> bytes:
    """A QuickTime film whose samples are said to lie in another local file."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        payload = b"".join(parts)
        return struct.pack(">I4s", 8 + len(payload), kind) + payload

    name = str(secret).encode()
    alias = bytes(8) + struct.pack(">H", 150) + bytes(132) + struct.pack(">HH", 2, len(name)) + name
    dref = box(b"dref", bytes(4), struct.pack(">I", 1), box(b"alis", bytes(4), alias, b"\xff\xff\0\0"))
    entry = box(b"twos", bytes(6), b"\0\1", bytes(8), struct.pack(">HHHHI", 2, 16, 0, 0, 44100 << 16))
    stbl = box(
        b"stbl",
        box(b"stsd", bytes(4), struct.pack(">I", 1), entry),
        box(b"stts", bytes(4), struct.pack(">III", 1, 1000, 1)),
        box(b"stsc", bytes(4), struct.pack(">IIII", 1, 1, 1000, 1)),
        box(b"stsz", bytes(4), struct.pack(">II", 4, 1000)),
        box(b"stco", bytes(4), struct.pack(">II", 1, 0)),
    )
    minf = box(b"minf", box(b"smhd", bytes(8)), box(b"dinf", dref), stbl)
    mdhd = box(b"mdhd", bytes(12), struct.pack(">II", 44100, 1000), bytes(4))
    mdia = box(b"mdia", mdhd, box(b"hdlr", bytes(4), b"mhlrsoun", bytes(13)), minf)
    tkhd = box(b"tkhd", b"\0\0\0\x0f", bytes(8), struct.pack(">I", 1), bytes(68))
    mvhd = box(b"mvhd", bytes(12), struct.pack(">II", 1000, 1000), bytes(80))
    return box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", mvhd, box(b"trak", tkhd, mdia))


async def test_a_film_that_points_at_a_local_file_does_not_open_it(tmp_path: Path) -> None:
    named = tmp_path / "named"
    os.mkfifo(named)  # whoever opens it for reading waits until the test times out
    error = await refusal(written(tmp_path / "film.mov", quicktime_link(named)))
    assert isinstance(error, Refused)
    assert error.reason is Reason.NOT_A_FILM


@pytest.mark.parametrize("demuxer", ["hls", "concat", "dash", "sdp"])
def test_even_a_demuxer_that_follows_names_gets_no_file(tmp_path: Path, secret: Path, demuxer: str) -> None:
    """The second wall: were a playlist ever taken for a film, it could still open nothing."""
    text = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{secret}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {secret.name}\n",
        "dash": f"<MPD><Period><BaseURL>{secret}</BaseURL></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
    }[demuxer]
    source = tmp_path / "list"
    source.write_text(text)
    with source.open("rb") as file, pytest.raises((av.error.FFmpegError, ValueError)):
        container = open_as(demuxer, file, LIMITS)
        with container:
            assert not [packet for packet in container.demux() if packet.size]
        raise ValueError("opened, and empty")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
async def test_a_film_without_its_index_is_refused(tmp_path: Path, share: float) -> None:
    whole = make_film(tmp_path / "whole.mp4", FILM).read_bytes()
    source = tmp_path / "film.mp4"
    source.write_bytes(whole[: int(len(whole) * share)])
    assert b"moov" not in source.read_bytes()
    assert "cut short" in str(await refusal(source))


@pytest.mark.parametrize("muxer", ["mp4", "matroska", "avi"])
async def test_a_film_that_ends_too_soon_is_refused(tmp_path: Path, muxer: str) -> None:
    recipe = replace(FILM, muxer=muxer, seconds=12.0)
    source = make_film(tmp_path / "film", recipe)
    if muxer == "mp4":  # put the index first, as for the web
        with (
            av.open(str(source)) as old,
            av.open(
                str(tmp_path / "fast"), "w", format="mp4", container_options={"movflags": "faststart"}
            ) as new,
        ):
            streams = [new.add_stream_from_template(stream, opaque=True) for stream in old.streams]
            for packet in old.demux():
                if packet.size:
                    packet.stream = streams[packet.stream.index]
                    new.mux(packet)
        source = tmp_path / "fast"
    raw = source.read_bytes()
    source.write_bytes(raw[: len(raw) // 2])
    assert "cut short" in str(await refusal(source))


async def test_a_film_with_tracks_but_no_samples_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "film.mp4"
    with av.open(str(source), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25, width=64, height=64)
        stream.codec_context.pix_fmt = "yuv420p"
        out.start_encoding()
    error = await refusal(source)
    assert isinstance(error, Refused)
    assert error.reason is Reason.NOT_A_FILM


async def test_a_picture_of_absurd_size_is_refused(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.avi", Recipe("avi", "rawvideo", None))
    raw = source.read_bytes()
    honest, absurd = struct.pack("<II", 176, 144), struct.pack("<II", 100_000, 100_000)
    assert honest in raw
    source.write_bytes(raw.replace(honest, absurd))
    with source.open("rb") as file:
        assert sniff(file.read(4096)) == "avi"
    error = await refusal(source)
    assert isinstance(error, Refused)
    assert error.reason in (Reason.TOO_LARGE, Reason.NOT_A_FILM)


async def test_more_pixels_than_the_limit_are_refused(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", FILM)
    error = await refusal(source, replace(LIMITS, pixels=176 * 144 - 1))
    assert isinstance(error, Refused)
    assert error.reason in (Reason.TOO_LARGE, Reason.NOT_A_FILM)


async def test_a_longer_film_than_the_limit_is_refused(tmp_path: Path) -> None:
    error = await refusal(make_film(tmp_path / "film.mp4", FILM), replace(LIMITS, film_seconds=5))
    assert isinstance(error, Refused)
    assert error.reason is Reason.TOO_LARGE
    assert "5 s is the limit" in error.detail


async def test_a_prepared_file_over_its_limit_is_refused(tmp_path: Path) -> None:
    error = await refusal(make_film(tmp_path / "film.mp4", FILM), replace(LIMITS, output_bytes=20_000))
    assert isinstance(error, Refused)
    assert error.reason is Reason.TOO_LARGE
    assert "20000 bytes" in error.detail


async def test_a_full_disk_is_the_stores_trouble(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", FILM)
    (tmp_path / "prepared.mp4").symlink_to("/dev/full")
    assert isinstance(await refusal(source), StoreFull)


async def test_too_little_memory_to_start_is_our_trouble(tmp_path: Path) -> None:
    source = make_film(tmp_path / "film.mp4", FILM)
    error = await refusal(source, replace(LIMITS, memory_bytes=64 << 20))
    assert isinstance(error, LocalError)
    assert "memory limit" in str(error)


async def test_processor_time_is_limited(tmp_path: Path) -> None:
    recipe = Recipe("avi", "mpeg4", None, seconds=30, width=640, height=360)
    source = make_film(tmp_path / "film.avi", recipe)
    error = await refusal(source, replace(LIMITS, cpu_seconds=1))
    assert isinstance(error, Refused)
    assert error.reason is Reason.TOO_LARGE
    assert "processor time" in error.detail


async def test_a_film_that_is_not_there(tmp_path: Path) -> None:
    error = await refusal(tmp_path / "film.mp4")
    assert isinstance(error, LocalError)
    assert "film.mp4: No such file" in str(error)


# Children that misbehave: what runs in the media child's place.
SAY = "import sys; out = sys.stdout.buffer; "
ANSWER = (
    b'{"result": {"codecs": "avc1.64001f", "width": 16, "height": 16, "duration_ms": 1000, "bandwidth": 1,'
    b' "average_bandwidth": 1, "init_bytes": %d, "segments": [[%d, 1000]]}}\n'
)
MISBEHAVIOUR = {
    "says nothing": ("", "status 0"),
    "crashes": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11"),
    "says nonsense": (SAY + "out.write(b'hello\\n')", "cannot be parsed"),
    "breaks text": (SAY + 'out.write(b\'{"error": "\\xff\\xfe"}\\n\')', "cannot be parsed"),
    "nests deeply": (SAY + "out.write(b'[' * 100000 + b'\\n')", "cannot be parsed"),
    "says NaN": (SAY + 'out.write(b\'{"stage": "copying", "done": NaN}\\n\')', "cannot be parsed"),
    "overflows": (SAY + 'out.write(b\'{"stage": "copying", "done": 1e999}\\n\')', "cannot be parsed"),
    "never ends a line": (SAY + "\nwhile True: out.write(b'x' * 65536)", "a line without end"),
    "complains on and on": ("import sys\nwhile True: sys.stderr.write('x' * 65536)", "complained"),
    "talks on": (SAY + 'out.write(b\'{"error": "a"}\\n{"error": "b"}\\n\')', "went on"),
    "has no segments": (SAY + f"out.write({ANSWER % (9, 9)!r}.replace(b'[9, 1000]', b''))", "parsed"),
    "counts below zero": (SAY + f"out.write({ANSWER % (9, 9)!r}.replace(b'[9,', b'[-9,'))", "parsed"),
    "makes up a file": (SAY + f"out.write({ANSWER % (9, 9)!r})", "does not match"),
    "answers and fails": (SAY + f"out.write({ANSWER % (9, 9)!r}); out.flush(); sys.exit(3)", "not match"),
    "sends controls": (SAY + 'out.write(b\'{"error": "a\\\\nb\\\\u001b[2Jc"}\\n\')', "a b [2Jc"),
}


def run_instead(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    def command(source: Path, target: Path, limits: Limits) -> list[str]:
        return [sys.executable, "-c", script]

    monkeypatch.setattr(child, "_command", command)


@pytest.mark.parametrize("name", MISBEHAVIOUR)
async def test_a_child_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    script, words = MISBEHAVIOUR[name]
    run_instead(monkeypatch, script)
    (tmp_path / "prepared.mp4").write_bytes(b"left behind")
    error = await refusal(tmp_path / "film.mp4")
    assert isinstance(error, Refused)
    assert words in error.detail


async def test_a_child_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "pid"
    run_instead(
        monkeypatch,
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)",
    )
    error = await refusal(tmp_path / "film.mp4", replace(LIMITS, wall_seconds=1.0))
    assert "longer than 1 s" in str(error)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


async def test_a_child_dies_with_its_cancel_scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "pid"
    run_instead(
        monkeypatch,
        f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); "
        'print(\'{"stage": "copying"}\', flush=True); time.sleep(60)',
    )
    with trio.fail_after(20), trio.CancelScope() as scope:
        await prepare(tmp_path / "film.mp4", tmp_path / "out.mp4", LIMITS, lambda *said: scope.cancel())
    assert scope.cancelled_caught
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


async def test_a_child_that_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    assert isinstance(await refusal(tmp_path / "film.mp4"), LocalError)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("prepared")
    source = make_film(place / "film.mp4", replace(FILM, seconds=3.0))
    prepare_film(source, place / "prepared.mp4", LIMITS, lambda stage, done: None)
    return (place / "prepared.mp4").read_bytes()


def part(raw: bytes, at: int, count: int) -> bytes:
    return raw[at : at + count]


def read_film(raw: bytes) -> None:
    """Lay out and describe; only the two named errors may come out."""
    try:
        described = describe_film(read_layout(partial(part, raw), len(raw)))
    except (ProtocolError, Refused):
        return
    assert described.total_bytes == len(raw)


def test_every_truncation_of_a_prepared_file_is_known(prepared: bytes) -> None:
    whole = read_layout(partial(part, prepared), len(prepared))
    ends = {fragment.at + fragment.size_bytes for fragment in whole.fragments}
    header = whole.init_bytes
    for size in {*range(0, header + 600), *range(header, len(prepared), 997)} - ends - {header}:
        with pytest.raises(ProtocolError):
            read_layout(partial(part, prepared[:size]), size)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_prepared_file_raises_named_errors_only(prepared: bytes, data: st.DataObject) -> None:
    """Whatever bytes change, reading a prepared file ends in a description of it or a named error."""
    raw = bytearray(prepared)
    fields = st.integers(0, 2500)  # header and first fragment: where the structure is
    for at in data.draw(st.lists(fields, min_size=1, max_size=4)):
        raw[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    read_film(bytes(raw[: len(prepared)]))


@given(st.binary(max_size=400))
def test_any_bytes_as_a_prepared_file_raise_named_errors_only(raw: bytes) -> None:
    """Arbitrary bytes after a good start are described or refused by a named error."""
    read_film(b"\0\0\0\x10ftypiso5\0\0\0\0" + raw)


def test_a_header_that_claims_to_be_huge_is_not_read() -> None:
    size = MAX_HEADER_BYTES + 8

    def read(at: int, count: int) -> bytes:
        assert count <= 16
        start = struct.pack(">I4s", 8, b"ftyp") + struct.pack(">I4s", size, b"moov")
        return start[at : at + count].ljust(count, b"\0")

    with pytest.raises(ProtocolError, match="longer than"):
        read_layout(read, size + 8)


@given(st.binary(max_size=300))
def test_sniffing_never_fails_and_never_names_a_follower(head: bytes) -> None:
    """Any bytes give one of the closed list of demuxers or words that hold none of the bytes."""
    closed = {"mov", "matroska", "flv", "asf", "rm", "ogg", "flac", "mp3", "amr", "ac3", "mxf"}
    closed |= {"mpeg", "mpegvideo", "m4v", "avi", "wav", "aiff", "h264", "hevc", "mpegts", "aac"}
    found = sniff(head)
    assert found in closed or (found is None and describe(head))
