"""What titles are used, until the database has it: by title, region and day (in UTC).

Two kinds of figures. Redirects and viewers are counted here, once per Locate. Bytes are nodes' own
counters out of their Reports, per rendition and since the beginning of a *run* of the node; they are
passed on as they are, the latest of each, and only the database takes the difference to what it has
counted before. So a counter may be told twice, or to two trackers' lives, and is counted once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.core.ids import InfoHash, NodeId, TitleId
from shared.core.messages import TERMINALS, Report
from tracker.core.nodes import Node
from tracker.core.titles import Titles

DAY_SECONDS = 86400
MOST_WAITING = 200_000  # of each kind, while the database takes nothing


@dataclass(frozen=True, slots=True)
class Counters:
    """A node's counters of one rendition, and to whom the difference goes."""

    title_id: TitleId
    region: str
    day: int
    edge_bytes: int
    peer_bytes: int
    uploaded_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What was heard since the last batch."""

    redirects: dict[tuple[int, TitleId, str], int] = field(default_factory=dict)
    viewers: dict[tuple[int, TitleId, NodeId], str] = field(default_factory=dict)  # to the region
    counters: dict[tuple[NodeId, int, InfoHash], Counters] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.redirects or self.viewers or self.counters)


class Usage:
    """Counts in memory what the database will add up."""

    def __init__(self, titles: Titles) -> None:
        self._titles = titles
        self._batch = Batch()
        self.dropped = 0  # not counted, because the database took nothing for too long

    def redirected(self, node: Node, title_id: TitleId, now: float) -> None:
        """A terminal was told where a title is."""
        if node.kind not in TERMINALS:
            return
        day, batch = int(now // DAY_SECONDS), self._batch
        place = (day, title_id, node.region)
        if self._has_room(place in batch.redirects, len(batch.redirects)):
            batch.redirects[place] = batch.redirects.get(place, 0) + 1
        viewer = (day, title_id, node.id)
        if self._has_room(viewer in batch.viewers, len(batch.viewers)):
            batch.viewers.setdefault(viewer, node.region)

    def reported(self, node: Node, report: Report, now: float) -> None:
        """A terminal told its counters; those of renditions that nobody registered are passed over."""
        if node.kind not in TERMINALS:
            return
        for use in report.uses:
            entry = self._titles.title_of(use.infohash)
            key = (node.id, report.run, use.infohash)
            known = key in self._batch.counters
            if entry is not None and self._has_room(known, len(self._batch.counters)):
                before = self._batch.counters.pop(key, None)  # the latest stands last
                place = entry.title_id, node.region, int(now // DAY_SECONDS)
                told = use.edge_bytes, use.peer_bytes, use.uploaded_bytes
                if before is not None:  # a datagram may come late: counters only grow
                    last = before.edge_bytes, before.peer_bytes, before.uploaded_bytes
                    told = max(told[0], last[0]), max(told[1], last[1]), max(told[2], last[2])
                self._batch.counters[key] = Counters(*place, *told)

    def _has_room(self, known: bool, size: int) -> bool:
        room = known or size < MOST_WAITING
        self.dropped += not room
        return room

    def take(self) -> Batch:
        """What is to be written."""
        batch, self._batch = self._batch, Batch()
        return batch

    def give_back(self, batch: Batch) -> None:
        """The database did not take it; what was heard since is newer."""
        newer = self._batch
        for place, count in newer.redirects.items():
            batch.redirects[place] = batch.redirects.get(place, 0) + count
        for viewer, region in newer.viewers.items():
            batch.viewers.setdefault(viewer, region)
        self._batch = Batch(batch.redirects, batch.viewers, batch.counters | newer.counters)
