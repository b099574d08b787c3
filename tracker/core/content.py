"""Which content should be where: demand as it is heard, and the orders that follow from it."""

from __future__ import annotations

from shared.core import spare
from shared.core.dice import Dice
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.messages import Evict, Place, Source, Why
from tracker.core.abroad import Abroad
from tracker.core.answers import Answer
from tracker.core.edges import Edges
from tracker.core.heat import SURGE_SECONDS, Heat, Planned
from tracker.core.placement import Hint, Order, Placement
from tracker.core.plans import Plans
from tracker.core.swarm import Swarms
from tracker.core.titles import Titles

MAX_SOURCES = 8


class Content:
    """Demand, short and long, and placement."""

    def __init__(self, edges: Edges, titles: Titles, swarms: Swarms) -> None:
        self._edges = edges
        self._titles = titles
        self._swarms = swarms
        self.abroad = Abroad()
        self.heat = Heat()
        self._surge = Heat(SURGE_SECONDS)
        self.placement = Placement(self.heat, edges, titles.length_of, self.holders_of)
        self.plans = Plans(self.heat, edges, titles)

    def asked(self, infohash: InfoHash, now: float, count: int = 1) -> None:
        """So many viewers were sent to this rendition."""
        self.heat.add(infohash, now, count)
        self._surge.add(infohash, now, count)

    def share(self, infohash: InfoHash, now: float) -> float:
        """The part of demand that is for this rendition, 0 to 1: lately or of the last minute."""
        return max(self.heat.share(infohash, now), self._surge.share(infohash, now))

    def plan(self, infohash: InfoHash, planned: Planned) -> None:
        """Expects demand, so that the title is placed before it comes."""
        self.heat.plan(infohash, planned)

    def get_timer(self) -> float:
        """When `step` wants to be called."""
        return min(self.placement.get_timer(), self.plans.get_timer())

    def step(self, now: float) -> list[Order | Hint]:
        """Looks after plans, and takes the next step of placement: what is to be said to edges."""
        if self.plans.handle_timer(now):
            self.placement.hurry()
        return self.placement.step(now)

    def whole_on(self, infohash: InfoHash) -> frozenset[NodeId]:
        """The edges that say they hold all of a rendition."""
        swarm = self._swarms.swarms.get(infohash)
        return frozenset(self._swarms.edges_with(swarm) & self._edges.states.keys() if swarm else ())

    def holders_of(self, infohash: InfoHash) -> frozenset[NodeId]:
        """The edges that hold all of a rendition; failing those, the one that made it, if it is here."""
        holders = self.whole_on(infohash)
        entry = self._titles.title_of(infohash)
        if not holders and entry is not None and entry.signer in self._edges.states:
            return frozenset({entry.signer})
        return holders

    def widen(self, answer: Answer, rng: Dice) -> Answer:
        """The answer with edges of other regions, where they are needed: the secondary redirect."""
        infohash = answer.question.infohash
        if not self.abroad.sources(infohash):
            return answer  # as for most: the rest costs more than that
        return self.abroad.widen(answer, self.whole_on(infohash), rng)

    def fetched_by(self, answer: Answer, infohash: InfoHash, now: float) -> list[Order | Hint]:
        """The order to the edge that was chosen for a title which it does not hold."""
        if answer.fetcher is None:
            return []
        order = self.placement.order(answer.fetcher, infohash, now)
        return [order] if order is not None else []

    def say(self, decision: Order | Hint, ticket: bytes) -> Place | Evict | None:
        """The message of a decision; None if there is nobody left to fetch from."""
        if isinstance(decision, Hint):
            return Evict(decision.infohash)
        entry = self._titles.title_of(decision.infohash)
        holders = sorted(self.holders_of(decision.infohash) - {decision.edge})
        abroad = self.abroad.sources(decision.infohash)
        if entry is None or not (holders or abroad):
            return None
        sources = (
            list(abroad)
            if not holders
            else [
                Source(edge.node, str(edge.at), Kind.EDGE, edge.region, spare.HIGHEST, Why.EDGE_FIRST)
                for edge in sorted((self._edges.states[node] for node in holders), key=lambda edge: edge.use)
            ]
        )
        length = self._titles.length_of(decision.infohash)
        return Place(
            decision.number, decision.infohash, entry.signer, length, int(decision.before), ticket,
            tuple(sources[:MAX_SOURCES]),
        )  # fmt: skip
