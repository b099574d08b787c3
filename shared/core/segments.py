"""What a player must know of a film, and where its segments lie in the file.

A film is one fragmented MP4: `init_bytes` of header, then segments back to back to the end
of the file. In a manifest the segments are packed as big-endian pairs of 32-bit numbers
(bytes, duration in milliseconds); offsets and start times follow from their order.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from shared.core.bencode import Encodable
from shared.core.strict import Fields, bytes_of, int_of, malformed, text_of

MAX_SEGMENTS = 1 << 16  # three days of four seconds each
MAX_BANDWIDTH = 1 << 40
MAX_PIXELS = 65535
MAX_DURATION_MS = (1 << 32) - 1

_PAIR = struct.Struct(">II")
_CODECS = re.compile(r"[A-Za-z0-9.,_+-]{1,100}\Z")  # RFC 6381; ends up in quotes in playlists
MEDIA_KEYS = frozenset(
    [
        b"average bandwidth",
        b"bandwidth",
        b"codecs",
        b"duration ms",
        b"height",
        b"init bytes",
        b"segments",
        b"width",
    ]
)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of media that starts with a key frame."""

    offset: int  # bytes from the start of the file
    length: int  # bytes
    start_ms: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Media:
    """A film as its playlist describes it; sound alone has width and height 0."""

    bandwidth: int  # bits per second, peak over segments
    average_bandwidth: int  # bits per second
    codecs: str  # RFC 6381, e.g. avc1.64001f,mp4a.40.2
    duration_ms: int  # sum of the segments', at least 1
    height: int  # pixels
    width: int  # pixels
    init_bytes: int  # header before the first segment
    segments: tuple[Segment, ...] = field(repr=False)


def lay_out(init_bytes: int, spans: Iterable[tuple[int, int]]) -> tuple[Segment, ...]:
    """Segments from (bytes, duration in milliseconds) pairs that follow `init_bytes` of header."""
    segments: list[Segment] = []
    offset, start_ms = init_bytes, 0
    for length, duration_ms in spans:
        segments.append(Segment(offset, length, start_ms, duration_ms))
        offset += length
        start_ms += duration_ms
    return tuple(segments)


def media_to_wire(media: Media) -> dict[bytes, Encodable]:
    """The media keys of a manifest. Raises ValueError if a segment does not fit 32 bits."""
    try:
        packed = b"".join(_PAIR.pack(one.length, one.duration_ms) for one in media.segments)
    except struct.error as error:
        raise ValueError(f"a segment is out of bounds: {error}") from None
    return {
        b"average bandwidth": media.average_bandwidth,
        b"bandwidth": media.bandwidth,
        b"codecs": media.codecs.encode(),
        b"duration ms": media.duration_ms,
        b"height": media.height,
        b"init bytes": media.init_bytes,
        b"segments": packed,
        b"width": media.width,
    }


def media_from_wire(fields: Fields, length: int) -> Media:
    """The film of a file of `length` bytes from its media keys. Raises ProtocolError(MALFORMED)."""
    init_bytes = int_of(fields, b"init bytes", 1, length)
    segments = _segments(bytes_of(fields, b"segments", _PAIR.size, _PAIR.size * MAX_SEGMENTS), init_bytes)
    last = segments[-1]
    if last.offset + last.length != length:
        malformed(f"segments end at {last.offset + last.length} of {length} bytes")
    duration_ms = int_of(fields, b"duration ms", 1, MAX_DURATION_MS)
    if duration_ms != max(1, last.start_ms + last.duration_ms):
        malformed(f"segments last {last.start_ms + last.duration_ms} of {duration_ms} ms")
    bandwidth = int_of(fields, b"bandwidth", 1, MAX_BANDWIDTH)
    codecs = text_of(fields, b"codecs", 1, 100)
    if not _CODECS.match(codecs):
        malformed("'codecs' is not a list of RFC 6381 names")
    return Media(
        bandwidth=bandwidth,
        average_bandwidth=int_of(fields, b"average bandwidth", 1, bandwidth),
        codecs=codecs,
        duration_ms=duration_ms,
        height=int_of(fields, b"height", 0, MAX_PIXELS),
        width=int_of(fields, b"width", 0, MAX_PIXELS),
        init_bytes=init_bytes,
        segments=segments,
    )


def _segments(packed: bytes, init_bytes: int) -> tuple[Segment, ...]:
    if len(packed) % _PAIR.size:
        malformed(f"'segments' has {len(packed)} bytes, not pairs of 32-bit numbers")
    segments = lay_out(init_bytes, _PAIR.iter_unpack(packed))
    if any(one.length == 0 for one in segments):
        malformed("a segment is empty")
    return segments
