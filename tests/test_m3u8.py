"""Playlists: what players rely on, and what strangers' titles may not do to them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer import m3u8
from shared.core.ids import InfoHash, NodeId, TitleId
from shared.core.manifest import Manifest
from shared.core.messages import Entry, Rendition
from shared.core.segments import Media, lay_out

FILM = Rendition(
    infohash=InfoHash(bytes(31) + b"\x0a"),
    name="film.mp4",
    length=1000,
    bandwidth=3_000_000,
    codecs="avc1.64001f,mp4a.40.2",
    width=1280,
    height=720,
    duration_ms=60_400,
)
ENTRY = Entry(TitleId(b"\1" * 16), "Mill race", NodeId(bytes(32)), (FILM,))
FILE = replace(FILM, bandwidth=0, codecs="", width=0, height=0, duration_ms=0)


def film(init_bytes: int, spans: list[tuple[int, int]]) -> Manifest:
    segments = lay_out(init_bytes, spans)
    length = segments[-1].offset + segments[-1].length
    media = Media(
        bandwidth=3_000_000,
        average_bandwidth=2_000_000,
        codecs=FILM.codecs,
        duration_ms=max(1, sum(ms for _, ms in spans)),
        height=720,
        width=1280,
        init_bytes=init_bytes,
        segments=segments,
    )
    return Manifest(
        length=length,
        piece_length=262144,
        infohash=FILM.infohash,
        name="film.mp4",
        pieces_root=bytes(32),
        layer=bytes(32),
        media=media,
        title="Mill race",
        title_id=ENTRY.title_id,
        signer=bytes(32),
        signer_id=NodeId(bytes(32)),
        raw=b"",
    )


def test_a_master_playlist_names_every_film_best_first() -> None:
    small = replace(FILM, infohash=InfoHash(bytes(31) + b"\x0b"), bandwidth=800_000, width=640, height=360)
    text = m3u8.master(replace(ENTRY, renditions=(FILM, small, FILE)))
    assert text == (
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n"
        '#EXT-X-STREAM-INF:BANDWIDTH=3000000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720\n'
        f"{'0' * 63}a.m3u8\n"
        '#EXT-X-STREAM-INF:BANDWIDTH=800000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=640x360\n'
        f"{'0' * 63}b.m3u8\n"
    )


def test_sound_alone_has_no_resolution() -> None:
    text = m3u8.master(replace(ENTRY, renditions=(replace(FILM, width=0, height=0),)))
    assert text is not None
    assert "RESOLUTION" not in text


@pytest.mark.parametrize("codecs", ["", 'avc1"\n#EXT-X-ENDLIST', "a b", "avc1\n"])
def test_codecs_that_could_break_out_of_their_quotes_are_left_out(codecs: str) -> None:
    text = m3u8.master(replace(ENTRY, renditions=(replace(FILM, codecs=codecs),)))
    assert text is not None
    assert "CODECS" not in text
    assert text.count("\n") == 5


def test_a_plain_file_has_no_playlist() -> None:
    plain = replace(film(10, [(1, 1)]), media=None)
    assert m3u8.media(plain) is None
    assert m3u8.master(replace(ENTRY, renditions=(FILE,))) is None
    assert m3u8.shelf([replace(ENTRY, renditions=(FILE,))], "http://127.0.0.1:1") == "#EXTM3U\n"


def test_a_media_playlist_is_complete() -> None:
    assert m3u8.media(film(1216, [(5000, 4021), (3000, 1979)])) == (
        "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:4\n#EXT-X-PLAYLIST-TYPE:VOD\n"
        "#EXT-X-INDEPENDENT-SEGMENTS\n"
        f'#EXT-X-MAP:URI="{"0" * 63}a.mp4",BYTERANGE="1216@0"\n'
        f"#EXTINF:4.021,\n#EXT-X-BYTERANGE:5000@1216\n{'0' * 63}a.mp4\n"
        f"#EXTINF:1.979,\n#EXT-X-BYTERANGE:3000@6216\n{'0' * 63}a.mp4\n"
        "#EXT-X-ENDLIST\n"
    )


SPANS = st.lists(st.tuples(st.integers(1, 1 << 31), st.integers(0, 100_000)), min_size=1, max_size=20)


@given(init_bytes=st.integers(1, 1 << 20), spans=SPANS)
def test_byte_ranges_tile_the_file(init_bytes: int, spans: list[tuple[int, int]]) -> None:
    """Header and segments cover the file once, in order, and none is longer than the target."""
    manifest = film(init_bytes, spans)
    text = m3u8.media(manifest)
    assert text is not None
    header = re.search(r'BYTERANGE="(\d+)@0"', text)
    assert header is not None
    reached = int(header[1])
    for length, offset in re.findall(r"#EXT-X-BYTERANGE:(\d+)@(\d+)", text):
        assert int(offset) == reached
        reached += int(length)
    assert reached == manifest.length
    target = re.search(r"TARGETDURATION:(\d+)", text)
    assert target is not None
    seconds = [float(one) for one in re.findall(r"#EXTINF:([\d.]+),", text)]
    assert [round(1000 * one) for one in seconds] == [ms for _, ms in spans]
    assert max(int(one + 0.5) for one in seconds) <= int(target[1]) >= 1


def test_the_shelf_names_films_for_a_set_top_box() -> None:
    text = m3u8.shelf([ENTRY], "http://127.0.0.1:8431")
    assert text == (
        f'#EXTM3U\n#EXTINF:60 tvg-id="{"01" * 16}" media="true",Mill race\n'
        f"http://127.0.0.1:8431/titles/{'01' * 16}/master.m3u8\n"
    )


@given(st.text(max_size=200))
def test_no_title_breaks_its_line(title: str) -> None:
    """Whatever a title holds, the shelf keeps three lines, and the name has no quotes and is not empty."""
    lines = m3u8.shelf([replace(ENTRY, title=title)], "http://127.0.0.1:8431").splitlines()
    assert len(lines) == 3
    attributes, _, name = lines[1].partition('media="true",')
    assert attributes.startswith("#EXTINF:60 ")
    assert name.strip() == name != ""
    assert '"' not in name
