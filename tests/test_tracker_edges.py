"""Which edges viewers are sent to: load, health, drain, capacity; and what nodes may not do."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.actions import Hangup
from shared.core.errors import Reason
from shared.core.ids import HostPort, Kind, NodeId
from shared.core.messages import Load, Locate, Redirect, Refusal, Why
from tests.test_tracker_core import reply
from tests.tracker_parts import NOW, announce, ask, entry, hello, infohash, join, node, orders, tracker
from tracker.core.edge_choice import EdgeSeen, pick, replicas
from tracker.core.edges import Edges
from tracker.core.tracker import Tracker

FILM = infohash("film")


def edge(name: str, use: float = 0.5, *, near: bool = True, holds: bool = True, fetches: bool = False, trouble: str = "") -> EdgeSeen:  # fmt: skip  # noqa: E501
    return EdgeSeen(name, "", near, 1000.0, 1000.0 * use, holds, fetches, trouble)


def picked(edges: list[EdgeSeen], size: int = 1, fair: float = 0.7, dice: tuple[float, float] = (0.0, 0.0)) -> list[str]:  # fmt: skip  # noqa: E501
    return [edges[n].node for n, _ in pick(edges, size, fair, dice)]


def test_a_title_in_little_demand_meets_the_first_edge_that_holds_it() -> None:
    assert picked([edge("a", holds=False, fetches=True), edge("b"), edge("c")]) == ["b", "c"]
    assert picked([edge("a", trouble="draining"), edge("b"), edge("c")]) == ["b", "c"]
    assert picked([edge("a", use=0.9), edge("b"), edge("c")]) == ["b", "a"]
    assert picked([edge("a", near=False), edge("b")]) == ["b", "a"]


def test_of_two_that_share_a_title_the_less_loaded_is_taken() -> None:
    edges = [edge("a", 0.6), edge("b", 0.2), edge("c", 0.1)]
    assert picked(edges, size=2) == ["b", "a"]
    assert pick(edges, 2, 0.7, (0.0, 0.0))[0][1] is Why.EDGE_LIGHTER
    assert "c" not in {name for roll in (0.0, 0.4, 0.9) for name in picked(edges, 2, dice=(roll, 0.5))}


def test_who_has_to_fetch_is_seconded_by_one_who_holds() -> None:
    edges = [edge("a", holds=False, fetches=True), edge("b", 0.6), edge("c", 0.1, holds=False, fetches=True)]
    assert picked(edges, size=3, dice=(0.0, 0.9)) == ["c", "b"]


edges_seen = st.lists(
    st.builds(
        EdgeSeen,
        node=st.uuids().map(str),
        region=st.just(""),
        near=st.booleans(),
        capacity_rate=st.floats(1, 1e9),
        load_rate=st.floats(0, 1e9),
        holds=st.booleans(),
        fetches=st.booleans(),
        trouble=st.sampled_from(["", "draining"]),
    ),
    max_size=12,
    unique_by=lambda one: one.node,
)


@given(edges_seen, st.integers(1, 12), st.floats(0, 5), st.floats(0, 0.999), st.floats(0, 0.999))
def test_always_two_different_edges_if_there_are_two_that_can(
    edges: list[EdgeSeen], size: int, fair: float, one: float, two: float
) -> None:
    """As many edges as can serve, at most two, all different, able, and near if any near one can."""
    able = {n for n, seen in enumerate(edges) if seen.is_able}
    chosen = [n for n, _ in pick(edges, size, fair, (one, two))]
    assert len(chosen) == len(set(chosen)) == min(2, len(able))
    assert set(chosen) <= able
    if chosen and any(edges[n].near for n in able):
        assert edges[chosen[0]].near


def test_the_set_grows_with_demand() -> None:
    assert [replicas(share, 20) for share in (0.0, 0.001, 0.05, 0.5)] == [1, 1, 15, 20]


def test_edges_get_titles_in_proportion_to_their_capacity() -> None:
    edges = Edges(5.0)
    for number, capacity in enumerate((1000, 1000, 2000, 4000)):
        edges.joined(node(number), "", HostPort("192.0.2.1", 1), NOW)
        edges.loaded(node(number), Load(capacity, 0, 0, 0, int(NOW * 1000)), NOW)
    first = Counter(edges.order(infohash(title))[0].node for title in range(4000))
    assert [first[node(number)] / 500 for number in range(4)] == pytest.approx([1, 1, 2, 4], rel=0.15)


# -- through the tracker ------------------------------------------------------------------------


def core_of(*names: str) -> Tracker:
    core = tracker(entry("film", node(names[0])), edges=frozenset(node(name) for name in names))
    for name in names:
        join(core, name, Kind.EDGE)
        ask(core, announce(FILM, spare=7), node(name))
    join(core, "viewer", Kind.MOBILE)
    return core


def sources(core: Tracker, now: float = NOW) -> set[NodeId]:
    answer = reply(ask(core, Locate(1, FILM), node("viewer"), now))
    assert isinstance(answer, Redirect)
    return {source.node for source in answer.sources}


def load(now: float = NOW, *, clock: float | None = None, draining: int = 0) -> Load:
    return Load(10_000_000, 0, 0, 0, int((now if clock is None else clock) * 1000), draining)


def test_nobody_new_is_sent_to_an_edge_that_drains_and_it_may_come_back() -> None:
    core = core_of("a", "b")
    ask(core, load(draining=1), node("a"))
    assert sources(core) == {node("b")}
    ask(core, load(), node("a"))
    assert sources(core) == {node("a"), node("b")}


def test_an_edge_that_falls_silent_after_it_spoke_of_load_is_passed_over() -> None:
    core = core_of("a", "b")
    ask(core, load(), node("a"))
    assert sources(core, NOW + 10) == {node("a"), node("b")}
    assert sources(core, NOW + 20) == {node("b")}


def test_an_edge_whose_clock_is_far_off_would_refuse_every_ticket_and_is_named() -> None:
    core = core_of("a", "b")
    ask(core, load(clock=NOW - 900), node("a"))
    assert sources(core) == {node("b")}
    assert core.edges.states[node("a")].trouble(NOW) == "its clock is -900 s off ours: set it"


def test_two_edges_with_one_id_are_told_and_leave_no_state() -> None:
    core = tracker(entry("film", node("edge")), edges=frozenset({node("edge")}))
    for second, host in enumerate(("192.0.2.1", "192.0.2.2", "192.0.2.1")):
        orders(core)
        core.connected(node("edge"), HostPort(host, 4430), hello(Kind.EDGE), NOW + second)
    (action,) = orders(core)
    assert isinstance(action, Hangup)
    assert action.reason is Reason.NOT_ALLOWED
    assert action.detail.startswith("two edges with one id, at 192.0.2.2:4430 and 192.0.2.1:4430")
    assert (core.nodes, core.edges.states) == ({}, {})
    assert ask(core, announce(FILM), node("edge")) == []  # what was under way


def test_an_edge_that_moved_once_is_welcome() -> None:
    core = tracker(edges=frozenset({node("edge")}))
    for host in ("192.0.2.1", "192.0.2.2"):
        core.connected(node("edge"), HostPort(host, 4430), hello(Kind.EDGE), NOW)
    assert core.edges.states[node("edge")].at.host == "192.0.2.2"


def test_strangers_leave_no_state() -> None:
    core = core_of("a")
    join(core, "stranger", Kind.EDGE)
    for message in (announce(FILM), announce(infohash("unknown")), load()):
        assert ask(core, message, node("stranger")) == []
    assert node("stranger") not in core.edges.states
    assert (core.swarms.nodes.count, core.swarms.records.count) == (1, 1)


def test_a_node_is_named_at_the_address_it_is_seen_at_whatever_it_says() -> None:
    core = core_of("a")
    core.connected(node("pc"), HostPort("203.0.113.5", 9), hello(Kind.PC), NOW)  # says 192.0.2.9
    ask(core, announce(FILM), node("pc"))
    join(core, "other")
    answer = reply(ask(core, Locate(1, FILM), node("other")))
    assert isinstance(answer, Redirect)
    assert answer.sources[0].at == "203.0.113.5:9"


@pytest.mark.parametrize("held, total", [(11, 10), (5000, 5000), ((1 << 32) - 1, (1 << 32) - 1)])
def test_absurd_counts_cost_the_connection(held: int, total: int) -> None:
    core = core_of("a")
    (action,) = ask(core, announce(FILM, held, total), node("viewer"))
    assert isinstance(action, Hangup)
    assert action.reason is Reason.MALFORMED


def test_a_title_kept_to_groups_gives_tickets_to_their_members_only() -> None:
    core = core_of("a")
    film = core.title_of(FILM)
    assert film is not None
    core.groups.keep(film.title_id, ["family"])
    answer = reply(ask(core, Locate(3, FILM), node("viewer")))
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.NOT_ALLOWED
    core.groups.set_members("family", [node("viewer")])
    assert sources(core) == {node("a")}
    core.groups.set_members("family", [])
    assert isinstance(reply(ask(core, Locate(3, FILM), node("a"))), Redirect)  # its signer
    core.groups.open(film.title_id)
    assert sources(core) == {node("a")}


def test_a_crowd_within_one_report_is_spread_by_what_was_promised() -> None:
    core = core_of("a", "b", "c")
    for name in "abc":
        ask(core, load(), node(name))
    rng, first = Random(1), Counter[NodeId]()
    for number in range(300):
        viewer = join(core, rng.random().hex(), Kind.MOBILE, now=NOW + number / 1000)
        answer = reply(ask(core, Locate(1, FILM), viewer, NOW + number / 1000))
        assert isinstance(answer, Redirect)
        first[answer.sources[0].node] += 1
    assert max(first.values()) < 1.3 * 100
