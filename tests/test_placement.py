"""Heat, its plans, and what the edges are ordered to hold."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.actions import Hangup, Send
from shared.core.errors import Reason
from shared.core.ids import HostPort, InfoHash, Kind, NodeId
from shared.core.messages import Evict, Load, Locate, Place, Placed, PlaceStage, Redirect
from shared.core.tickets import TICKET_SECONDS
from tests.test_portal import get
from tests.tracker_parts import NOW, announce, ask, entry, infohash, join, node, orders, tracker
from tracker.core.edges import Edges
from tracker.core.heat import HEAT_SECONDS, Heat, Planned
from tracker.core.placement import (
    ACKNOWLEDGED_SECONDS,
    DECLINED_SECONDS,
    ORDERS_AT_ONCE,
    ROUND_SECONDS,
    Hint,
    Order,
    Placement,
)
from tracker.core.tracker import Tracker
from tracker.placement_view import placement

FILM = infohash("film")
TITLE_BYTES = 1000


# -- heat ---------------------------------------------------------------------------------------


ASKS = st.lists(st.tuples(st.floats(0, 20_000), st.floats(0.1, 5)), max_size=40)  # after so long, amount


@given(ASKS, st.floats(0, 50_000))
def test_heat_is_the_sum_of_all_asks_each_decayed_by_its_age(
    asks: list[tuple[float, float]], after: float
) -> None:
    """Lazily or not, heat is the sum over asks of amount * exp(-age / constant), and so is the total."""
    heat, now, said = Heat(), NOW, []
    for gap, amount in asks:
        now += gap
        heat.add(FILM, now, amount)
        said.append((now, amount))
    now += after
    exact = sum(amount * exp(-(now - at) / HEAT_SECONDS) for at, amount in said)
    assert heat.of(FILM, now) == pytest.approx(exact)
    assert heat.total(now) == pytest.approx(exact)
    assert heat.of(FILM, now - 10_000 - after) <= sum(amount for _, amount in said) + 1e-9  # clocks step back


def test_planned_heat_counts_in_full_until_the_release_and_decays_from_there() -> None:
    heat = Heat()
    heat.plan(FILM, Planned(heat=100.0, from_at=NOW + 10, release_at=NOW + 10_000))
    assert heat.of(FILM, NOW) == 0
    assert heat.of(FILM, NOW + 10) == heat.of(FILM, NOW + 10_000) == 100
    assert heat.of(FILM, NOW + 10_000 + HEAT_SECONDS) == pytest.approx(100 / exp(1))
    assert list(heat.warm(NOW)) == [FILM]
    assert list(heat.warm(NOW + 20 * HEAT_SECONDS)) == []


def test_what_went_cold_is_forgotten() -> None:
    heat = Heat()
    for number in range(3000):
        heat.add(infohash(number), NOW + number * 1000)
    assert len(list(heat.warm(NOW + 3_000_000))) < 1500


# -- placement ----------------------------------------------------------------------------------


class Shelf:
    """Placement with one edge of room for `slots` titles, and an origin that holds all of them."""

    def __init__(self, slots: float) -> None:
        self.heat, self.edges, self.now = Heat(), Edges(1e9), NOW
        self.held: set[InfoHash] = set()
        self.origin_holds = True
        self.edges.joined(node("edge"), "", HostPort("192.0.2.1", 4430), NOW)
        self.edges.loaded(
            node("edge"), Load(1000, 0, int(slots * TITLE_BYTES / 0.9) + 1, 0, int(NOW * 1000)), NOW
        )
        self.placement = Placement(self.heat, self.edges, lambda _: TITLE_BYTES, self.holders)

    def holders(self, name: InfoHash) -> frozenset[NodeId]:
        edge = {node("edge")} if name in self.held else set()
        return frozenset(edge if edge and not self.origin_holds else edge | {node("origin")})

    def round(self, *, obey: bool = True) -> list[Order | Hint]:
        """All steps of the next round."""
        self.now += ROUND_SECONDS
        said: list[Order | Hint] = []
        while self.placement.get_timer() <= self.now:
            said += self.placement.step(self.now)
        for order in said:
            if obey and isinstance(order, Order):
                self.held.add(order.infohash)
                self.placed(order, PlaceStage.HELD)
        return said

    def placed(self, order: Order, stage: PlaceStage) -> bool:
        return self.placement.placed(order.edge, Placed(order.number, stage, 0, Reason.NONE), self.now)

    def want(self, name: str, heat: float) -> None:
        self.heat.add(infohash(name), self.now, heat)


def names(said: list[Order | Hint]) -> list[tuple[str, InfoHash]]:
    return [("order" if isinstance(one, Order) else "hint", one.infohash) for one in said]


def test_the_hottest_fill_the_disk_and_the_threshold_is_what_did_not_fit() -> None:
    shelf = Shelf(slots=2)
    for name, heat in (("a", 10), ("b", 30), ("c", 20), ("cold", 1)):
        shelf.want(name, heat)
    assert names(shelf.round()) == [("order", infohash("b")), ("order", infohash("c"))]
    assert shelf.placement.thresholds[node("edge")] == pytest.approx(10 / TITLE_BYTES, rel=0.02)
    assert shelf.round() == []


def test_a_newcomer_must_be_so_much_hotter_than_what_it_drives_out() -> None:
    shelf = Shelf(slots=1)
    shelf.want("a", 100)
    shelf.round()
    shelf.want("b", 125)
    assert shelf.round() == []
    shelf.want("b", 10)
    assert names(shelf.round()) == [("hint", infohash("a")), ("order", infohash("b"))]


def test_the_last_copy_is_never_hinted_away() -> None:
    shelf = Shelf(slots=1)
    shelf.want("a", 100)
    shelf.round()
    shelf.origin_holds = False
    shelf.want("b", 200)
    assert names(shelf.round()) == [("order", infohash("b"))]


def test_orders_are_few_at_once_and_not_repeated_while_one_is_open_or_was_declined() -> None:
    shelf = Shelf(slots=20)
    for number in range(10):
        shelf.want(str(number), 100 - number)
    first = shelf.round(obey=False)
    assert len(first) == ORDERS_AT_ONCE
    for order in first:
        assert isinstance(order, Order)
        assert shelf.placed(order, PlaceStage.DECLINED)
    second = shelf.round(obey=False)
    assert len(second) == ORDERS_AT_ONCE
    assert not {one.infohash for one in second} & {one.infohash for one in first}
    counts = shelf.placement.statistics()
    assert (counts.orders, counts.declined, counts.open) == (8, 4, 4)
    shelf.now += DECLINED_SECONDS + ACKNOWLEDGED_SECONDS
    assert {one.infohash for one in shelf.round()} == {one.infohash for one in first}


def test_nobody_answers_for_the_order_of_another() -> None:
    shelf = Shelf(slots=2)
    shelf.want("a", 10)
    (order,) = shelf.round(obey=False)
    assert isinstance(order, Order)
    message = Placed(order.number, PlaceStage.HELD, 1000, Reason.NONE)
    assert not shelf.placement.placed(node("thief"), message, shelf.now)
    assert not shelf.placement.placed(order.edge, Placed(99, PlaceStage.HELD, 1, Reason.NONE), shelf.now)


def test_a_round_goes_in_small_steps() -> None:
    shelf = Shelf(slots=1000)
    for number in range(950):
        shelf.want(str(number), 10)
    steps = 0
    shelf.now += ROUND_SECONDS
    while shelf.placement.get_timer() <= shelf.now:
        shelf.placement.step(shelf.now)
        steps += 1
    assert steps >= 10


# -- through the tracker ------------------------------------------------------------------------


def core_with_edges() -> Tracker:
    """An origin that holds a film, and an edge that takes orders."""
    core = tracker(entry("film", node("origin")), edges=frozenset({node("origin"), node("edge")}))
    for name, quota in (("origin", 0), ("edge", 1 << 40)):
        join(core, name, Kind.EDGE)
        ask(core, Load(10_000_000, 0, quota, 0, int(NOW * 1000)), node(name))
    ask(core, announce(FILM, spare=7), node("origin"))
    return core


def said(actions: Sequence[object], kind: type) -> list[object]:
    return [one.message for one in actions if isinstance(one, Send) and isinstance(one.message, kind)]


async def test_a_planned_title_is_ordered_ahead_acknowledged_and_seen_in_the_api() -> None:
    core = core_with_edges()
    core.content.plan(FILM, Planned(1000.0, NOW + 100, NOW + 5000))
    core.handle_timer(NOW + 50)
    assert said(orders(core), Place) == []
    for name, quota in (("origin", 0), ("edge", 1 << 40)):
        ask(core, Load(10_000_000, 0, quota, 0, int(NOW * 1000) + 119_000), node(name), NOW + 119)
    for step in range(5):
        core.handle_timer(NOW + 120 + step)
    (place,) = said(orders(core), Place)
    assert isinstance(place, Place)
    assert (place.infohash, place.before) == (FILM, int(NOW + 5000))
    assert [source.node for source in place.sources] == [node("origin")]
    ask(core, Placed(place.order, PlaceStage.FETCHING, 500, Reason.NONE), node("edge"))
    (warm,) = placement(core, NOW + 130).heat
    assert (warm.planned_heat, warm.planned_release_at, warm.edges) == (1000.0, NOW + 5000, 1)
    seen = await get(core, "/api/v1/placement")
    (order,) = seen["latest"]
    assert (order["stage"], order["permille"], order["before_at"]) == ("fetching", 500, NOW + 5000)
    assert {edge["node"] for edge in seen["edges"]} == {node("origin").hex(), node("edge").hex()}


def test_a_title_whose_edge_drains_is_fetched_by_the_edge_that_was_chosen() -> None:
    core = core_with_edges()
    ask(core, Load(10_000_000, 0, 0, 0, int(NOW * 1000), draining=1), node("origin"))
    join(core, "viewer")
    actions = ask(core, Locate(1, FILM), node("viewer"))
    (place,) = said(actions, Place)
    assert isinstance(place, Place)
    assert (place.before, [source.node for source in place.sources]) == (0, [node("origin")])
    join(core, "other")
    assert said(ask(core, Locate(1, FILM), node("other")), Place) == []  # it is on its way


def test_nobody_is_sent_to_an_edge_that_declined_to_fetch() -> None:
    core = core_with_edges()
    ask(core, Load(10_000_000, 0, 0, 0, int(NOW * 1000), draining=1), node("origin"))
    join(core, "viewer", Kind.MOBILE)
    (place,) = said(ask(core, Locate(1, FILM), node("viewer")), Place)
    assert isinstance(place, Place)
    ask(core, Placed(place.order, PlaceStage.DECLINED, 0, Reason.NO_SPACE), node("edge"))
    (answer,) = said(ask(core, Locate(2, FILM), node("viewer")), Redirect)
    assert isinstance(answer, Redirect)
    assert answer.sources == ()


def test_an_answer_to_no_order_costs_the_connection() -> None:
    core = core_with_edges()
    (action,) = ask(core, Placed(7, PlaceStage.HELD, 1000, Reason.NONE), node("edge"))
    assert action == Hangup(node("edge"), Reason.UNEXPECTED, "there is no order 7 for this edge")


def test_an_order_is_repeated_with_a_fresh_ticket_before_the_old_one_runs_out() -> None:
    core = core_with_edges()
    ask(core, Load(10_000_000, 0, 0, 0, int(NOW * 1000), draining=1), node("origin"))
    join(core, "viewer")
    (place,) = said(ask(core, Locate(1, FILM), node("viewer")), Place)
    assert isinstance(place, Place)
    progress = Placed(place.order, PlaceStage.FETCHING, 10, Reason.NONE)
    assert ask(core, progress, node("edge"), NOW + TICKET_SECONDS / 2 - 1) == []
    (again,) = said(ask(core, progress, node("edge"), NOW + TICKET_SECONDS / 2), Place)
    assert isinstance(again, Place)
    assert again.order == place.order
    assert again.ticket != place.ticket
    assert ask(core, progress, node("edge"), NOW + TICKET_SECONDS / 2 + 1) == []


def test_an_answer_to_an_order_that_was_forgotten_meanwhile_costs_nothing() -> None:
    core = core_with_edges()
    ask(core, Load(10_000_000, 0, 0, 0, int(NOW * 1000), draining=1), node("origin"))
    join(core, "viewer")
    (place,) = said(ask(core, Locate(1, FILM), node("viewer")), Place)
    assert isinstance(place, Place)
    core.content.placement.left(node("edge"), NOW)
    assert ask(core, Placed(place.order, PlaceStage.HELD, 1000, Reason.NONE), node("edge")) == []


def test_an_edge_that_comes_back_before_it_was_missed_is_ordered_anew() -> None:
    core = core_with_edges()
    ask(core, Load(10_000_000, 0, 0, 0, int(NOW * 1000), draining=1), node("origin"))
    join(core, "viewer")
    (place,) = said(ask(core, Locate(1, FILM), node("viewer")), Place)
    assert isinstance(place, Place)
    ask(core, Placed(place.order, PlaceStage.FETCHING, 500, Reason.NONE), node("edge"))
    join(core, "edge", Kind.EDGE)
    ask(core, Load(10_000_000, 0, 10**9, 0, int(NOW * 1000)), node("edge"))
    (again,) = said(ask(core, Locate(2, FILM), node("viewer")), Place)
    assert isinstance(again, Place)
    assert again.order > place.order


def test_a_hint_travels_as_evict() -> None:
    core = core_with_edges()
    assert core.content.say(Hint(node("edge"), FILM), b"t") == Evict(FILM)
