"""Small disks and many titles: placement by heat beside each edge keeping what was asked for last."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from random import Random

from benchmarks.tracker.fleet import START_AT, Zipf, infohash_of
from shared.core.errors import Reason
from shared.core.ids import HostPort, InfoHash, NodeId
from shared.core.messages import Load, Placed, PlaceStage
from tracker.core.edges import Edges
from tracker.core.heat import Heat
from tracker.core.placement import FILLED_PART, Order, Placement

TITLE_BYTES = 1000
STEP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What a way of filling disks came to."""

    hit: float
    fills_an_hour: float


class Shelves:
    """Edges whose disks are filled by orders; the last one is the origin and holds everything."""

    def __init__(self, seed: int, *, titles: int, edges: int, slots: int, asks_an_hour: float) -> None:
        self._rng = Random(seed)
        self._zipf = Zipf(titles, Random(seed + 1))
        self._gap = 3600 / asks_an_hour
        self._now = START_AT
        self._edges = Edges(1e6)  # nobody is silent here
        self._nodes = [NodeId(sha256(b"shelf %d" % n).digest()) for n in range(edges)]
        self._origin = NodeId(sha256(b"origin").digest())
        self._slots = slots
        for node in self._nodes:
            self._edges.joined(node, "", HostPort("192.0.2.1", 4430), self._now)
            room = int(slots * TITLE_BYTES / FILLED_PART) + 1  # as much for orders as the others have in all
            self._edges.loaded(node, Load(1000, 0, room, 0, int(self._now * 1000)), self._now)
        self._heat = Heat()
        self._held: dict[NodeId, set[InfoHash]] = {node: set() for node in self._nodes}
        self._by_title: dict[InfoHash, set[NodeId]] = {}
        self._placement = Placement(self._heat, self._edges, lambda _: TITLE_BYTES, self._holders_of)
        self._fills = 0
        self._pulled: dict[NodeId, OrderedDict[InfoHash, None]] = {n: OrderedDict() for n in self._nodes}

    def run(self, warm_hours: float, hours: float) -> tuple[Kept, Kept]:
        """Hit and fills of placement by heat, and of pulling what is asked for, on the same asks."""
        self._ask(warm_hours)
        fills, heat_hits, pull_hits, pulls, asks = self._fills, 0, 0, 0, 0
        found = self._ask(hours)
        heat_hits, pull_hits, asks = found
        pulls = asks - pull_hits
        return (
            Kept(heat_hits / asks, (self._fills - fills) / hours),
            Kept(pull_hits / asks, pulls / hours),
        )  # fmt: skip

    def _ask(self, hours: float) -> tuple[int, int, int]:
        placed = pulled = asks = 0
        end, step_at = self._now + hours * 3600, self._now
        while self._now < end:
            self._now += self._rng.expovariate(1 / self._gap)
            while step_at <= self._now:
                self._step(step_at)
                step_at += STEP_SECONDS
            infohash = infohash_of(self._zipf.draw())
            self._heat.add(infohash, self._now)
            asks += 1
            placed += bool(self._by_title.get(infohash))
            pulled += self._pull(infohash)
        return placed, pulled, asks

    def _pull(self, infohash: InfoHash) -> bool:
        kept = self._pulled[self._edges.order(infohash)[0].node]
        if infohash in kept:
            kept.move_to_end(infohash)
            return True
        kept[infohash] = None
        if len(kept) > self._slots:
            kept.popitem(last=False)
        return False

    def _step(self, now: float) -> None:
        """All steps of a round at once, if one is due: the cost is not what is measured here."""
        while self._placement.get_timer() <= now:
            for decision in self._placement.step(now):
                if isinstance(decision, Order):
                    self._fill(decision, now)
                else:
                    self._drop(decision.edge, decision.infohash)

    def _fill(self, order: Order, now: float) -> None:
        self._fills += 1
        self._held[order.edge].add(order.infohash)
        self._by_title.setdefault(order.infohash, set()).add(order.edge)
        self._placement.placed(order.edge, Placed(order.number, PlaceStage.HELD, 1000, Reason.NONE), now)
        if len(self._held[order.edge]) > self._slots:
            raise AssertionError("more was ordered than fits")

    def _drop(self, edge: NodeId, infohash: InfoHash) -> None:
        self._held[edge].discard(infohash)
        self._by_title[infohash].discard(edge)

    def _holders_of(self, infohash: InfoHash) -> frozenset[NodeId]:
        return frozenset(self._by_title.get(infohash, ())) | {self._origin}
