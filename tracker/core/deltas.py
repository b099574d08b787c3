"""What a regional tracker tells the central one: all that it holds, then every five seconds what changed.

A round goes over all swarms, LOOKED_AT at a step, so that other work has its turn, and says what differs
enough from what was said: counts that moved by less than a tenth are not worth a message.
"""

from __future__ import annotations

from collections import deque

from shared.core import spare
from shared.core.ids import InfoHash, Kind, TitleId
from shared.core.messages import Entry, Holds, Source, SwarmHeld, Why, Withdrawn
from shared.core.tier_messages import HOLDS_ENTRIES, HOLDS_SWARMS, SWARM_EDGES
from tracker.core.records import KIND_NUMBERS
from tracker.core.tracker import Tracker

ROUND_SECONDS = 5.0
STEP_SECONDS = 0.01  # between two messages of a round: at most 100 a second
LOOKED_AT = 256  # swarms
WORTH_SAYING = 0.1  # of a count
FOREVER = float("inf")


class Deltas:
    """The state as it was said, and what is to be said next."""

    def __init__(self, tracker: Tracker, at: str) -> None:
        """`at`: where others dial this tracker, if it must be said."""
        self._tracker = tracker
        self._at = at
        self.borrowed: set[TitleId] = set()  # titles of other regions, which are not ours to tell
        self.sequence = 0
        self.due_at = FOREVER
        self._told: dict[InfoHash, SwarmHeld] = {}
        self._told_entries: dict[TitleId, Entry] = {}
        self._entries: deque[Entry] = deque()
        self._withdrawn: deque[TitleId] = deque()
        self._swarms: deque[InfoHash] = deque()

    def begin(self, now: float) -> None:
        """The central tier is reached, and knows nothing."""
        self.sequence = 0
        for said in (self._told, self._told_entries, self._entries, self._withdrawn, self._swarms):
            said.clear()
        self._open_round()
        self.due_at = now

    def end(self) -> None:
        """It is gone."""
        self.due_at = FOREVER

    def step(self, now: float) -> Holds | None:
        """The next message, if anything is to be said now."""
        if now < self.due_at:
            return None
        if self.sequence and not self._is_under_way:
            self._open_round()
        swarms = self._changed(now)
        entries = [self._entries.popleft() for _ in range(min(HOLDS_ENTRIES, len(self._entries)))]
        gone = [self._withdrawn.popleft() for _ in range(min(HOLDS_SWARMS, len(self._withdrawn)))]
        self._told_entries.update({entry.title_id: entry for entry in entries})
        self.due_at = now + (STEP_SECONDS if self._is_under_way else ROUND_SECONDS)
        if self.sequence and not (swarms or entries or gone):
            return None
        self.sequence += 1
        is_full = self.sequence == 1 or self._is_full
        self._is_full = is_full and self._is_under_way
        withdrawn = tuple(map(Withdrawn, gone))
        at = self._at if self.sequence == 1 else ""
        return Holds(self.sequence, tuple(entries), tuple(swarms), withdrawn, int(self._is_full), at)

    _is_full = False  # the first round goes on

    @property
    def _is_under_way(self) -> bool:
        return bool(self._entries or self._withdrawn or self._swarms)

    def _open_round(self) -> None:
        tracker, told = self._tracker, self._told_entries
        ours = {
            title_id: entry
            for title_id, entry in tracker.entries.items()
            if title_id not in self.borrowed and tracker.groups.is_open(title_id)
        }
        self._entries.extend(entry for title_id, entry in ours.items() if told.get(title_id) != entry)
        self._withdrawn.extend(title_id for title_id in list(told) if title_id not in ours)
        for title_id in self._withdrawn:
            told.pop(title_id, None)
        self._swarms.extend(dict.fromkeys([*self._told, *tracker.swarms.swarms]))

    def _changed(self, now: float) -> list[SwarmHeld]:
        changed: list[SwarmHeld] = []
        for _ in range(min(LOOKED_AT, len(self._swarms))):
            if len(changed) == HOLDS_SWARMS:
                break
            infohash = self._swarms.popleft()
            held, before = self._held(infohash, now), self._told.get(infohash)
            if not held.edges and not any(held.holders):
                if self._told.pop(infohash, None) is not None:
                    changed.append(held)
            elif before is None or _differ(held, before):
                self._told[infohash] = held
                changed.append(held)
        return changed

    def _held(self, infohash: InfoHash, now: float) -> SwarmHeld:
        tracker = self._tracker
        swarm, entry = tracker.swarms.swarms.get(infohash), tracker.title_of(infohash)
        if swarm is None or entry is None or not tracker.groups.is_open(entry.title_id):
            return SwarmHeld(infohash, (), (), 0)
        states = tracker.edges.states
        able = [
            states[node]
            for node in sorted(tracker.swarms.edges_with(swarm))
            if node in states and not states[node].trouble(now)
        ]
        edges = tuple(
            Source(edge.node, str(edge.at), Kind.EDGE, edge.region, spare.HIGHEST, Why.EDGE_FIRST)
            for edge in sorted(able, key=lambda edge: edge.use)[:SWARM_EDGES]
        )
        counts = [0] * (spare.HIGHEST + 1)
        for key, bucket in swarm.buckets.items():
            if key >> 4 & 0xF != KIND_NUMBERS[Kind.EDGE]:
                counts[key & 0xF] += len(bucket)
        return SwarmHeld(infohash, edges, tuple(counts), int(1000 * tracker.content.heat.of(infohash, now)))


def _differ(held: SwarmHeld, before: SwarmHeld) -> bool:
    places = [{(edge.node, edge.at) for edge in one.edges} for one in (held, before)]
    counts = [(*held.holders, held.heat), (*before.holders, before.heat)]
    return places[0] != places[1] or any(
        abs(new - old) > WORTH_SAYING * max(old, 1) for new, old in zip(*counts, strict=True)
    )
