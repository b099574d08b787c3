"""The tracker's core: announces, expiry, buckets, permissions, tickets."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core import tickets
from shared.core.actions import Hangup, Send
from shared.core.errors import Reason, Refused
from shared.core.ids import InfoHash, Kind, Mode, NodeId
from shared.core.messages import (
    Browse,
    Catalogue,
    Describe,
    Entry,
    Event,
    Join,
    Leave,
    Locate,
    Redirect,
    Refusal,
    Registered,
    Report,
    Schedule,
)
from tests.tracker_parts import (
    NOW,
    TRACKER_ID,
    announce,
    ask,
    entry,
    infohash,
    join,
    node,
    orders,
    register,
    title_id,
    tracker,
)
from tracker.core.swarm import CLEARED_AT_ONCE, EXPIRY_INTERVALS, Swarms
from tracker.core.tracker import StoreNode, StoreTitle, Tracker, TrackerAction

EDGE = node("edge")
FILM = entry("film", EDGE)
SWARM = infohash("film")


def reply(actions: list[TrackerAction]) -> object:
    """The one message that was sent."""
    (action,) = actions
    assert isinstance(action, Send)
    return action.message


# -- connections ------------------------------------------------------------------------------


def test_a_hello_is_answered_with_the_schedule_and_recorded() -> None:
    core = tracker()
    join(core, "pc")
    stored, sent = orders(core)
    assert isinstance(stored, StoreNode)
    assert stored.node.id == node("pc")
    assert sent == Send(node("pc"), Schedule(60, 5))


def test_a_node_that_comes_back_or_goes_is_in_no_swarm() -> None:
    core = tracker(FILM)
    for end in (
        lambda: join(core, "pc"),
        lambda: core.disconnected(node("pc"), Reason.NONE, NOW),
    ):
        join(core, "pc")
        ask(core, announce(SWARM), node("pc"))
        assert core.statistics().swarms == 1
        end()
        assert core.statistics().swarms == 0


def test_what_is_not_for_a_tracker_is_refused_or_costs_the_connection() -> None:
    core = tracker()
    join(core, "pc")
    assert ask(core, Leave(SWARM), node("pc")) == [Hangup(node("pc"), Reason.UNEXPECTED, "Leave")]
    assert reply(ask(core, Join(1, SWARM, b"x"), node("pc"))) == Refusal(1, Reason.UNEXPECTED, "Join")


# -- announces --------------------------------------------------------------------------------


def test_announces_of_unknown_swarms_are_passed_over() -> None:
    core = tracker(FILM)
    join(core, "pc")
    assert ask(core, announce(infohash("other")), node("pc")) == []
    assert core.statistics().swarms == 0


@pytest.mark.parametrize(
    "mode, kind, hung_up", [(Mode.DIRECT, Kind.PC, True), (Mode.DIRECT, Kind.EDGE, False)]
)
def test_a_direct_terminal_cannot_have_upload_to_spare(mode: Mode, kind: Kind, hung_up: bool) -> None:
    core = tracker(FILM)
    join(core, "n", kind, mode=mode)
    actions = ask(core, announce(SWARM, spare=1), node("n"))
    assert [type(action) for action in actions] == ([Hangup] if hung_up else [])


def test_more_pieces_than_there_are_cost_the_connection() -> None:
    core = tracker(FILM)
    join(core, "pc")
    (action,) = ask(core, announce(SWARM, held=11, total=10), node("pc"))
    assert isinstance(action, Hangup)
    assert action.reason is Reason.MALFORMED


def members(core: Tracker) -> set[NodeId]:
    return {holder.node for holder in core.swarms.members(core.swarms.swarms[SWARM])}


def test_a_silent_holder_expires_and_one_that_announces_stays() -> None:
    core = tracker(FILM)
    for name in ("silent", "heard"):
        join(core, name)
        ask(core, announce(SWARM), node(name))
    later = NOW + 60 * EXPIRY_INTERVALS
    ask(core, announce(SWARM), node("heard"), now=later - 1)
    core.handle_timer(later - 0.5)
    assert members(core) == {node("silent"), node("heard")}
    core.handle_timer(later + 1)
    assert members(core) == {node("heard")}
    assert core.get_timer() > later


def test_stopped_takes_the_holder_out() -> None:
    core = tracker(FILM)
    join(core, "pc")
    ask(core, announce(SWARM), node("pc"))
    ask(core, announce(SWARM, event=Event.STOPPED), node("pc"))
    assert core.statistics().swarms == 0


REGIONS = ("", "north", "south")
KINDS = (Kind.PC, Kind.STB, Kind.EDGE)
Said = dict[tuple[NodeId, InfoHash], tuple[int, int, float]]  # held, class of spare, until
steps = st.lists(
    st.tuples(
        st.sampled_from(("announce", "stop", "forget", "expire", "move")),
        st.integers(0, 5),  # node
        st.integers(0, 2),  # swarm
        st.integers(0, 3),  # held of 3
        st.integers(0, 7),  # spare
        st.floats(0, 100),  # seconds passed
    ),
    max_size=60,
)


@given(steps)
def test_buckets_hold_exactly_who_can_serve(script: list[tuple[str, int, int, int, int, float]]) -> None:
    """The tables say what a plain dictionary of everything said would say, and every record is in
    exactly one bucket: its own if it has pieces and upload to give, one of class 0 if not."""
    swarms = Swarms(60.0)
    said: Said = {}
    regions = {node(who): REGIONS[who % 3] for who in range(6)}
    now = NOW
    for act, who, which, held, spare, seconds in script:
        now += seconds
        name, swarm = node(who), infohash(which)
        if act == "announce":
            swarms.announce(announce(swarm, held, 3, spare), name, KINDS[who % 3], regions[name], now)
            said[name, swarm] = (held, spare, now + 60 * EXPIRY_INTERVALS)
        elif act == "stop":
            swarms.remove(swarm, name)
            said.pop((name, swarm), None)
        elif act == "forget":
            swarms.forget(name)
            said = {key: value for key, value in said.items() if key[0] != name}
        elif act == "move":
            regions[name] = REGIONS[which]
            swarms.move(name, regions[name])
        else:
            assert not swarms.expire(now)
            assert all(until < now for key, (_, _, until) in said.items() if not swarms.has(key[1], key[0]))
            said = {key: value for key, value in said.items() if swarms.has(key[1], key[0])}
            assert all(until > now - 0.25 for _, _, until in said.values())
        check_swarms(swarms, said, regions)


def check_swarms(swarms: Swarms, said: Said, regions: dict[NodeId, str]) -> None:
    assert set(swarms.swarms) == {swarm for _, swarm in said}, "an empty swarm is forgotten"
    assert swarms.records.count == len(said)
    assert swarms.nodes.count == len({name for name, _ in said}), "who is in no swarm leaves no trace"
    for (name, infohash_), (held, spare, _) in said.items():
        holder = swarms.find(infohash_, name)
        assert holder is not None
        assert (holder.node, holder.held, holder.region) == (name, held, regions[name])
        assert holder.spare == (spare if held else 0)
        assert (infohash_, holder) in swarms.of_node(name)
    for swarm in swarms.swarms.values():
        placed = [record for bucket in swarm.buckets.values() for record in bucket]
        assert len(placed) == len(set(placed)) == swarm.count
        assert swarm.seeders == sum(holder.complete for holder in swarms.members(swarm))
        assert len(swarm.edges) == swarm.count - swarm.viewers
        for key, bucket in swarm.buckets.items():
            assert bucket, "an empty bucket is forgotten"
            for place, record in enumerate(bucket):
                assert swarms.records.place[record] == place
                assert swarms.records.spare[record] == key & 15


@given(st.integers(0, 40), st.integers(1, 50), st.integers(0, 1 << 32))
def test_a_window_stays_in_its_bucket(size: int, wanted: int, seed: int) -> None:
    """Windows give min(wanted, size) different members of each bucket, best and near first."""
    swarms = Swarms(60.0)
    swarms.announce(announce(SWARM, spare=2), node("other"), Kind.PC, "north", NOW)
    for who in range(size):
        swarms.announce(announce(SWARM, spare=3), node(who), Kind.PC, "north", NOW)
    for who in range(size, size + 5):
        swarms.announce(announce(SWARM, spare=3), node(who), Kind.PC, "south", NOW)
    windows = swarms.swarms[SWARM].windows(swarms.region_number("north"), wanted, Random(seed))
    buckets = [({node(who) for who in range(size)}, True)] if size else []
    buckets += [({node("other")}, True), ({node(who) for who in range(size, size + 5)}, False)]
    for (window, is_near), (bucket, expected) in zip(windows, buckets, strict=True):
        drawn = [swarms.holder(record).node for record in window]
        assert len(set(drawn)) == len(drawn) == min(wanted, len(bucket))
        assert set(drawn) <= bucket
        assert is_near is expected


def test_who_leaves_many_swarms_is_in_none_at_once_and_is_cleared_away_bit_by_bit() -> None:
    swarms = Swarms(60.0)
    for number in range(2 * CLEARED_AT_ONCE + 1):
        swarms.announce(announce(infohash(number)), node("edge"), Kind.EDGE, "", NOW)
    swarms.forget(node("edge"))
    assert swarms.count_of(node("edge")) == 0
    assert not any(swarms.edges_with(swarm) for swarm in swarms.swarms.values())
    swarms.announce(announce(infohash(0)), node("edge"), Kind.EDGE, "", NOW)
    assert swarms.edges_with(swarms.swarms[infohash(0)]) == {node("edge")}
    assert [swarms.expire(NOW) for _ in range(3)] == [True, True, False]
    assert (swarms.records.count, swarms.nodes.count, len(swarms.swarms)) == (1, 1, 1)


# -- titles -----------------------------------------------------------------------------------


def test_an_edge_without_permission_cannot_register() -> None:
    core = tracker()
    join(core, "edge", Kind.EDGE)
    answer = reply(ask(core, register(3, FILM), EDGE))
    assert isinstance(answer, Refusal)
    assert (answer.request, answer.reason) == (3, Reason.NOT_ALLOWED)
    assert core.statistics().refusals == 1


@pytest.mark.parametrize("edges, open_to_edges", [({EDGE}, False), (set(), True)])
def test_a_title_counts_only_once_the_database_has_it(edges: set[NodeId], open_to_edges: bool) -> None:
    core = tracker(edges=frozenset(edges), open_to_edges=open_to_edges)
    join(core, "edge", Kind.EDGE)
    (order,) = ask(core, register(3, FILM), EDGE)
    assert order == StoreTitle(FILM, EDGE, 3)
    assert core.statistics().titles == 0
    core.stored(order)
    assert reply(orders(core)) == Registered(3)
    assert core.entries == {FILM.title_id: FILM}
    assert core.title_of(SWARM) == FILM


def test_nobody_takes_over_the_title_or_the_rendition_of_another_edge() -> None:
    core = tracker(FILM, open_to_edges=True)
    join(core, "thief", Kind.EDGE)
    same_title = register(1, FILM)
    same_rendition = register(2, Entry(title_id("mine"), "Mine", node("thief"), FILM.renditions))
    for message in (same_title, same_rendition):
        answer = reply(ask(core, message, node("thief")))
        assert isinstance(answer, Refusal)
        assert answer.reason is Reason.NOT_ALLOWED


def test_the_catalogue_is_paged_newest_first() -> None:
    core = tracker(*(entry(number, EDGE) for number in range(60)))
    join(core, "pc")
    first = reply(ask(core, Browse(1), node("pc")))
    second = reply(ask(core, Browse(2, 25), node("pc")))
    third = reply(ask(core, Browse(4, 50), node("pc")))
    beyond = reply(ask(core, Browse(3, 1000), node("pc")))
    assert isinstance(first, Catalogue)
    assert isinstance(second, Catalogue)
    assert isinstance(third, Catalogue)
    assert isinstance(beyond, Catalogue)
    titles = [e.title for e in first.entries + second.entries + third.entries]
    assert titles == [f"Film {number}" for number in range(59, -1, -1)]
    assert (first.total, beyond.total, beyond.entries) == (60, 60, ())


def test_describe_knows_or_refuses() -> None:
    core = tracker(FILM)
    join(core, "pc")
    assert reply(ask(core, Describe(1, FILM.title_id), node("pc"))) == Catalogue(1, 1, (FILM,))
    answer = reply(ask(core, Describe(2, title_id("other")), node("pc")))
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.UNKNOWN_TITLE


# -- redirects and tickets --------------------------------------------------------------------


def locate(core: Tracker, viewer: NodeId, now: float = NOW) -> Redirect:
    answer = reply(ask(core, Locate(9, SWARM), viewer, now))
    assert isinstance(answer, Redirect)
    return answer


def test_an_unknown_swarm_is_refused() -> None:
    core = tracker(FILM)
    join(core, "pc")
    answer = reply(ask(core, Locate(4, infohash("other")), node("pc")))
    assert answer == Refusal(4, Reason.UNKNOWN_TITLE, "not in the catalogue")


def test_a_redirect_names_the_signer_and_every_source_with_its_reason() -> None:
    core = tracker(FILM, edges=frozenset({EDGE}))
    join(core, "edge", Kind.EDGE)
    join(core, "pretender", Kind.EDGE)
    ask(core, announce(SWARM, spare=7), EDGE)
    ask(core, announce(SWARM, spare=7), node("pretender"))
    join(core, "viewer")
    answer = locate(core, node("viewer"))
    assert (answer.request, answer.infohash, answer.signer) == (9, SWARM, EDGE)
    (source,) = answer.sources
    assert (source.node, source.at, source.kind, source.why) == (EDGE, "192.0.2.1:4430", "edge", "edge-first")


def test_the_ticket_opens_this_swarm_for_this_viewer_until_it_expires() -> None:
    core = tracker(FILM)
    join(core, "viewer")
    viewer = node("viewer")
    ticket = locate(core, viewer).ticket

    def reason(**changed: object) -> Reason:
        asked = {"tracker": TRACKER_ID, "viewer": viewer, "infohash": SWARM, "now": NOW} | changed
        try:
            tickets.check(ticket, **asked)  # type: ignore[arg-type]  # the cases below keep the types
        except Refused as refusal:
            return refusal.reason
        return Reason.NONE

    end = NOW + tickets.TICKET_SECONDS
    assert reason() is Reason.NONE
    assert reason(now=end) is Reason.NONE
    assert reason(now=end + 31) is Reason.TICKET_EXPIRED
    assert reason(viewer=node("thief")) is Reason.TICKET_INVALID
    assert reason(infohash=infohash("other")) is Reason.TICKET_INVALID
    assert reason(tracker=node("other tracker")) is Reason.TICKET_INVALID


def test_totals_count_viewers_and_not_edges() -> None:
    core = tracker(FILM)
    for name, kind in (("edge", Kind.EDGE), ("pc", Kind.PC), ("stb", Kind.STB)):
        join(core, name, kind)
        ask(core, Report(10, 20, 0, 100, 300, 50, 400, 2, 1), node(name))
    statistics = core.statistics()
    assert (statistics.nodes, statistics.viewers, statistics.edges) == (3, 2, 1)
    totals = statistics.totals
    assert (totals.edge_bytes, totals.peer_bytes, totals.up_rate, totals.stalls) == (200, 600, 20, 2)
    assert totals.offload == 0.75
