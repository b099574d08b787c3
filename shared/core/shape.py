"""How a file of some length is cut into pieces and leaves: arithmetic, no bytes."""

from __future__ import annotations

from dataclasses import dataclass

from shared.core.merkle import HASH_BYTES, LEAF_BYTES

PIECE_BYTES = 262144
MIN_PIECE_BYTES, MAX_PIECE_BYTES = LEAF_BYTES, 1 << 24
MAX_LENGTH_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class Shape:
    """A file's length and its piece length, both in bytes."""

    length: int
    piece_length: int

    @property
    def piece_count(self) -> int:
        """Pieces in the file; none if it is empty."""
        return -(-self.length // self.piece_length)

    def piece_size(self, index: int) -> int:
        """Bytes of a piece; the last may be short. Raises IndexError if there is no such piece."""
        if not 0 <= index < self.piece_count:
            raise IndexError(f"piece {index} of {self.piece_count}")
        return min(self.piece_length, self.length - index * self.piece_length)

    def leaf_count(self, index: int) -> int:
        """Leaves of a piece. Raises IndexError."""
        return -(-self.piece_size(index) // LEAF_BYTES)

    def stored_size(self, index: int) -> int:
        """Bytes of a piece together with its packed leaf hashes. Raises IndexError."""
        return self.leaf_count(index) * HASH_BYTES + self.piece_size(index)

    def pieces_of(self, offset: int, length: int) -> range:
        """The pieces that hold `length` bytes from `offset`, as far as the file goes."""
        first, end = max(offset, 0), min(offset + length, self.length)
        if first >= end:
            return range(0)
        return range(first // self.piece_length, -(-end // self.piece_length))
