"""What changed in placement since the database was told: for the record, nothing is decided by it."""

from __future__ import annotations

from dataclasses import dataclass

from shared.core.ids import InfoHash, NodeId
from shared.core.messages import Announce, Event

MOST_WAITING = 100_000  # changes; a database that is stuck that long loses the record of further ones
ORDERED, HELD, LOST, GONE = "ordered", "held", "lost", "gone"  # beside the stages that an edge reports


@dataclass(frozen=True, slots=True)
class Change:
    """How one edge stands to one rendition from a moment on."""

    stage: str
    at: float
    reason: str = ""
    ordered_at: float = 0.0  # 0: nobody ordered it, as far as this change tells
    before_at: float = 0.0


class PlacementRecord:
    """Changes in memory, the latest of each edge and rendition."""

    def __init__(self) -> None:
        self._changes: dict[tuple[NodeId, InfoHash], Change] = {}

    def note(self, edge: NodeId, infohash: InfoHash, change: Change) -> None:
        """Takes one change."""
        if len(self._changes) < MOST_WAITING or (edge, infohash) in self._changes:
            self._changes[edge, infohash] = change

    def announced(self, edge: NodeId, message: Announce, now: float) -> None:
        """An edge said what it holds: worth a line when it begins or ends to hold all of it."""
        if message.event is Event.STOPPED:
            self.note(edge, message.infohash, Change(GONE, now))
        elif message.event is not Event.UPDATE and message.held == message.total > 0:
            self.note(edge, message.infohash, Change(HELD, now))

    def take(self) -> dict[tuple[NodeId, InfoHash], Change]:
        """What changed since the last time."""
        taken, self._changes = self._changes, {}
        return taken

    def give_back(self, changes: dict[tuple[NodeId, InfoHash], Change]) -> None:
        """The database did not take them; what is newer stands."""
        self._changes = changes | self._changes
