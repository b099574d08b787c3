"""The edge's core: who may publish, what is served, what the tracker hears."""

from __future__ import annotations

from random import Random

import pytest

from edge.core.admission import SLOTS, Admission
from edge.core.edge import BeginUpload, Edge, EdgeAction, PublisherLeft
from shared.core import tickets
from shared.core.actions import Answer, Decline, Dial, Hangup, Send, Serve
from shared.core.bulk import PieceRequest
from shared.core.entries import rendition_of
from shared.core.errors import Reason
from shared.core.ids import Address, HostPort, Kind, NodeId
from shared.core.messages import (
    Announce,
    Event,
    Gone,
    Have,
    HaveMore,
    Join,
    Locate,
    Message,
    Refusal,
    Register,
    Registered,
    Report,
    Schedule,
    Upload,
)
from shared.core.rates import Rates
from shared.core.slots import FIRST_SLOTS
from tests.tracker_parts import KEY, NOW, TRACKER_ID, hello, infohash, node
from tests.world_parts import film

FILM, _ = film(seconds=8, bit_rate=2_000_000.0)
TRACKER_AT = HostPort("192.0.2.1", 4430)
LOOPBACK, ELSEWHERE = HostPort("127.0.0.1", 5000), HostPort("192.0.2.7", 5000)
ANN, NAMED = node("ann"), node("named")
UPLOAD = Upload(5, "film.mp4", "Film", 1000, bytes(32))


def edge(*, local_publishers: bool = False) -> Edge:
    admission = Admission(frozenset({NAMED}), local_publishers)
    core = Edge(Address(TRACKER_ID, TRACKER_AT), admission, Random(1))
    core.hold(FILM, frozenset(range(FILM.piece_count)), NOW)
    return core


def with_tracker() -> Edge:
    core = edge()
    core.connected(TRACKER_ID, TRACKER_AT, hello(Kind.TRACKER), NOW)
    core.receive(Schedule(30, 5), TRACKER_ID, NOW)
    return core


def orders(core: Edge) -> list[EdgeAction]:
    taken: list[EdgeAction] = []
    while (action := core.next_action()) is not None:
        taken.append(action)
    return taken


def tell(core: Edge, message: Message, sender: NodeId) -> list[EdgeAction]:
    core.receive(message, sender, NOW)
    return orders(core)


def sent(core: Edge, now: float) -> list[Message]:
    core.handle_timer(now)
    return [action.message for action in orders(core) if isinstance(action, Send)]


# -- publishers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("publisher", "at", "local", "allowed"),
    [
        (NAMED, ELSEWHERE, False, True),
        (ANN, ELSEWHERE, False, False),
        (ANN, ELSEWHERE, True, False),
        (ANN, LOOPBACK, False, False),
        (ANN, LOOPBACK, True, True),
        (ANN, HostPort("::1", 1), True, True),
        (ANN, HostPort("::ffff:127.0.0.1", 1), True, True),
        (ANN, HostPort("::ffff:192.0.2.7", 1), True, False),
        (ANN, HostPort("localhost", 1), True, False),  # a name proves nothing
    ],
)
def test_only_named_publishers_and_on_request_local_ones_may_hand_in(
    publisher: NodeId, at: HostPort, local: bool, allowed: bool
) -> None:
    core = edge(local_publishers=local)
    core.connected(publisher, at, hello(Kind.TOOL), NOW)
    (action,) = tell(core, UPLOAD, publisher)
    if allowed:
        assert action == BeginUpload(publisher, UPLOAD)
    else:
        assert isinstance(action, Send)
        assert isinstance(action.message, Refusal)
        assert (action.message.request, action.message.reason) == (5, Reason.NOT_ALLOWED)
        assert "publishers" in action.message.detail


def test_a_publisher_that_disconnects_is_reported_and_others_are_not() -> None:
    core = edge()
    core.connected(NAMED, ELSEWHERE, hello(Kind.TOOL), NOW)
    core.connected(ANN, ELSEWHERE, hello(Kind.PC), NOW)
    tell(core, UPLOAD, NAMED)
    core.disconnected(ANN, Reason.NONE, NOW)
    assert orders(core) == []
    core.disconnected(NAMED, Reason.NONE, NOW)
    assert orders(core) == [PublisherLeft(NAMED)]
    core.connected(NAMED, ELSEWHERE, hello(Kind.TOOL), NOW)
    core.disconnected(NAMED, Reason.NONE, NOW)
    assert orders(core) == []


def test_what_may_not_be_said_to_an_edge_costs_the_connection() -> None:
    core = with_tracker()
    core.connected(ANN, ELSEWHERE, hello(Kind.PC), NOW)
    orders(core)
    for message in (
        Have(1, FILM.infohash, b""),
        HaveMore(FILM.infohash, (1,)),
        Gone(FILM.infohash, (1,)),
        Locate(1, FILM.infohash),
        Schedule(1, 1),
        Registered(2),
        Refusal(1, Reason.BUSY),
    ):
        (action,) = tell(core, message, ANN)
        assert isinstance(action, Hangup)
        assert (action.node, action.reason) == (ANN, Reason.UNEXPECTED)


# -- the tracker ------------------------------------------------------------------------------


def test_the_tracker_is_dialled_and_told_what_is_held() -> None:
    core = edge()
    core.handle_timer(NOW)
    assert orders(core) == [Dial(TRACKER_ID, TRACKER_AT)]
    core.connected(TRACKER_ID, TRACKER_AT, hello(Kind.TRACKER), NOW)
    total = FILM.piece_count
    assert sent(core, NOW) == [Announce(FILM.infohash, Event.STARTED, total, total, 7)]
    assert core.statistics().tracker_up


