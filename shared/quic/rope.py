"""What a stream has written and the peer has not acknowledged: the writer's own chunks, not copies."""

from __future__ import annotations

from bisect import bisect_right

Chunk = bytes | memoryview


class Rope:
    """Stands where aioquic keeps a bytearray, with the three operations that aioquic uses on it.

    A bytearray that is appended to and shortened at the front is moved over and over again: with
    a few MiB under way that costs more than the encryption. A rope only keeps references.
    """

    __slots__ = ("_chunks", "_first", "_starts", "_stop")

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._starts: list[int] = []  # of each chunk, counted from the first byte ever written
        self._first = 0  # bytes that were deleted
        self._stop = 0

    def __iadd__(self, chunk: Chunk) -> Rope:
        """Append; the chunk must not change any more."""
        if len(chunk):
            self._chunks.append(chunk)
            self._starts.append(self._stop)
            self._stop += len(chunk)
        return self

    def __delitem__(self, front: slice) -> None:
        """`del rope[:count]`: a chunk goes when all of it may."""
        self._first += front.stop
        gone = len(self._chunks) if self._first >= self._stop else bisect_right(self._starts, self._first) - 1
        if gone > 0:
            del self._chunks[:gone], self._starts[:gone]

    def __getitem__(self, part: slice) -> bytes:
        """`rope[start:stop]`, counted from the first byte that was not deleted."""
        taken = bytearray(part.stop - part.start)
        self.copy_into(memoryview(taken), self._first + part.start)
        return bytes(taken)

    def __len__(self) -> int:
        return self._stop - self._first

    def copy_into(self, target: memoryview, start: int) -> None:
        """Fill `target` with the bytes from `start` on, counted from the first ever written."""
        at = bisect_right(self._starts, start) - 1
        filled, wanted = 0, len(target)
        while filled < wanted:
            chunk = self._chunks[at]
            skipped = start + filled - self._starts[at]
            size = min(len(chunk) - skipped, wanted - filled)
            target[filled : filled + size] = memoryview(chunk)[skipped : skipped + size]
            filled += size
            at += 1
