"""Guests of a title that is on its way to an edge: let in early, served first, never kept waiting long."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core.crew import Wanted, Watched
from edge.core.title_fetch import GIVE_UP_SECONDS
from edge.core.worker import TellLead, Worker, WorkerAction
from shared.core import tickets
from shared.core.actions import Decline, Send, Serve
from shared.core.bulk import PieceRequest
from shared.core.errors import Reason
from shared.core.ids import Kind, NodeId
from shared.core.messages import Gone, Have, Join, Refusal
from tests.orders_world import ANN, AT, FILM, TOTAL, Edges, Host, world
from tests.tracker_parts import KEY, NOW, TRACKER_ID, hello


def ticket_for(viewer: NodeId) -> bytes:
    return tickets.issue(
        KEY, tickets.Ticket(viewer, FILM.infohash, int(NOW) + tickets.TICKET_SECONDS, tickets.UNLIMITED)
    )


def join(edges: Edges, edge: Host, viewer: NodeId = ANN) -> None:
    edge.core.connected(viewer, AT, hello(Kind.PC), edges.now)
    edge.core.receive(Join(1, FILM.infohash, ticket_for(viewer)), viewer, edges.now)
    edges.pump(edge)


def request(edges: Edges, edge: Host, number: int, piece: int, slack_ms: int = 2000) -> list[Any]:
    """Where the verdicts on a guest's request will stand, with their times."""
    verdicts: list[Any] = []
    edge.served[number] = [lambda verdict: verdicts.append((edges.now, verdict))]
    edge.core.requested(number, PieceRequest(FILM.infohash, piece, 0, 16, slack_ms), ANN, 1000, edges.now)
    edges.pump(edge)
    return verdicts


def test_the_first_viewer_is_let_in_before_the_title_is_here_and_promised_all_of_it() -> None:
    edges, origin, edge = world()
    edges.place(edge, FILM, origin)
    join(edges, edge)
    assert edge.guests == []  # there is no manifest yet
    edges.run(0.5)
    ((to, have),) = [(to, m) for to, m in edge.guests if isinstance(m, Have)]
    assert to == ANN
    assert isinstance(have, Have)
    assert len(have.bitfield) == (TOTAL + 7) // 8
    assert have.bitfield[0] == 0xFF


def test_what_guests_wait_for_is_fetched_before_all_else_the_earliest_deadline_first() -> None:
    edges, origin, edge = world(rate=1e6)
    edges.place(edge, FILM, origin)
    join(edges, edge)
    edges.run(0.5)
    late = request(edges, edge, 1001, TOTAL - 1, slack_ms=3000)
    soon = request(edges, edge, 1002, TOTAL - 2, slack_ms=500)
    edges.run(3)
    ((at_soon, first),), ((at_late, second),) = soon, late
    assert (first, second) == (Serve(1002), Serve(1001))
    assert at_soon <= at_late
    assert len(edge.disk[FILM.infohash]) < TOTAL - 2  # long before their turn


def test_a_wait_is_bounded_and_answered_as_ever() -> None:
    edges, origin, edge = world(rate=1e6)
    edges.place(edge, FILM, origin)
    join(edges, edge)
    edges.run(0.5)
    edges.die(origin)
    verdicts = request(edges, edge, 1001, TOTAL - 1)
    begun = edges.now
    edges.run(3.5)
    ((at, verdict),) = verdicts
    assert verdict == Decline(1001, Reason.NOT_HELD)
    assert at - begun == pytest.approx(3.0)
    many = [request(edges, edge, 2000 + n, TOTAL - 1) for n in range(17)]
    assert [bool(verdicts) for verdicts in many] == [False] * 16 + [True]
    assert many[16][0][1] == Decline(2016, Reason.BUSY)
    edges.run(GIVE_UP_SECONDS)
    gone = {piece for _, m in edge.guests if isinstance(m, Gone) for piece in m.pieces}
    assert gone == set(range(TOTAL)) - edge.disk[FILM.infohash]
    assert request(edges, edge, 3000, TOTAL - 1)[0][1] == Decline(3000, Reason.NOT_HELD)


def test_a_guest_who_waits_for_a_title_that_never_comes_is_refused_in_time() -> None:
    edges, origin, edge = world()
    edges.die(origin)
    edges.place(edge, FILM, origin)
    join(edges, edge)
    edges.run(2.9)
    assert edge.guests == []
    edges.run(0.2)
    assert edge.guests == [(ANN, Refusal(1, Reason.UNKNOWN_TITLE))]


def test_who_leaves_waits_no_more() -> None:
    edges, origin, edge = world(rate=1e5)
    edges.place(edge, FILM, origin)
    join(edges, edge)
    edges.run(0.5)
    verdicts = request(edges, edge, 1001, TOTAL - 1)
    edge.core.disconnected(ANN, Reason.NONE, edges.now)
    edges.pump(edge)
    edges.run(5)
    assert verdicts == []


def wants(core: Worker) -> list[WorkerAction]:
    """All that a worker wants of its shell, but for what it says to guests."""
    found: list[WorkerAction] = []
    while (action := core.next_action()) is not None:
        if not isinstance(action, Send):
            found.append(action)
    return found


def test_a_worker_lets_guests_wait_for_what_the_lead_fetches() -> None:
    core, infohash = Worker(TRACKER_ID), FILM.infohash
    core.lead_came()
    core.expect(infohash, NOW, ended=False)
    core.hold(FILM, frozenset({0}), NOW)
    core.connected(ANN, AT, hello(Kind.PC), NOW)
    core.receive(Join(1, infohash, ticket_for(ANN)), ANN, NOW)
    core.look_around()
    core.requested(1, PieceRequest(infohash, 2, 0, 1, 500), ANN, 100, NOW)
    said = wants(core)
    assert TellLead(Watched(infohash, is_open=True)) in said
    assert TellLead(Wanted(infohash, 2, NOW + 0.5)) in said
    assert not any(isinstance(action, Serve | Decline) for action in said)
    core.gained(infohash, 2, NOW + 0.1)
    assert wants(core) == [Serve(1)]
    core.requested(2, PieceRequest(infohash, 3, 0, 1, 500), ANN, 100, NOW)
    core.lead_gone()  # whoever comes next knows nothing of the order
    assert Decline(2, Reason.NOT_HELD) in wants(core)
    core.lead_came()
    core.disconnected(ANN, Reason.NONE, NOW)
    core.look_around()
    assert wants(core) == []
