"""The boxes of an MP4 file (ISO/IEC 14496-12): walking them, strictly and within bounds.

`read(at, count)` returns up to `count` bytes of the file from offset `at`. Every error is a
ProtocolError that names the box and its offset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from shared.core.errors import ProtocolError, Reason

ReadAt = Callable[[int, int], bytes]

MAX_BOXES = 1_000_000  # in one file or one parent; 12 hours of one-second fragments is 86,400
MAX_HEADER_BYTES = 16 << 20  # of one moov or moof: they are read into memory


@dataclass(frozen=True, slots=True)
class Box:
    """One box: where it starts, where its payload starts, where it ends (file offsets)."""

    kind: bytes  # four characters
    at: int
    payload_at: int
    end: int

    @property
    def size_bytes(self) -> int:
        """Length with its header."""
        return self.end - self.at


def malformed(box: Box | bytes, at: int, why: str) -> NoReturn:
    """Raise the ProtocolError for a box that breaks the format."""
    kind = box.kind if isinstance(box, Box) else box
    raise ProtocolError(Reason.MALFORMED, f"MP4 box {kind!r} at byte {at}: {why}")


def walk(read: ReadAt, at: int, end: int) -> Iterator[Box]:
    """The boxes that tile `at`..`end` exactly, in order. Raises ProtocolError where they do not."""
    for _ in range(MAX_BOXES):
        if at == end:
            return
        box = _read_box(read, at, end)
        yield box
        at = box.end
    malformed(b"", at, f"more than {MAX_BOXES} boxes")


def _read_box(read: ReadAt, at: int, end: int) -> Box:
    head = read(at, min(16, end - at))
    if len(head) < 8:
        malformed(head[4:8], at, "cut short")
    size, kind, header_bytes = int.from_bytes(head[:4], "big"), head[4:8], 8
    if size == 1:
        if len(head) < 16:
            malformed(kind, at, "cut short")
        size, header_bytes = int.from_bytes(head[8:16], "big"), 16
    if size < header_bytes:
        malformed(kind, at, f"length {size} is too small")
    if size > end - at:
        malformed(kind, at, f"length {size} runs past the end")
    return Box(kind, at, at + header_bytes, at + size)


@dataclass(frozen=True, slots=True)
class Tree:
    """A box that was read into memory, with offsets from the start of its own bytes."""

    raw: bytes
    box: Box
    origin: int  # file offset of `raw`

    @classmethod
    def load(cls, read: ReadAt, box: Box) -> Tree:
        """Read a whole moov or moof. Raises ProtocolError when it is over MAX_HEADER_BYTES."""
        if box.size_bytes > MAX_HEADER_BYTES:
            malformed(box, box.at, f"longer than {MAX_HEADER_BYTES} bytes")
        raw = read(box.at, box.size_bytes)
        if len(raw) != box.size_bytes:
            malformed(box, box.at, "cut short")
        return cls(raw, Box(box.kind, 0, box.payload_at - box.at, len(raw)), box.at)

    def _read(self, at: int, count: int) -> bytes:
        return self.raw[at : at + count]

    def children(self, kind: bytes | None = None, skip: int = 0) -> Iterator[Tree]:
        """Child boxes (of one kind), after `skip` bytes of fields that come before them."""
        start = self.box.payload_at + skip
        if start > self.box.end:
            malformed(self.box, self.origin + self.box.at, "too short")
        for box in walk(self._read, start, self.box.end):
            if kind is None or box.kind == kind:
                yield Tree(self.raw, box, self.origin)

    def child(self, *path: bytes) -> Tree:
        """The first child along a path of kinds. Raises ProtocolError when one is missing."""
        here = self
        for kind in path:
            found = next(here.children(kind), None)
            if found is None:
                malformed(here.box, here.origin + here.box.at, f"has no {kind!r}")
            here = found
        return here

    def number(self, at: int, size: int) -> int:
        """Unsigned big-endian field `at` bytes into the payload."""
        start = self.box.payload_at + at
        if start + size > self.box.end:
            malformed(self.box, self.origin + self.box.at, "too short")
        return int.from_bytes(self.raw[start : start + size], "big")

    def payload(self, skip: int = 0) -> bytes:
        """The payload after `skip` bytes."""
        return self.raw[self.box.payload_at + skip : self.box.end]
