"""Plans of pre-distribution: titles that are to be on edges before a moment that somebody knows.

A plan becomes *planned heat*: enough of it that the title is among the hottest, from a *lead* before the
release on. The lead is as long as the copies need: all bytes, through what one holder has to spare
or into the slowest edge that shall have them, whichever takes longer, doubled because both are
guesses, and a quarter of an hour for what may go wrong once (an order that is lost is given again after
five minutes, one that is declined after ten). After the release nothing ends abruptly: the planned
heat decays like any other while real demand takes its place, and the plan is over a day later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shared.core.ids import InfoHash, TitleId
from tracker.core.edges import ASSUMED_CAPACITY_RATE, Edges
from tracker.core.heat import Heat, Planned
from tracker.core.titles import Titles

PLANNED_HEAT = 1000.0  # asks; what a release is expected to draw in its first hours
LEAST_LEAD_SECONDS = 900.0
MOST_LEAD_SECONDS = 7 * 86400.0
SAFETY = 2.0
LEAST_SPARE = 0.1  # of a line is taken for copies even while it looks full
LOOK_SECONDS = 15.0  # a round of placement follows while a plan is under way: edges come and go
RELEASED_SECONDS = 86400.0  # after the release a plan is over; its heat is 1/3000 by then


@dataclass(frozen=True, slots=True)
class Plan:
    """One title, wanted on edges before its release."""

    number: int
    title_id: TitleId
    release_at: float
    made_at: float
    edges: int = 0  # how many shall have it; 0: as its heat asks, two at least
    regions: frozenset[str] = frozenset()  # where; empty: anywhere


class Plans:
    """Keeps planned heat in step with plans."""

    def __init__(self, heat: Heat, edges: Edges, titles: Titles) -> None:
        self._heat = heat
        self._edges = edges
        self._titles = titles
        self.open: dict[TitleId, Plan] = {}
        self._injected: dict[TitleId, tuple[InfoHash, ...]] = {}
        self._begun: set[TitleId] = set()
        self._over: list[Plan] = []
        self._look_at = 0.0

    def put(self, plan: Plan) -> None:
        """A plan is in the database; it replaces the title's plan before."""
        self.cancel(plan.title_id)
        self.open[plan.title_id] = plan
        self._look_at = 0.0

    def cancel(self, title_id: TitleId) -> None:
        """The title has no plan any more; what edges fetched for it goes when room is wanted."""
        self.open.pop(title_id, None)
        self._withdraw(title_id)

    def take_over(self) -> list[Plan]:
        """Plans that ended by themselves since the last time."""
        over, self._over = self._over, []
        return over

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return self._look_at if self.open else float("inf")

    def handle_timer(self, now: float) -> bool:
        """Injects planned heat anew; whether placement should look at once, because a plan is under way."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        for plan in list(self.open.values()):
            if now > plan.release_at + RELEASED_SECONDS:
                self.cancel(plan.title_id)
                self._over.append(plan)
            elif plan.release_at - now < MOST_LEAD_SECONDS:
                self._inject(plan, now)
        return any(now < self.open[title_id].release_at for title_id in self._begun)

    def _inject(self, plan: Plan, now: float) -> None:
        hashes = tuple(self._hashes(plan.title_id))
        if self._injected.get(plan.title_id, hashes) != hashes:
            self._withdraw(plan.title_id)  # the title was registered anew
        from_at = plan.release_at - self.lead_seconds(plan)
        if plan.title_id in self._begun:
            from_at = min(from_at, now)  # begun is begun, though the lead may shrink
        elif from_at <= now:
            self._begun.add(plan.title_id)
        for infohash in hashes:
            self._heat.plan(
                infohash, Planned(PLANNED_HEAT, from_at, plan.release_at, plan.edges, plan.regions)
            )
        self._injected[plan.title_id] = hashes

    def _withdraw(self, title_id: TitleId) -> None:
        self._begun.discard(title_id)
        for infohash in self._injected.pop(title_id, ()):
            self._heat.planned.pop(infohash, None)

    def _hashes(self, title_id: TitleId) -> Iterator[InfoHash]:
        entry = self._titles.entries.get(title_id)
        return (rendition.infohash for rendition in entry.renditions) if entry else iter(())

    def lead_seconds(self, plan: Plan) -> float:
        """How long before the release the copies must begin, by what edges can send now."""
        size = sum(self._titles.length_of(infohash) for infohash in self._hashes(plan.title_id))
        all_edges = list(self._edges.states.values())
        near = [e for e in all_edges if e.takes_orders and (not plan.regions or e.region in plan.regions)]
        copies = min(plan.edges, len(near)) if plan.edges else len(near)
        spare = max((max(e.capacity_rate - e.load_rate, LEAST_SPARE * e.capacity_rate) for e in all_edges),
                    default=ASSUMED_CAPACITY_RATE)  # fmt: skip
        slowest = min((e.capacity_rate for e in near), default=ASSUMED_CAPACITY_RATE)
        seconds = max(size * max(copies, 1) / spare, size / slowest)
        return min(MOST_LEAD_SECONDS, LEAST_LEAD_SECONDS + SAFETY * seconds)
