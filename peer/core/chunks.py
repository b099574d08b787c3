"""The requests of one rendition that are under way, and what has arrived of unfinished pieces.

A piece is asked from one source at a time and arrives leaf by leaf from its front, so what is
missing of it is always its tail.
"""

from __future__ import annotations

from dataclasses import dataclass

from peer.core.company import Company
from peer.core.source import Source
from shared.core.actions import Ask, Cancel
from shared.core.bulk import NO_DEADLINE_MS
from shared.core.ids import InfoHash, NodeId
from shared.core.manifest import Manifest
from shared.core.merkle import LEAF_BYTES

LONGEST_SLACK_MS = 3_600_000
FOREVER = float("inf")


@dataclass(slots=True)
class Chunk:
    """One request under way."""

    source: NodeId
    piece: int
    first_leaf: int
    leaf_count: int
    size: int
    asked_at: float
    arrived: int = 0

    def silence(self, source: Source, now: float) -> float:
        """Seconds since its source delivered anything."""
        return now - max(source.progress_at, self.asked_at)


class Chunks:
    """Requests by number. `sources` are those of the rendition, which come and go."""

    def __init__(self, infohash: InfoHash, company: Company, sources: dict[NodeId, Source]) -> None:
        self.running: dict[int, Chunk] = {}
        self.busy: set[int] = set()  # pieces asked for, or being stored
        self._infohash = infohash
        self._company = company
        self._sources = sources
        self._done_leaves: dict[int, int] = {}

    def missing_bytes(self, manifest: Manifest, piece: int) -> int:
        """What of a piece has not arrived."""
        return manifest.piece_size(piece) - self._done_leaves.get(piece, 0) * LEAF_BYTES

    def ask(self, source: Source, manifest: Manifest, piece: int, slack: float, now: float) -> None:
        """Asks for all that is missing of a piece."""
        first = self._done_leaves.get(piece, 0)
        count = manifest.leaf_count(piece) - first
        size = self.missing_bytes(manifest, piece)
        number = next(self._company.numbers)
        self._company.owners[number] = self._infohash
        source.promised(size, now)
        self.running[number] = Chunk(source.node, piece, first, count, size, now)
        self.busy.add(piece)
        slack_ms = NO_DEADLINE_MS if slack == FOREVER else max(0, min(LONGEST_SLACK_MS, int(slack * 1000)))
        self._company.actions.append(Ask(number, source.node, self._infohash, piece, first, count, slack_ms))

    def arrived(self, number: int, size: int, now: float) -> Source | None:
        """The next leaf of a request was checked: its source, or None if it is not wanted any more."""
        chunk = self.running.get(number)
        source = self._sources.get(chunk.source) if chunk else None
        if chunk is None or source is None:
            return None
        chunk.arrived += 1
        chunk.size -= size
        source.leaf_arrived(size, now)
        self._done_leaves[chunk.piece] = chunk.first_leaf + chunk.arrived
        return source

    def release(self, number: int, *, keep_piece: bool = False) -> None:
        """A request is over; a piece that is kept is being stored, and `stored` frees it."""
        chunk = self.running.pop(number)
        del self._company.owners[number]
        source = self._sources.get(chunk.source)
        if source is not None:
            source.outstanding_bytes -= chunk.size
        if not keep_piece:
            self.busy.discard(chunk.piece)

    def give_up(self, number: int) -> None:
        """Cancels a request; what came of it is kept."""
        self._company.actions.append(Cancel(number))
        self.release(number)

    def give_up_all_of(self, node: NodeId) -> None:
        """A source is gone, or not to be asked any more."""
        for number in [n for n, chunk in self.running.items() if chunk.source == node]:
            self.give_up(number)

    def stored(self, piece: int) -> None:
        """A whole piece is in the store, or in memory."""
        self.busy.discard(piece)
        self._done_leaves.pop(piece, None)

    def forget_part(self, piece: int) -> None:
        """What had arrived of an unfinished piece had to go."""
        if piece not in self.busy:
            self._done_leaves.pop(piece, None)

    def ahead_bytes(self, number: int) -> int:
        """What its source has to send until this request is done, if it keeps their order."""
        node = self.running[number].source
        return sum(c.size for n, c in self.running.items() if c.source == node and n <= number)
