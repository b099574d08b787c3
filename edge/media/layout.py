"""The layout of a fragmented MP4 file: its header, its tracks and every fragment.

Read from the file itself, not from what the muxer was asked to do, so that a manifest never
promises bytes that are not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge.media.boxes import Box, ReadAt, Tree, malformed, walk
from edge.media.codec_names import codec_name

_NON_SYNC = 0x10000  # sample_is_non_sync_sample, ISO/IEC 14496-12 8.8.3.1
MAX_SAMPLES = 1_000_000  # in one run


@dataclass(frozen=True, slots=True)
class Track:
    """One track of the header. `timescale` is ticks per second."""

    track_id: int
    handler: bytes  # b"vide" or b"soun"
    timescale: int
    codec: str  # RFC 6381
    width: int
    height: int
    default_duration: int  # ticks
    default_flags: int


@dataclass(frozen=True, slots=True)
class Run:
    """One track's samples in one fragment; times in ticks of the track."""

    start: int  # tfdt: decoding time of the first sample
    duration: int
    samples: int
    starts_with_key: bool


@dataclass(frozen=True, slots=True)
class Fragment:
    """A moof and its mdat: offset and length in the file, and what each track has in it."""

    at: int
    size_bytes: int
    runs: dict[int, Run]  # by track id


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole file: `init_bytes` of ftyp and moov, then fragments without a gap to its end."""

    init_bytes: int
    tracks: tuple[Track, ...]
    fragments: tuple[Fragment, ...]


def read_layout(read: ReadAt, size_bytes: int) -> Layout:
    """Layout of a fragmented MP4 of `size_bytes`. Raises ProtocolError.

    Exactly ftyp, moov, then pairs of moof and mdat are accepted: nothing else may be in a
    file whose every byte is accounted for by a segment.
    """
    boxes = walk(read, 0, size_bytes)
    _expect(next(boxes, None), b"ftyp")
    moov = _expect(next(boxes, None), b"moov")
    tracks = tuple(_read_tracks(Tree.load(read, moov)))
    by_id = {track.track_id: track for track in tracks}
    if not tracks or len(by_id) != len(tracks):
        malformed(moov, moov.at, "has no tracks, or two of one number")
    return Layout(moov.end, tracks, tuple(_read_fragments(read, boxes, by_id)))


def _expect(box: Box | None, kind: bytes) -> Box:
    if box is None:
        malformed(kind, 0, "missing")
    if box.kind != kind:
        malformed(box, box.at, f"expected {kind!r} here")
    return box


def _read_tracks(moov: Tree) -> Iterator[Track]:
    defaults = {
        trex.number(4, 4): (trex.number(12, 4), trex.number(20, 4))
        for trex in moov.child(b"mvex").children(b"trex")
    }
    for trak in moov.children(b"trak"):
        tkhd, mdhd = trak.child(b"tkhd"), trak.child(b"mdia", b"mdhd")
        track_id = tkhd.number(20 if tkhd.number(0, 1) == 1 else 12, 4)
        timescale = mdhd.number(20 if mdhd.number(0, 1) == 1 else 12, 4)
        handler = trak.child(b"mdia", b"hdlr").payload(8)[:4]
        stsd = trak.child(b"mdia", b"minf", b"stbl", b"stsd")
        entry = next(stsd.children(skip=8), None)
        if entry is None or not timescale or track_id not in defaults:
            malformed(trak.box, moov.origin + trak.box.at, "is incomplete")
        seen = (entry.number(24, 2), entry.number(26, 2)) if handler == b"vide" else (0, 0)
        yield Track(track_id, handler, timescale, codec_name(entry), *seen, *defaults[track_id])


def _read_fragments(read: ReadAt, boxes: Iterator[Box], tracks: dict[int, Track]) -> Iterator[Fragment]:
    for box in boxes:
        moof = Tree.load(read, _expect(box, b"moof"))
        mdat = _expect(next(boxes, None), b"mdat")
        runs: dict[int, Run] = {}
        for traf in moof.children(b"traf"):
            track_id, run = _read_run(traf, tracks)
            if track_id in runs:
                malformed(traf.box, moof.origin, "two for one track")
            runs[track_id] = run
        yield Fragment(box.at, mdat.end - box.at, runs)


def _read_run(traf: Tree, tracks: dict[int, Track]) -> tuple[int, Run]:
    tfhd = traf.child(b"tfhd")
    flags, track = tfhd.number(1, 3), tracks.get(tfhd.number(4, 4))
    if track is None:
        malformed(tfhd.box, traf.origin, "names no track")
    at = 8 + (8 if flags & 0x1 else 0) + (4 if flags & 0x2 else 0)
    duration, sample_flags = track.default_duration, track.default_flags
    if flags & 0x8:
        duration, at = tfhd.number(at, 4), at + 4
    if flags & 0x10:
        at += 4
    if flags & 0x20:
        sample_flags = tfhd.number(at, 4)
    tfdt = traf.child(b"tfdt")
    start = tfdt.number(4, 8 if tfdt.number(0, 1) == 1 else 4)
    total = samples = 0
    key = False
    for trun in traf.children(b"trun"):
        count, ticks, first_flags = _sum_samples(trun, duration, sample_flags)
        if count and not samples:
            key = not first_flags & _NON_SYNC
        total, samples = total + ticks, samples + count
    return track.track_id, Run(start, total, samples, key)


def _sum_samples(trun: Tree, duration: int, sample_flags: int) -> tuple[int, int, int]:
    """(samples, ticks, flags of the first sample) of one trun."""
    flags, count = trun.number(1, 3), trun.number(4, 4)
    if count > MAX_SAMPLES:
        malformed(trun.box, trun.origin, f"more than {MAX_SAMPLES} samples")
    at, first_flags = 8 + (4 if flags & 0x1 else 0), sample_flags
    if flags & 0x4:
        first_flags, at = trun.number(at, 4), at + 4
    pitch = 4 * (flags >> 8 & 0xF).bit_count()
    if trun.box.payload_at + at + pitch * count > trun.box.end:
        malformed(trun.box, trun.origin, "too short for its samples")
    if count and flags & 0x400:
        first_flags = trun.number(at + 4 * (flags >> 8 & 0x3).bit_count(), 4)
    if not flags & 0x100:
        return count, duration * count, first_flags
    return count, sum(trun.number(at + pitch * index, 4) for index in range(count)), first_flags
