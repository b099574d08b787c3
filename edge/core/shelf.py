"""What stands on an edge's disk, and what goes when there is no room for what is ordered.

What was published here is never given up: it may be the only copy. Of the rest, first what the tracker
hinted, in the order of the hints; then what is not whole and no more on its way; then what nobody
here has watched and no order has named for an hour, the longest ago first. Never what is watched or
fetched now. Titles go whole: half a film helps nobody who comes to the other half.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from shared.core.ids import InfoHash
from shared.core.merkle import HASH_BYTES, LEAF_BYTES
from shared.core.shape import PIECE_BYTES

KEPT_SECONDS = 3600.0
MAX_HINTS = 10_000
MANIFEST_ROOM_BYTES = 16_384  # what a manifest has besides the hashes of its pieces, and more


def room_of(length: int) -> int:
    """Bytes on the disk that a file of `length` takes with its hashes, for as long as only that is known."""
    leaves, pieces = -(-length // LEAF_BYTES), -(-length // PIECE_BYTES)
    return length + HASH_BYTES * (leaves + pieces) + MANIFEST_ROOM_BYTES


@dataclass(slots=True)
class Kept:
    """A title on the disk, or on its way there."""

    size_bytes: int  # it takes, or will take
    used_at: float  # watched, or named by an order
    is_ours: bool = False  # published here
    is_whole: bool = False


class Shelf:
    """All titles of an edge."""

    def __init__(self, quota_bytes: int) -> None:
        self.quota_bytes = quota_bytes
        self.titles: dict[InfoHash, Kept] = {}
        self._hinted: dict[InfoHash, None] = {}

    @property
    def kept_bytes(self) -> int:
        """What all of it takes."""
        return sum(kept.size_bytes for kept in self.titles.values())

    def hint(self, infohash: InfoHash) -> None:
        """The tracker says that this is worth least here."""
        kept = self.titles.get(infohash)
        if kept is not None and not kept.is_ours and len(self._hinted) < MAX_HINTS:
            self._hinted.setdefault(infohash)

    @property
    def hinted(self) -> list[InfoHash]:
        """What may go first, the first first."""
        return list(self._hinted)

    def put(self, infohash: InfoHash, kept: Kept) -> None:
        """A title is here, or on its way."""
        self.titles[infohash] = kept

    def use(self, infohash: InfoHash, now: float) -> None:
        """It is watched, or ordered anew: a hint of before holds no longer if it is ordered."""
        kept = self.titles.get(infohash)
        if kept is not None:
            kept.used_at = max(kept.used_at, now)

    def order(self, infohash: InfoHash, now: float) -> None:
        """The tracker wants it here: a hint of before holds no longer."""
        self._hinted.pop(infohash, None)
        self.use(infohash, now)

    def remove(self, infohash: InfoHash) -> None:
        """It is here no more."""
        self.titles.pop(infohash, None)
        self._hinted.pop(infohash, None)

    def make_room(self, size_bytes: int, busy: Container[InfoHash], now: float) -> list[InfoHash] | None:
        """What must go for so many bytes more, `busy` never; None if that is not enough."""
        missing = self.kept_bytes + size_bytes - self.quota_bytes
        going: list[InfoHash] = []
        for infohash in self._candidates(now):
            if missing <= 0:
                break
            if infohash not in busy:
                going.append(infohash)
                missing -= self.titles[infohash].size_bytes
        return None if missing > 0 else going

    def _candidates(self, now: float) -> list[InfoHash]:
        others = [
            (kept.is_whole, kept.used_at, infohash)
            for infohash, kept in self.titles.items()
            if infohash not in self._hinted
            and not kept.is_ours
            and (not kept.is_whole or now - kept.used_at >= KEPT_SECONDS)
        ]
        return [*self._hinted, *(infohash for _, _, infohash in sorted(others))]
