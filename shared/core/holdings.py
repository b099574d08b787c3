"""Which pieces are held, what they take, and what goes first when there is no room.

Value is what decides. A title is worth the more the later it was watched; one that was just
added counts as just watched. Inside a title the last piece is worth least, because films are
entered at the beginning and often left before the end. Room is made from the least valuable
end, and never by giving up what is worth more than what comes in: a title larger than the
quota keeps its beginning instead of turning over. Pinned titles (being played, or published
here) are not touched at all.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.core.errors import StoreFull
from shared.core.ids import InfoHash
from shared.core.shape import Shape

ABSENT, UNCHECKED, CHECKED = 0, 1, 2
_BITS = bytes.maketrans(bytes([ABSENT, UNCHECKED, CHECKED]), b"011")


@dataclass(frozen=True, slots=True)
class Victim:
    """A piece to delete, or (without an index) a title of which no piece is left."""

    infohash: InfoHash
    index: int | None


@dataclass(slots=True)
class Holding:
    """One title: a byte per piece says whether it is held, and checked since the start."""

    shape: Shape
    manifest_bytes: int
    watched_at: float
    order: int  # of arrival; breaks ties
    count: int = 0
    pieces: bytearray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.pieces = bytearray(self.shape.piece_count)

    def state(self, index: int) -> int:
        """ABSENT (also where there is no such piece), UNCHECKED or CHECKED."""
        return self.pieces[index] if 0 <= index < len(self.pieces) else ABSENT

    def bitfield(self) -> bytes:
        """Held pieces in BitTorrent's order: the first piece is the highest bit of the first byte."""
        if not self.pieces:
            return b""
        size = (len(self.pieces) + 7) // 8
        digits = self.pieces.translate(_BITS).ljust(8 * size, b"0")
        return int(digits, 2).to_bytes(size, "big")

    def numbers(self) -> frozenset[int]:
        """Numbers of the pieces held."""
        pieces = bytes(self.pieces)  # a copy, for other threads may change it
        return frozenset(index for index, state in enumerate(pieces) if state)

    def from_the_last(self, above: int = -1) -> Iterator[int]:
        """Held pieces with a number over `above`, highest first."""
        for index in range(len(self.pieces.rstrip(b"\0")) - 1, above, -1):
            if self.pieces[index]:
                yield index


class Holdings:
    """All titles of a store. Sizes are bytes on disk as the store writes them."""

    def __init__(self, quota_bytes: int) -> None:
        self.quota_bytes = quota_bytes
        self.used_bytes = 0
        self.reserved_bytes = 0  # being written
        self.evictions = 0  # pieces
        self.titles: dict[InfoHash, Holding] = {}
        self._pins: dict[InfoHash, int] = {}
        self._arrivals = 0

    @property
    def piece_count(self) -> int:
        """Pieces held, over all titles."""
        return sum(holding.count for holding in self.titles.values())

    def add(self, infohash: InfoHash, shape: Shape, manifest_bytes: int) -> Holding:
        """A title of which nothing is held yet; as fresh as the last one watched."""
        freshest = max((one.watched_at for one in self.titles.values()), default=float("-inf"))
        self._arrivals += 1
        self.titles[infohash] = Holding(shape, manifest_bytes, freshest, self._arrivals)
        self.used_bytes += manifest_bytes
        return self.titles[infohash]

    def remove(self, infohash: InfoHash) -> Holding | None:
        """Forgets a title with all its pieces; returns what was held."""
        holding = self.titles.pop(infohash, None)
        if holding is not None:
            stored = sum(holding.shape.stored_size(index) for index in holding.from_the_last())
            self.used_bytes -= stored + holding.manifest_bytes
        return holding

    def hold(self, infohash: InfoHash, index: int, state: int) -> None:
        """Counts a piece as held, or raises its state."""
        holding = self.titles[infohash]
        if holding.pieces[index] == ABSENT:
            holding.count += 1
            self.used_bytes += holding.shape.stored_size(index)
        holding.pieces[index] = max(state, holding.pieces[index])

    def drop(self, infohash: InfoHash, index: int) -> bool:
        """Forgets a piece; False if it was not held."""
        holding = self.titles.get(infohash)
        if holding is None or holding.state(index) == ABSENT:
            return False
        holding.pieces[index] = ABSENT
        holding.count -= 1
        self.used_bytes -= holding.shape.stored_size(index)
        return True

    def pin(self, infohash: InfoHash) -> None:
        """Keeps a title from eviction until as many `unpin`s; it may arrive later."""
        self._pins[infohash] = self._pins.get(infohash, 0) + 1

    def unpin(self, infohash: InfoHash) -> None:
        """Takes one pin away. Raises ValueError if there is none."""
        left = self._pins.pop(infohash, 0) - 1
        if left < 0:
            raise ValueError(f"{infohash.hex()} is not pinned")
        if left:
            self._pins[infohash] = left

    def make_room(self, size_bytes: int, infohash: InfoHash, index: int | None) -> list[Victim]:
        """Room within the quota for a piece (or, without an index, for a new title's manifest).

        Returns what to delete, already forgotten here. Raises StoreFull, and then nothing is
        given up. Add to `reserved_bytes` until the piece is held.
        """
        excess = self.used_bytes + self.reserved_bytes + size_bytes - self.quota_bytes
        return self.give_up(excess, infohash, index) if excess > 0 else []

    def give_up(self, size_bytes: int, infohash: InfoHash, index: int | None) -> list[Victim]:
        """Forgets pieces worth less than the named one until `size_bytes` are free.

        Raises StoreFull, and then nothing is given up.
        """
        victims: list[Victim] = []
        for victim, freed_bytes in self._cheapest(infohash, index):
            victims.append(victim)
            size_bytes -= freed_bytes
            if size_bytes <= 0:
                break
        else:
            raise StoreFull(
                f"no room in the piece store: {self.used_bytes} of {self.quota_bytes} bytes are used and "
                "everything held is worth more than what came; raise its quota or free the disk"
            )
        for victim in victims:
            self._forget(victim)
        return victims

    def _forget(self, victim: Victim) -> None:
        if victim.index is None:
            self.remove(victim.infohash)
        elif self.drop(victim.infohash, victim.index):
            self.evictions += 1

    def _cheapest(self, infohash: InfoHash, index: int | None) -> Iterator[tuple[Victim, int]]:
        """What is worth less than the named piece, least first, with the bytes it frees."""
        queue = [
            (holding.watched_at, holding.order, name)
            for name, holding in self.titles.items()
            if name not in self._pins
        ]
        heapq.heapify(queue)
        while queue:
            name = heapq.heappop(queue)[2]
            holding = self.titles[name]
            above = -1 if name != infohash or index is None else index
            for last in holding.from_the_last(above):
                yield Victim(name, last), holding.shape.stored_size(last)
            if name == infohash:
                return
            yield Victim(name, None), holding.manifest_bytes
