"""Whatever a tracker says to the central tier harms at most itself: named errors, bounds, no state."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import messages
from shared.core.actions import Hangup, Send
from shared.core.errors import Reason
from shared.core.ids import HostPort, Kind
from shared.core.messages import (
    Announce,
    Browse,
    Catalogue,
    Entry,
    Event,
    Fellows,
    Found,
    Holds,
    Locate,
    Message,
    Redirect,
    Refusal,
    Seek,
    Source,
    SwarmHeld,
    Why,
)  # fmt: skip
from tests import wire
from tests.test_tiers import FILM, SWARM, two
from tests.tier_parts import Tiers, id_of
from tests.tracker_parts import NOW, entry, hello, infohash, node, tracker
from tracker.core.central import HOLDS_BURST, Central, Note

NORTH, SOUTH = node("north"), node("south")
AT = HostPort("192.0.2.1", 4430)


def central() -> Central:
    """With two regional trackers connected."""
    core = Central([NORTH, SOUTH])
    for regional in (NORTH, SOUTH):
        core.connected(regional, AT, hello(Kind.TRACKER, "here"), NOW)
    return core


def told(core: Central, *said: Message, sender: bytes = NORTH, now: float = NOW) -> list[object]:
    for message in said:
        core.receive(message, sender, now)  # type: ignore[arg-type]
    return list(iter(core.next_action, None))


def held(edge: str = "edge", at: str = "192.0.2.7:4431", kind: Kind = Kind.EDGE) -> SwarmHeld:
    return SwarmHeld(SWARM, (Source(node(edge), at, kind, "", 7, Why.EDGE_FIRST),), (0,) * 8, 0)


def hangups(actions: list[object]) -> list[Reason]:
    return [action.reason for action in actions if isinstance(action, Hangup)]


@pytest.mark.parametrize("kind", Kind)
def test_a_stranger_gets_no_state_and_no_answer(kind: Kind) -> None:
    core = central()
    told(core)
    core.connected(node("stranger"), AT, hello(kind), NOW)
    actions = told(core, Holds(1, (FILM,), (held(),)), Browse(1), sender=node("stranger"))
    assert hangups(actions) == [Reason.NOT_ALLOWED]
    assert not any(isinstance(action, Send) for action in actions)
    assert node("stranger") not in core.regions


def test_a_tracker_takes_no_tracker_that_is_not_its_central_one() -> None:
    core = tracker()
    core.connected(NORTH, AT, hello(Kind.TRACKER), NOW)
    assert hangups(list(iter(core.next_action, None))) == [Reason.NOT_ALLOWED]
    tiers = two()
    tiers.regional("south").connected(node("x"), AT, hello(Kind.TRACKER), tiers.now)
    tiers.pump()
    assert tiers.hung_up[-1][:2] == (node("x"), Reason.NOT_ALLOWED)
    found = Found(1, (FILM,), ())
    assert tiers.say("south", found, node("x")) == []


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 1), (1, 2, 2), (1, 2, 1)])
def test_changes_out_of_order_cost_the_connection(numbers: tuple[int, ...]) -> None:
    core = central()
    actions = told(core, *(Holds(number, (), (held(),)) for number in numbers))
    assert hangups(actions) == [Reason.UNEXPECTED]
    core.disconnected(NORTH, Reason.UNEXPECTED, NOW)
    core.connected(NORTH, AT, hello(Kind.TRACKER), NOW)
    assert hangups(told(core, Holds(1, (), (held(),)))) == []


@pytest.mark.parametrize("bad", [held(at="nowhere at all"), held(kind=Kind.PC), held(kind=Kind.TRACKER)])
def test_edges_that_cannot_be_cost_the_connection(bad: SwarmHeld) -> None:
    core = central()
    assert hangups(told(core, Holds(1, (), (bad,)))) == [Reason.MALFORMED]
    assert core.regions[NORTH].told.swarms == {}


def test_an_unfinished_full_state_replaces_nothing() -> None:
    core = central()
    told(core, Holds(1, (FILM,), (held(),)))
    core.disconnected(NORTH, Reason.TIMEOUT, NOW)
    core.connected(NORTH, AT, hello(Kind.TRACKER), NOW)
    told(core, Holds(1, (), (), more=1))
    assert core.regions[NORTH].told.entry_of(SWARM) == FILM
    told(core, Holds(2, (), ()))
    assert core.regions[NORTH].told.entry_of(SWARM) is None


def test_a_flood_of_changes_costs_the_connection_and_no_more() -> None:
    core = central()
    flood = [Holds(number, (), (held(),)) for number in range(1, int(HOLDS_BURST) + 50)]
    actions = told(core, *flood)
    assert hangups(actions)[0] is Reason.BUSY
    assert len(core.regions[NORTH].told.swarms) == 1


def test_titles_and_swarms_of_a_region_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracker.core.region_held.MAX_TITLES", 3)
    core = central()
    entries = tuple(entry(number, node("edge")) for number in range(4))
    assert hangups(told(core, Holds(1, entries, ()))) == [Reason.TOO_LARGE]
    assert core.regions[NORTH].told.entries == {}


def test_a_region_that_claims_anothers_title_is_not_believed() -> None:
    core = central()
    told(core, Holds(1, (FILM,), (held(),)), sender=NORTH)
    lie = Entry(FILM.title_id, "Free money", node("liar"), FILM.renditions)
    told(core, Holds(1, (lie,), ()), sender=SOUTH)
    for sender in (NORTH, SOUTH):
        (answer,) = [a.message for a in told(core, Seek(5, SWARM), sender=sender) if isinstance(a, Send)]
        assert isinstance(answer, Found)
        assert answer.entry == (FILM,)


def test_two_trackers_of_one_region_stand_beside_each_other() -> None:
    core = central()
    told(core, Holds(1, (FILM,), (held("a"),)), sender=NORTH)
    told(core, Holds(1, (FILM,), (held("b"),)), sender=SOUTH)
    (answer,) = [a.message for a in told(core, Seek(5, SWARM), sender=SOUTH) if isinstance(a, Send)]
    assert isinstance(answer, Found)
    assert [source.node for source in answer.sources] == [node("a")]  # its own it knows itself


def test_one_key_at_two_places_is_told_apart() -> None:
    core = central()
    here, there = HostPort("192.0.2.1", 1), HostPort("198.51.100.1", 1)
    for at in (here, there):
        core.connected(NORTH, at, hello(Kind.TRACKER), NOW)
    told(core)
    core.connected(NORTH, here, hello(Kind.TRACKER), NOW + 1)
    actions = told(core)
    assert hangups(actions) == [Reason.NOT_ALLOWED]
    assert any("two trackers with one id" in action.text for action in actions if isinstance(action, Note))


TIER_MESSAGES = st.one_of([wire.spoken(kind) for kind in (Holds, Seek, Browse, Found, Fellows, Refusal)])


@settings(max_examples=60, deadline=None)
@given(st.lists(TIER_MESSAGES, max_size=12))
def test_the_central_core_survives_any_messages(said: list[Message]) -> None:
    """Whatever a regional tracker says, every order of the core can be carried out, and others are served."""
    core = central()
    told(core, Holds(1, (FILM,), (held(),)), sender=SOUTH)
    for action in told(core, *said, sender=NORTH):
        if isinstance(action, Send):
            messages.encode(action.message)
    core.handle_timer(NOW + 2)
    (answer,) = [a.message for a in told(core, Browse(7), sender=SOUTH) if isinstance(a, Send)
                 if isinstance(a.message, Catalogue)]  # fmt: skip
    assert answer.request == 7


@settings(max_examples=40, deadline=None)
@given(st.lists(TIER_MESSAGES, max_size=12))
def test_a_region_survives_any_central_tier(said: list[Message]) -> None:
    """Whatever the central tracker says, the region finds its own titles as before."""
    tiers = Tiers("north", north=FILM)
    tiers.run(0.2)
    edge = tiers.join_edge("north", "edge n", SWARM)
    for message in said:
        tiers.regional("north").receive(message, id_of("central"), tiers.now)
    viewer = tiers.join("north", "viewer")
    answers = tiers.say("north", Locate(1, SWARM), viewer)
    assert [s.node for a in answers for s in getattr(a, "sources", ())] == [edge]


def test_a_node_that_asks_for_thousands_of_unknown_titles_is_answered_without_the_central_tier() -> None:
    tiers = two()
    tiers.lost.add(id_of("central"))  # silent: nothing is answered
    viewer = tiers.join("south", "viewer")
    for number in range(3000):
        tiers.say("south", Locate(number + 1, infohash(f"no {number}")), viewer)
        tiers.say("south", Announce(infohash(f"not {number}"), Event.STARTED, 0, 0, 0), viewer)
    assert tiers.regional("south").statistics().seeks <= 64
    tiers.run(2)
    refused = {m.request for m in tiers.heard[viewer] if isinstance(m, Refusal)}
    assert refused == set(range(1, 3001))


def test_lies_of_the_central_tier_do_not_replace_a_regions_own_titles() -> None:
    tiers = two()
    viewer, south = tiers.join("south", "viewer"), tiers.regional("south")
    lie = Entry(FILM.title_id, "x", node("liar"), (entry("other", node("x")).renditions[0], *FILM.renditions))
    tiers.central.regions[id_of("north")].told.entries[FILM.title_id] = lie
    (answer,) = tiers.say("south", Locate(1, SWARM), viewer)
    assert isinstance(answer, Refusal)
    kept = south.tracker.title_of(infohash("other"))
    assert kept is not None
    assert kept.signer == node("edge s")


def test_dice_spread_edges_abroad() -> None:
    tiers = two()
    for number in range(3):
        tiers.regional("north").tracker.admit(frozenset(node(f"guest {n}") for n in range(3)), tiers.now)
        tiers.join_edge("north", f"guest {number}", SWARM)
    tiers.run(6)
    first = set()
    for number in range(20):
        viewer = tiers.join("south", f"viewer {Random(number).random()}")
        (answer,) = tiers.say("south", Locate(1, SWARM), viewer)
        assert isinstance(answer, Redirect)
        assert len(answer.sources) == 2
        first.add(answer.sources[0].node)
    assert len(first) >= 3
