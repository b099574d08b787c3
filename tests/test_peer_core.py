"""The peer's core: whom it hears, what it says, and that direct mode never serves."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.fetch import LOCATE_EVERY_SECONDS
from peer.core.peer import Peer, PeerSettings
from shared.core import tickets
from shared.core.actions import Action, Answer, Ask, Decline, Dial, Hangup, Send, Serve
from shared.core.bulk import PieceRequest
from shared.core.errors import Reason
from shared.core.ids import Address, Kind, Mode
from shared.core.merkle import LEAF_BYTES
from shared.core.messages import (
    Announce,
    Browse,
    Catalogue,
    Describe,
    Event,
    Have,
    HaveMore,
    Join,
    Leave,
    Locate,
    Message,
    Redirect,
    Refusal,
    Registered,
    Report,
    Schedule,
    Share,
    Upload,
)
from shared.core.rates import Rates
from tests.peer_parts import (
    ANN,
    AT,
    EDGE,
    FILM,
    SWARM,
    TICKET,
    TOTAL,
    TRACKER_AT,
    located,
    orders,
    peer,
    redirect,
    sent,
    take_all,
    tell,
    watching,
)
from tests.tracker_parts import KEY, NOW, TRACKER_ID, hello, infohash, node, title_id

# -- fetching, from the first question to the last piece --------------------------------------


def test_a_film_is_located_joined_fetched_announced_and_left() -> None:
    core = watching(peer())
    now = NOW
    while not core.seeding.holdings[SWARM].held.complete:
        now = max(now, core.get_timer())
        core.handle_timer(now)
        for action in orders(core):
            if isinstance(action, Ask):
                assert action.node == EDGE
                take_all(core, action, now)
        assert now < NOW + 10
    core.handle_timer(now)
    messages = [action.message for action in orders(core) if isinstance(action, Send)]
    assert Leave(SWARM) in messages
    assert [m.event for m in messages if isinstance(m, Announce)] == [Event.COMPLETED]
    statistics = core.statistics()
    assert (statistics.edge_bytes, statistics.peer_bytes) == (FILM.length, 0)
    assert statistics.taken == (Share(EDGE, FILM.length),)
    assert core.kind_of(EDGE) is Kind.EDGE


def test_sources_are_looked_for_again_while_something_is_wanted_and_no_longer() -> None:
    core = watching(peer())
    times, now = [], NOW
    while now < NOW + 120:
        if any(isinstance(message, Locate) for message in sent(core, now)):
            times.append(now - NOW)
        now = max(now + 0.01, core.get_timer())
    assert len(times) >= 2
    assert max(times) <= 30 + LOCATE_EVERY_SECONDS  # the player reads no more after 30 s


def test_the_first_piece_makes_a_peer_a_source_at_once() -> None:
    core = watching(peer())
    sent(core, NOW + 1)
    core.stored(SWARM, 0, True, NOW + 1)
    assert [m.held for m in sent(core, NOW + 1) if isinstance(m, Announce)] == [1]


def test_bytes_that_come_after_a_request_was_given_up_are_counted_as_wasted() -> None:
    core = watching(peer())
    (ask, *_) = [action for action in orders(core) if isinstance(action, Ask)]
    core.disconnected(EDGE, Reason.TIMEOUT, NOW)
    assert not core.leaf_arrived(ask.request, EDGE, LEAF_BYTES, NOW)
    core.chunk_ended(ask.request, Reason.CANCELLED, NOW)
    statistics = core.statistics()
    assert (statistics.wasted_bytes, statistics.edge_bytes, statistics.taken) == (LEAF_BYTES, 0, ())


def test_a_restarted_tracker_is_asked_and_told_everything_anew() -> None:
    core = watching(peer())
    sent(core, NOW)
    core.disconnected(TRACKER_ID, Reason.TIMEOUT, NOW + 1)
    assert sent(core, NOW + 20) == []
    core.fetches[SWARM].read(0, NOW + 20)
    core.connected(TRACKER_ID, TRACKER_AT, hello(Kind.TRACKER), NOW + 21)
    messages = sent(core, NOW + 21)
    assert [m.event for m in messages if isinstance(m, Announce)] == [Event.STARTED]
    assert [m.infohash for m in messages if isinstance(m, Locate)] == [SWARM]


def test_a_refused_title_is_known_as_refused_until_the_tracker_says_otherwise() -> None:
    core = peer()
    locate = located(core)
    tell(core, Refusal(locate.request, Reason.UNKNOWN_TITLE), TRACKER_ID)
    assert core.fetches[SWARM].refused is Reason.UNKNOWN_TITLE
    later = NOW + 10 * LOCATE_EVERY_SECONDS
    assert not [m for m in sent(core, later) if isinstance(m, Locate)]  # nobody asked
    core.fetch(SWARM, later)
    assert core.fetches[SWARM].refused is None  # not known yet
    (again,) = [m for m in sent(core, later) if isinstance(m, Locate)]
    tell(core, redirect(again.request, EDGE), TRACKER_ID)
    assert core.fetches[SWARM].refused is None


def test_every_reader_of_a_title_does_not_ask_the_tracker_anew() -> None:
    core = peer()
    locate = located(core)
    core.fetch(SWARM, NOW)  # another reader, before the answer
    assert not [m for m in sent(core, NOW) if isinstance(m, Locate)]
    tell(core, redirect(locate.request, EDGE), TRACKER_ID)
    core.fetch(SWARM, NOW)  # and one after it
    assert not [m for m in sent(core, NOW) if isinstance(m, Locate)]
    assert len([m for m in sent(core, NOW + LOCATE_EVERY_SECONDS) if isinstance(m, Locate)]) == 1


def test_a_tracker_that_never_answers_is_asked_on_and_nothing_collects() -> None:
    """Each question is given up as the link gives up its own; what comes after that is no offence."""
    core, now, asked = peer(), NOW, list[Locate]()
    core.fetch(SWARM, NOW)
    for _ in range(400):
        now += LOCATE_EVERY_SECONDS
        asked += [message for message in sent(core, now) if isinstance(message, Locate)]
        assert len(core._locates) <= 1
    assert len(asked) == 400
    assert not any(
        isinstance(order, Hangup) for order in tell(core, redirect(asked[-2].request, EDGE), TRACKER_ID, now)
    )
    assert core.fetches[SWARM].refused is None
    (action,) = tell(core, redirect(asked[0].request, EDGE), TRACKER_ID, now)
    assert isinstance(action, Hangup)  # so old that it is forgotten


# -- whom it hears ----------------------------------------------------------------------------


def test_what_may_not_be_said_to_a_peer_costs_the_connection() -> None:
    core = peer()
    core.connected(ANN, AT, hello(Kind.PC), NOW)
    orders(core)
    upload = Upload(5, "film.mp4", "Film", 1000, bytes(32))
    for message in (Locate(1, SWARM), upload, Registered(1), Schedule(1, 1), redirect(1), Browse(1)):
        (action,) = tell(core, message, ANN)
        assert isinstance(action, Hangup)
        assert (action.node, action.reason) == (ANN, Reason.UNEXPECTED)


@pytest.mark.parametrize(
    "message",
    [redirect(77, EDGE), Catalogue(77, 0, ()), Refusal(77, Reason.BUSY)],
    ids=lambda m: type(m).__name__,
)
def test_answers_of_the_tracker_to_nothing_cost_the_connection(message: Message) -> None:
    core = peer()
    orders(core)
    (action,) = tell(core, message, TRACKER_ID)
    assert isinstance(action, Hangup)
    assert action.reason is Reason.UNEXPECTED


def test_a_redirect_to_another_swarm_than_asked_is_refused() -> None:
    core = peer()
    locate = located(core)
    other = Redirect(locate.request, infohash("other"), EDGE, TICKET, 3, ())
    (action,) = tell(core, other, TRACKER_ID)
    assert isinstance(action, Hangup)


def test_impossible_holdings_cost_the_source_its_connection() -> None:
    core = watching(peer())
    orders(core)
    (action,) = tell(core, HaveMore(SWARM, (TOTAL,)), EDGE)
    assert isinstance(action, Hangup)
    assert (action.node, action.reason) == (EDGE, Reason.MALFORMED)


def test_holdings_of_swarms_and_nodes_we_left_are_ignored() -> None:
    core = watching(peer())
    orders(core)
    assert tell(core, HaveMore(SWARM, (0,)), ANN) == []
    assert tell(core, Have(1, infohash("other"), b"\xff"), ANN) == []


def test_catalogue_questions_are_answered_or_end_with_the_link() -> None:
    core = peer()
    orders(core)
    first, second = core.browse(0), core.describe(title_id("film"))
    questions = [action.message for action in orders(core) if isinstance(action, Send)]
    assert questions == [Browse(first, 0), Describe(second, title_id("film"))]
    page = Catalogue(first, 0, ())
    assert tell(core, page, TRACKER_ID) == [Answer(first, page)]
    core.disconnected(TRACKER_ID, Reason.TIMEOUT, NOW)
    assert orders(core) == [Answer(second, None)]


# -- serving ----------------------------------------------------------------------------------


def ask_it(core: Peer, number: int) -> list[Action]:
    core.requested(number, PieceRequest(SWARM, 0, 0, 16), ANN, 262144, NOW)
    return orders(core)


@given(st.permutations(["join", "ask", "gain", "tracker", "time"]), st.floats(0, 1e9))
def test_direct_mode_never_serves(happenings: list[str], uplink: float) -> None:
    """Whatever happens, in whatever order, a direct peer serves nothing and offers nothing."""
    core = peer(Mode.DIRECT, uplink)
    core.hold(FILM, frozenset({0}), NOW)
    seen: list[Action] = []
    for number, happening in enumerate(happenings * 2):
        match happening:
            case "join":
                core.receive(Join(number, SWARM, TICKET), ANN, NOW)
            case "ask":
                seen += ask_it(core, number)
            case "gain":
                core.stored(SWARM, number % TOTAL, True, NOW)
            case "tracker":
                core.connected(TRACKER_ID, TRACKER_AT, hello(Kind.TRACKER), NOW)
            case _:
                core.handle_timer(NOW + 60 * number)
        seen += orders(core)
    assert not any(isinstance(action, Serve) for action in seen)
    assert sum(action.reason is Reason.NOT_SHARING for action in seen if isinstance(action, Decline)) == 2
    messages = [action.message for action in seen if isinstance(action, Send)]
    assert all(m.spare == 0 for m in messages if isinstance(m, Announce))
    assert all(m.cap_rate == 0 for m in messages if isinstance(m, Report))
    assert not any(isinstance(m, Have | HaveMore) for m in messages)


def test_a_shared_peer_serves_what_it_holds_and_says_what_it_can_spare() -> None:
    core = peer()
    core.hold(FILM, frozenset({0}), NOW)
    (announce,) = [m for m in sent(core, NOW) if isinstance(m, Announce)]
    assert announce == Announce(SWARM, Event.STARTED, 1, TOTAL, 4, 0b1111)
    core.receive(Join(1, SWARM, TICKET), ANN, NOW)
    assert [type(a.message) for a in orders(core) if isinstance(a, Send)] == [Have]
    assert ask_it(core, 1) == [Serve(1)]
    core.lost(SWARM, 0, NOW)
    assert ask_it(core, 2) == [Decline(2, Reason.NOT_HELD)]


def test_a_slow_line_sends_three_pieces_at_once_and_keeps_the_next_for_the_most_urgent() -> None:
    core = peer(uplink_rate=250_000.0)
    core.hold(FILM, frozenset({0}), NOW)
    core.receive(Join(1, SWARM, TICKET), ANN, NOW)
    bob = node("bob")
    ticket = tickets.issue(KEY, tickets.Ticket(bob, SWARM, int(NOW) + 600, tickets.UNLIMITED))
    core.receive(Join(1, SWARM, ticket), bob, NOW)
    orders(core)
    assert ask_it(core, 1) + ask_it(core, 2) == [Serve(1), Serve(2)]
    core.requested(3, PieceRequest(SWARM, 0, 0, 16), bob, 262144, NOW)
    assert orders(core) == [Serve(3)]
    core.requested(4, PieceRequest(SWARM, 0, 0, 16), bob, 262144, NOW)
    assert orders(core) == []
    core.served(1)
    assert orders(core) == [Serve(4)]


def test_an_uplink_in_use_is_offered_no_longer() -> None:
    core = peer()
    core.hold(FILM, frozenset({0}), NOW)
    sent(core, NOW)
    core.measured(Rates(700_000.0, 0.0, 0, 0, 1))
    assert [m.spare for m in sent(core, NOW + 2) if isinstance(m, Announce)] == [0]


def test_reports_carry_what_was_measured_at_the_trackers_pace() -> None:
    core = peer()
    core.measured(Rates(1000.7, 2000.0, 30, 40, 5))
    reports, now = [], NOW
    while now < NOW + 31:
        reports += [(now, m) for m in sent(core, now) if isinstance(m, Report)]
        now = max(now + 0.001, core.get_timer())
    assert 6 <= len(reports) <= 7
    first = reports[0][1]
    assert (first.up_rate, first.down_rate, first.uploaded_bytes) == (1000, 2000, 30)
    assert first.cap_rate == int(core.cap.gate_rate())


def test_the_tracker_is_dialled_first() -> None:
    core = Peer(PeerSettings(Address(TRACKER_ID, TRACKER_AT), Mode.SHARED, 1e6), Random(1))
    core.handle_timer(NOW)
    assert orders(core) == [Dial(TRACKER_ID, TRACKER_AT)]
    assert not core.statistics().tracker_up
