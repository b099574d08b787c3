"""Placement: which titles the edges' disks hold, ahead of being asked.

Every edge fills its room with the hottest of the titles whose rendezvous set it belongs to, by heat
per byte. The heat of the last that fits is the *threshold*: it moves with demand and disks, nobody
sets it. What an edge has counts 1.3 times (hysteresis): a newcomer must be that much hotter than what
it drives out, or two titles of equal heat would be fetched in turn for ever. What no longer belongs
is hinted as the first to go, unless it is the last copy; the edge deletes when it wants the room.
A title with a plan comes before all others until its release, on as many edges and where the plan says:
somebody decided that.

A *round* goes over all warm titles in small steps, so that it never keeps the tracker's others waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from shared.core.errors import Reason
from shared.core.ids import InfoHash, NodeId
from shared.core.messages import Placed, PlaceStage
from shared.core.tickets import TICKET_SECONDS
from tracker.core.edge_choice import replicas
from tracker.core.edges import Edges, EdgeState
from tracker.core.heat import Heat, Planned
from tracker.core.placement_record import LOST, ORDERED, Change, PlacementRecord

HYSTERESIS = 1.3
PLACED_SPREAD = 3.0  # copies of what is hot cost others their place; the rest of its set fetches on demand
FILLED_PART = 0.9  # of an edge's room; the rest is for what it fetches on demand
LEAST_PLANNED = 2  # copies where a plan says no number: one edge may go down at the release
LEAST_HEAT = 2.0  # one viewer alone is no demand
ROUND_SECONDS = 60.0
TITLES_A_STEP = 100
ORDERS_AT_ONCE = 4  # per edge
ACKNOWLEDGED_SECONDS = 30.0
PROGRESS_SECONDS = 300.0
DECLINED_SECONDS = 600.0  # until an edge is asked again for what it declined
CLOSED_SECONDS = 3600.0  # how long an order that has ended is remembered
OPEN = (PlaceStage.ACCEPTED, PlaceStage.FETCHING)


@dataclass(slots=True)
class Order:
    """One order to one edge."""

    number: int
    edge: NodeId
    infohash: InfoHash
    heat: float
    given_at: float
    before: float = 0.0  # seconds since 1970; 0: viewers are waiting, or will be
    stage: PlaceStage | None = None  # None: not acknowledged yet
    permille: int = 0
    reason: Reason = Reason.NONE
    heard_at: float = 0.0
    said_at: float = 0.0  # when its ticket was issued

    def is_open(self, now: float) -> bool:
        """Whether the edge may still be at work on it."""
        if self.stage is None:
            return now - self.given_at < ACKNOWLEDGED_SECONDS
        return self.stage in OPEN and now - self.heard_at < PROGRESS_SECONDS


@dataclass(frozen=True, slots=True)
class Hint:
    """This edge may give that title up first."""

    edge: NodeId
    infohash: InfoHash


@dataclass(frozen=True, slots=True)
class PlacementStatistics:
    """Orders given since the start, by how they ended, and the heat per byte at each boundary."""

    orders: int
    held: int
    declined: int
    lost: int
    hints: int
    open: int
    thresholds: dict[NodeId, float]


@dataclass(slots=True)
class _Shelf:
    """What might stand on one edge's disk."""

    wanted: list[tuple[float, InfoHash]] = field(default_factory=list)  # heat per byte
    planned: set[InfoHash] = field(default_factory=set)  # which go first


