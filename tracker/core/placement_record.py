"""What changed in placement since the database was told: for the record, nothing is decided by it."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    has_moved: bool = False  # it stood otherwise in between, since the database was told


class PlacementRecord:
    """Changes in memory, the latest of each edge and rendition."""

    def __init__(self) -> None:
        self._changes: dict[tuple[NodeId, InfoHash], Change] = {}

    def note(self, edge: NodeId, infohash: InfoHash, change: Change) -> None:
        """Takes one change; one that is told without an order belongs to the order that is known."""
        before = self._changes.get((edge, infohash))
        if before is not None:
            change = _after(before, change)
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
        newer, self._changes = self._changes, changes
        for (edge, infohash), change in newer.items():
            self.note(edge, infohash, change)


def _after(before: Change, change: Change) -> Change:
    stays = before.stage == change.stage
    known = change if change.ordered_at else before
    return replace(
        change,
        at=before.at if stays else change.at,
        ordered_at=known.ordered_at,
        before_at=known.before_at,
        has_moved=before.has_moved or not stays,
    )
