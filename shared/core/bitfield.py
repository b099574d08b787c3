"""Which pieces of a swarm somebody holds; on the wire the first piece is the highest bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shared.core.errors import ProtocolError, Reason

STRETCHES = 32  # of a title, in summaries


class Bitfield:
    """A set of piece numbers below `total`, held as one integer: unions and counts are one step."""

    __slots__ = ("_bits", "total")

    def __init__(self, total: int, pieces: Iterable[int] = ()) -> None:
        self.total = total
        self._bits = 0
        for piece in pieces:
            self.add(piece)

    @classmethod
    def parse(cls, raw: bytes, total: int) -> Bitfield:
        """From its wire form. Raises ProtocolError for a wrong length or set spare bits."""
        spare = -total % 8
        bits = int.from_bytes(raw, "big")
        if len(raw) != (total + 7) // 8 or bits & ((1 << spare) - 1):
            raise ProtocolError(Reason.MALFORMED, f"a bitfield of {len(raw)} bytes for {total} pieces")
        field = cls(total)
        field._bits = bits >> spare
        return field

    @classmethod
    def full(cls, total: int) -> Bitfield:
        """Every one of `total` pieces."""
        field = cls(total)
        field._bits = (1 << total) - 1
        return field

    def to_wire(self) -> bytes:
        """Its wire form, ceil(total / 8) bytes."""
        return (self._bits << (-self.total % 8)).to_bytes((self.total + 7) // 8, "big")

    def add(self, piece: int) -> None:
        """Adds a piece. Raises ProtocolError if there is no such piece."""
        if not 0 <= piece < self.total:
            raise ProtocolError(Reason.MALFORMED, f"piece {piece} of {self.total}")
        self._bits |= 1 << (self.total - 1 - piece)

    def discard(self, piece: int) -> None:
        """Takes a piece away, if it is there."""
        if 0 <= piece < self.total:
            self._bits &= ~(1 << (self.total - 1 - piece))

    def __contains__(self, piece: int) -> bool:
        return 0 <= piece < self.total and bool(self._bits >> (self.total - 1 - piece) & 1)

    def __len__(self) -> int:
        return self._bits.bit_count()

    def __iter__(self) -> Iterator[int]:
        bits = self._bits
        while bits:
            top = bits.bit_length() - 1
            yield self.total - 1 - top
            bits ^= 1 << top

    def lacking(self, others: Iterable[Bitfield]) -> Bitfield:
        """What any of these others has and this one has not; all are of one swarm."""
        missing = Bitfield(self.total)
        for other in others:
            missing._bits |= other._bits
        missing._bits &= ~self._bits
        return missing

    def from_piece(self, first: int) -> Iterator[int]:
        """The pieces from `first` on to the end, then those before it."""
        behind = Bitfield(self.total)
        behind._bits = self._bits & ((1 << max(0, self.total - first)) - 1)
        before = Bitfield(self.total)
        before._bits = self._bits & ~behind._bits
        yield from behind
        yield from before

    def summary(self) -> int:
        """Bit n: the n-th of 32 equal stretches is there; 0 if that says no more than the count does."""
        if not self._bits or self.complete:
            return 0
        return sum(1 << n for n in range(STRETCHES) if self._has_stretch(n))

    def _has_stretch(self, number: int) -> bool:
        first = number * self.total // STRETCHES  # a piece that lies in two stretches belongs to both
        end = -(-(number + 1) * self.total // STRETCHES)
        mask = (1 << (end - first)) - 1
        return self._bits >> (self.total - end) & mask == mask

    @property
    def complete(self) -> bool:
        """Whether every piece is there."""
        return len(self) == self.total