class Placement:
    """Plans rounds and follows orders."""

    def __init__(
        self,
        heat: Heat,
        edges: Edges,
        length_of: Callable[[InfoHash], int],
        holders_of: Callable[[InfoHash], frozenset[NodeId]],
    ) -> None:
        """`length_of`: bytes of a rendition, 0 if there is none; `holders_of`: edges that have it whole."""
        self._heat = heat
        self._edges = edges
        self._length_of = length_of
        self._holders_of = holders_of
        self._number = 0
        self._round: Iterator[Order | Hint | None] | None = None
        self._next_round_at = 0.0
        self.orders: dict[tuple[NodeId, InfoHash], Order] = {}  # the latest of each edge and title
        self._by_number: dict[int, Order] = {}
        self._shelved: dict[NodeId, set[InfoHash]] = {}  # what the last round wanted where
        self._held = self._declined = self._lost = self._hints = 0
        self.thresholds: dict[NodeId, float] = {}
        self.planned_for: dict[InfoHash, tuple[NodeId, ...]] = {}  # the edges that plans want titles on
        self.record = PlacementRecord()

    # -- orders ---------------------------------------------------------------------------------

    def order(self, edge: NodeId, infohash: InfoHash, now: float, before: float = 0.0) -> Order | None:
        """An order for this edge, or None if one is open, or was declined just now."""
        known = self.orders.get((edge, infohash))
        if known is not None:
            if known.is_open(now):
                return None
            if known.stage is PlaceStage.DECLINED and now - known.heard_at < DECLINED_SECONDS:
                return None
            self._forget(known, now)
        self._number += 1
        heat = self._heat.of(infohash, now)
        order = Order(self._number, edge, infohash, heat, now, before, said_at=now)
        self.orders[edge, infohash] = self._by_number[order.number] = order
        self.record.note(edge, infohash, Change(ORDERED, now, "", now, before))
        return order

    def placed(self, edge: NodeId, message: Placed, now: float) -> bool:
        """An edge says how far it is; False if it was not ordered so."""
        order = self._by_number.get(message.order)
        if order is None and message.order <= self._number:
            return True  # given once, and forgotten while the answer was on its way
        if order is None or order.edge != edge:
            return False
        if order.stage is not message.stage:
            self._held += message.stage is PlaceStage.HELD
            self._declined += message.stage is PlaceStage.DECLINED
        if message.stage is PlaceStage.DECLINED:
            self._edges.decline(edge, order.infohash, now + DECLINED_SECONDS)
        order.stage, order.permille, order.reason = message.stage, message.permille, message.reason
        order.heard_at = now
        reason = "" if order.reason is Reason.NONE else order.reason.name.lower()
        change = Change(order.stage.value, now, reason, order.given_at, order.before)
        self.record.note(edge, order.infohash, change)
        return True

    def renewed(self, number: int, now: float) -> list[Order]:
        """The order, if its edge is still at work and will soon need a fresh ticket: then it is repeated."""
        order = self._by_number.get(number)
        if order is None or order.stage not in OPEN or now - order.said_at < TICKET_SECONDS / 2:
            return []
        order.said_at = now
        return [order]

    def left(self, edge: NodeId, now: float) -> None:
        """An edge is gone; it will say anew what it holds."""
        for order in [order for order in self.orders.values() if order.edge == edge]:
            self._forget(order, now)
        self._shelved.pop(edge, None)
        self.thresholds.pop(edge, None)

    def _forget(self, order: Order, now: float) -> None:
        if order.stage is None or order.stage in OPEN:
            self._lost += 1
            change = Change(LOST, now, "", order.given_at, order.before)
            self.record.note(order.edge, order.infohash, change)
        del self.orders[order.edge, order.infohash]
        del self._by_number[order.number]

    # -- rounds ---------------------------------------------------------------------------------

    def hurry(self) -> None:
        """The next round begins at once."""
        self._next_round_at = 0.0

    def get_timer(self) -> float:
        """When `step` wants to be called."""
        return self._next_round_at if self._round is None else 0.0

    def step(self, now: float) -> list[Order | Hint]:
        """The next step of a round: what is to be said to edges."""
        if self._round is None:
            if now < self._next_round_at:
                return []
            self._round = self._plan(now)
        said: list[Order | Hint] = []
        for decision in self._round:
            if decision is None:
                return said
            said.append(decision)
        self._round = None
        self._next_round_at = now + ROUND_SECONDS
        return said

    def _plan(self, now: float) -> Iterator[Order | Hint | None]:
        """One round; None marks the end of a step."""
        for order in list(self.orders.values()):
            if not order.is_open(now) and now - max(order.given_at, order.heard_at) > CLOSED_SECONDS:
                self._forget(order, now)
        planned = self._heat.planned
        self.planned_for = {name: nodes for name, nodes in self.planned_for.items() if name in planned}
        shelves = {node: _Shelf() for node, edge in self._edges.states.items() if self._may_fill(edge, now)}
        for number, infohash in enumerate(self._heat.warm(now)):
            self._shelve(infohash, shelves, now)
            if number % TITLES_A_STEP == TITLES_A_STEP - 1:
                yield None
        for node, shelf in shelves.items():
            edge = self._edges.states.get(node)
            if edge is not None:
                yield from self._fill(edge, shelf, now)
                yield None

    def _may_fill(self, edge: EdgeState, now: float) -> bool:
        return edge.takes_orders and not edge.trouble(now)

    def _shelve(self, infohash: InfoHash, shelves: dict[NodeId, _Shelf], now: float) -> None:
        heat, length = self._heat.of(infohash, now), self._length_of(infohash)
        if heat < LEAST_HEAT or not length:
            self.planned_for.pop(infohash, None)
            return
        able = [edge for edge in self._edges.order(infohash) if edge.node in shelves]
        planned, asked = self._heat.planned.get(infohash), heat
        chosen: set[NodeId] = set()
        if planned is not None and now >= planned.from_at:
            asked = self._heat.asked(infohash, now)
            chosen.update(self._shelve_planned(infohash, planned, able, shelves, now))
        else:
            self.planned_for.pop(infohash, None)
        if asked >= LEAST_HEAT:
            share = asked / (asked + self._heat.total(now))
            chosen.update(edge.node for edge in able[: _copies(share, len(able))])
        for node in chosen:
            shelves[node].wanted.append((heat / length, infohash))

    def _shelve_planned(
        self,
        infohash: InfoHash,
        planned: Planned,
        able: Sequence[EdgeState],
        shelves: dict[NodeId, _Shelf],
        now: float,
    ) -> tuple[NodeId, ...]:
        heat = self._heat.of(infohash, now)
        nodes = tuple(planned_set(planned, able, heat / (heat + self._heat.total(now))))
        self.planned_for[infohash] = nodes
        if now < planned.release_at:
            for node in nodes:
                shelves[node].planned.add(infohash)
        return nodes

    def _fill(self, edge: EdgeState, shelf: _Shelf, now: float) -> Iterator[Order | Hint]:
        shelved, self._shelved[edge.node] = self._shelved.get(edge.node, set()), set()
        ranked = sorted(
            (
                (density * (HYSTERESIS if infohash in shelved else 1.0), infohash)
                for density, infohash in shelf.wanted
            ),
            key=lambda title: (title[1] in shelf.planned, title),
            reverse=True,
        )
        room, chosen = FILLED_PART * edge.quota_bytes, self._shelved[edge.node]
        self.thresholds[edge.node] = 0.0
        for density, infohash in ranked:
            length = self._length_of(infohash)
            if length > room:
                self.thresholds[edge.node] = max(self.thresholds[edge.node], density)
                continue
            room -= length
            chosen.add(infohash)
        yield from self._hint(edge, shelved - chosen)
        missing = [infohash for _, infohash in ranked if infohash in chosen]
        yield from self._give(edge, missing, now)

    def _hint(self, edge: EdgeState, dropped: set[InfoHash]) -> Iterator[Hint]:
        for infohash in sorted(dropped):
            holders = self._holders_of(infohash)
            if edge.node in holders and len(holders) > 1:  # never the last copy
                self._hints += 1
                yield Hint(edge.node, infohash)

    def _give(self, edge: EdgeState, wanted: list[InfoHash], now: float) -> Iterator[Order]:
        busy = sum(order.is_open(now) for order in self.orders.values() if order.edge == edge.node)
        for infohash in wanted:
            if busy >= ORDERS_AT_ONCE:
                return
            holders = self._holders_of(infohash)
            if edge.node in holders or not holders:
                continue
            order = self.order(edge.node, infohash, now, self._before(infohash, now))
            if order is not None:
                busy += 1
                yield order

    def _before(self, infohash: InfoHash, now: float) -> float:
        planned = self._heat.planned.get(infohash)
        return planned.release_at if planned is not None and planned.release_at > now else 0.0

    def statistics(self) -> PlacementStatistics:
        """A snapshot for the API."""
        return PlacementStatistics(
            orders=self._number,
            held=self._held,
            declined=self._declined,
            lost=self._lost,
            hints=self._hints,
            open=sum(order.stage is None or order.stage in OPEN for order in self.orders.values()),
            thresholds=dict(self.thresholds),
        )


def _copies(share: float, edges: int) -> int:
    return replicas(share, edges, PLACED_SPREAD)


def planned_set(planned: Planned, able: Sequence[EdgeState], share: float) -> list[NodeId]:
    """The edges that a plan wants a title on, of those that take orders, in the title's order.

    `share` is what the title's heat, planned heat included, is of all.
    """
    if planned.edges:
        return [edge.node for edge in able[: planned.edges]]
    chosen: list[NodeId] = []
    for region in sorted(planned.regions) or ("",):
        near = [edge.node for edge in able if not planned.regions or edge.region == region]
        chosen += near[: max(LEAST_PLANNED, _copies(share, len(near)))]
    return chosen
