"""What is asked of the media child and what it answers: plain values, no codec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**48)]
_Positive = Annotated[int, msgspec.Meta(ge=1, le=2**48)]
_Side = Annotated[int, msgspec.Meta(ge=0, le=65535)]
_Codecs = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z.,]{1,64}\Z")]
_Text = Annotated[str, msgspec.Meta(max_length=1000)]

MAX_SEGMENTS = 100_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one film may cost; the child refuses or is killed beyond them."""

    memory_bytes: int = 2 << 30  # address space of the child
    cpu_seconds: int = 4 * 3600  # processor time, all threads together
    wall_seconds: float = 6 * 3600.0  # time on the wall, after which the child is killed
    output_bytes: int = 64 << 30  # size of the prepared file
    film_seconds: int = 12 * 3600  # playing time
    pixels: int = 4096 * 2304  # area of one picture
    threads: int = 2  # of each decoder and encoder


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared file: `init_bytes` of header, then segments back to back up to its end.

    Each segment is (bytes, milliseconds) and starts with a key frame, so that the header and
    any one segment decode on their own. Widths and heights are 0 when there is no picture.
    """

    codecs: _Codecs  # RFC 6381, e.g. "avc1.64001f,mp4a.40.2"
    width: _Side
    height: _Side
    duration_ms: _Positive
    bandwidth: _Positive  # bits per second, the highest of any full segment
    average_bandwidth: _Positive  # bits per second
    init_bytes: _Positive
    segments: Annotated[
        tuple[tuple[_Positive, _Count], ...], msgspec.Meta(min_length=1, max_length=MAX_SEGMENTS)
    ]

    @property
    def total_bytes(self) -> int:
        """Length of the whole file."""
        return self.init_bytes + sum(size_bytes for size_bytes, _ in self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One JSON line from the child: progress, or (last) a result or an error."""

    stage: Literal["probing", "copying", "transcoding", "checking", ""] = ""
    done: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    result: Prepared | None = None
    error: _Text | None = None
    reason: Literal["NOT_A_FILM", "TOO_LARGE", "NO_SPACE", "LOCAL"] = "NOT_A_FILM"