def test_announces_and_reports_keep_to_the_trackers_schedule() -> None:
    core = with_tracker()
    core.measured(Rates(1000.5, 20.0, 3000, 4000, 5))
    reports, announced = [], []
    now = NOW
    while now < NOW + 61:
        for message in sent(core, now):
            if isinstance(message, Report):
                reports.append((now, message))
            elif isinstance(message, Announce):
                announced.append(now)
        now = max(now + 0.001, core.get_timer())
    assert len(announced) == 3
    assert [b - a for a, b in zip(announced, announced[1:], strict=False)] == pytest.approx([30, 30])
    gaps = [b[0] - a[0] for a, b in zip(reports, reports[1:], strict=False)]
    assert len(reports) >= 12
    assert gaps == pytest.approx([5.0] * len(gaps))
    assert reports[0][1] == Report(1000, 20, 0, 0, 0, 3000, 4000, 5, 0)


def test_without_a_tracker_nothing_is_said_and_it_is_dialled_again() -> None:
    core = with_tracker()
    sent(core, NOW)
    core.disconnected(TRACKER_ID, Reason.TIMEOUT, NOW)
    assert NOW < core.get_timer() <= NOW + 1
    core.handle_timer(NOW + 1)
    assert orders(core) == [Dial(TRACKER_ID, TRACKER_AT)]
    assert not core.statistics().tracker_up


def test_a_title_is_registered_and_the_answer_handed_on() -> None:
    core = with_tracker()
    orders(core)
    request = core.register(FILM)
    (action,) = orders(core)
    assert action == Send(TRACKER_ID, Register(request, FILM.title_id, FILM.title, (rendition_of(FILM),)))
    assert tell(core, Registered(request), TRACKER_ID) == [Answer(request, Registered(request))]
    (action,) = tell(core, Registered(request), TRACKER_ID)
    assert isinstance(action, Hangup)


def test_registering_without_a_tracker_is_answered_with_none() -> None:
    core = edge()
    request = core.register(FILM)
    assert orders(core) == [Answer(request, None)]


# -- serving ----------------------------------------------------------------------------------


def test_an_edge_serves_tickets_of_its_tracker_and_declines_what_it_lost() -> None:
    core = with_tracker()
    core.connected(ANN, ELSEWHERE, hello(Kind.PC), NOW)
    orders(core)
    ticket = tickets.issue(KEY, tickets.Ticket(ANN, FILM.infohash, int(NOW) + 600, tickets.UNLIMITED))
    (action,) = tell(core, Join(1, FILM.infohash, ticket), ANN)
    assert isinstance(action, Send)
    assert isinstance(action.message, Have)
    core.lost(FILM.infohash, 2, NOW)
    for number, piece, expected in ((1, 1, Serve(1)), (2, 2, Decline(2, Reason.NOT_HELD))):
        core.requested(number, PieceRequest(FILM.infohash, piece, 0, 16), ANN, 262144, NOW)
        assert orders(core) == [expected]
    assert Gone(FILM.infohash, (2,)) in sent(core, NOW + 1)
    core.served(1)
    statistics = core.statistics().seeding
    assert (statistics.served, statistics.declined, statistics.guests) == (1, 1, 1)


def test_an_edge_begins_with_few_pieces_at_once_whoever_asks() -> None:
    core = edge()
    for guest in range(SLOTS):
        viewer = node(guest)
        ticket = tickets.issue(KEY, tickets.Ticket(viewer, FILM.infohash, int(NOW) + 600, tickets.UNLIMITED))
        core.receive(Join(1, FILM.infohash, ticket), viewer, NOW)
        for number in (2 * guest, 2 * guest + 1):
            core.requested(number, PieceRequest(FILM.infohash, 0, 0, 16), viewer, 262144, NOW)
    assert sum(isinstance(action, Serve) for action in orders(core)) == FIRST_SLOTS
    assert core.statistics().seeding.waiting == 2 * SLOTS - FIRST_SLOTS


def test_a_swarm_the_edge_has_not_is_refused() -> None:
    core = with_tracker()
    orders(core)
    ticket = tickets.issue(KEY, tickets.Ticket(ANN, infohash("other"), int(NOW) + 600, 1))
    (action,) = tell(core, Join(1, infohash("other"), ticket), ANN)
    assert isinstance(action, Send)
    assert isinstance(action.message, Refusal)
    assert action.message.reason is Reason.UNKNOWN_TITLE


def test_a_title_that_is_forgotten_is_announced_and_served_no_more() -> None:
    core = with_tracker()
    sent(core, NOW)
    core.forget(FILM.infohash)
    total = FILM.piece_count
    assert sent(core, NOW) == [Announce(FILM.infohash, Event.STOPPED, 0, 0, 7)]
    ticket = tickets.issue(KEY, tickets.Ticket(ANN, FILM.infohash, int(NOW) + 600, tickets.UNLIMITED))
    (action,) = tell(core, Join(1, FILM.infohash, ticket), ANN)
    assert isinstance(action, Send)
    assert isinstance(action.message, Refusal)
    core.hold(FILM, frozenset(range(total)), NOW)
    assert sent(core, NOW) == [Announce(FILM.infohash, Event.STARTED, total, total, 7)]


def test_a_title_that_was_damaged_and_is_whole_again_is_announced_whole() -> None:
    core = with_tracker()
    sent(core, NOW)
    total = FILM.piece_count
    core.lost(FILM.infohash, 2, NOW)
    core.hold(FILM, frozenset(range(total)), NOW + 1)
    assert Announce(FILM.infohash, Event.COMPLETED, total, total, 7) in sent(core, NOW + 1)
