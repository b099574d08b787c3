"""Holding and serving: guests, the queue, batched news, announces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core import tickets
from shared.core.actions import Decline, Send, Serve
from shared.core.bitfield import Bitfield
from shared.core.bulk import NO_DEADLINE_MS, PieceRequest
from shared.core.errors import ProtocolError, Reason
from shared.core.guests import MAX_GUESTS
from shared.core.messages import Announce, Event, Gone, Have, HaveMore, Leave, Refusal
from shared.core.seeding import (
    HAVE_BATCH_PIECES,
    HAVE_BATCH_SECONDS,
    QUEUE_PER_GUEST,
    Seeding,
    check_request,
)
from shared.core.tickets import CLOCK_SKEW_SECONDS, TICKET_SECONDS, Ticket
from tests.seeding_parts import ANN, BOB, EVE, SIZE, SWARM, TOTAL, ask, join, orders, seeding, serving, ticket
from tests.tracker_parts import NOW, TRACKER_ID, node
from tests.world_parts import key_of

# -- guests -----------------------------------------------------------------------------------


def test_a_guest_with_a_ticket_gets_the_bitfield() -> None:
    answer = join(seeding(pieces=(0, 39)), ANN)
    assert answer == Have(7, SWARM, Bitfield(TOTAL, (0, 39)).to_wire())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.TICKET_INVALID),
        (b"\0" * tickets.TICKET_BYTES, Reason.TICKET_INVALID),
        (ticket(BOB), Reason.TICKET_INVALID),
        (ticket(ANN)[:-1] + bytes([ticket(ANN)[-1] ^ 1]), Reason.TICKET_INVALID),
        (tickets.issue(key_of("false"), Ticket(ANN, SWARM, int(NOW) + 9, 1)), Reason.TICKET_INVALID),
        (ticket(ANN, expires_at=int(NOW) - CLOCK_SKEW_SECONDS - 1), Reason.TICKET_EXPIRED),
    ],
)
def test_without_a_good_ticket_nobody_comes_in(raw: bytes, reason: Reason) -> None:
    core = seeding()
    answer = join(core, ANN, raw)
    assert isinstance(answer, Refusal)
    assert (answer.request, answer.reason) == (7, reason)
    assert core.may_read_manifest(SWARM, ANN) is Reason.TICKET_INVALID
    assert ask(core, 1, ANN) == [Decline(1, Reason.TICKET_INVALID)]


def test_a_swarm_that_is_not_held_is_unknown() -> None:
    core = Seeding(TRACKER_ID, 2, sharing=True)
    answer = join(core, ANN)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.UNKNOWN_TITLE
    assert core.may_read_manifest(SWARM, ANN) is Reason.UNKNOWN_TITLE
    assert ask(core, 1, ANN) == [Decline(1, Reason.UNKNOWN_TITLE)]


def test_direct_mode_lets_nobody_in_and_serves_nothing() -> None:
    core = seeding(sharing=False)
    answer = join(core, ANN)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.NOT_SHARING
    assert ask(core, 1, ANN) == [Decline(1, Reason.NOT_SHARING)]


def test_guests_are_bounded_but_those_inside_may_renew() -> None:
    core = seeding()
    for number in range(MAX_GUESTS):
        join(core, node(number))
    answer = join(core, ANN)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.BUSY
    assert isinstance(join(core, node(0)), Have)


def test_a_guest_that_left_must_join_again() -> None:
    core = serving(ANN, BOB)
    core.leave(Leave(SWARM), ANN)
    core.disconnected(BOB)
    assert ask(core, 1, ANN) == [Decline(1, Reason.TICKET_INVALID)]
    assert ask(core, 2, BOB) == [Decline(2, Reason.TICKET_INVALID)]


def test_an_expired_ticket_ends_service_except_while_the_tracker_is_away() -> None:
    core = serving(ANN)
    late = NOW + TICKET_SECONDS + CLOCK_SKEW_SECONDS + 1
    assert ask(core, 1, ANN, now=late) == [Serve(1)]
    core.tracker_connected(late)
    assert ask(core, 2, ANN, now=late - 2) == [Serve(2)]
    assert ask(core, 3, ANN, now=late) == [Decline(3, Reason.TICKET_EXPIRED)]
    join(core, ANN, ticket(ANN, expires_at=int(late) + TICKET_SECONDS), late)
    core.served(1)
    assert ask(core, 4, ANN, now=late) == [Serve(4)]


def test_a_quota_counts_across_renewals() -> None:
    core = seeding(slots=9)
    join(core, ANN, ticket(ANN, quota=2 * SIZE))
    assert ask(core, 1, ANN) == [Serve(1)]
    join(core, ANN, ticket(ANN, quota=2 * SIZE))
    assert ask(core, 2, ANN) == [Serve(2)]
    assert ask(core, 3, ANN) == [Decline(3, Reason.NOT_ALLOWED)]


# -- requests ---------------------------------------------------------------------------------


def test_the_earliest_deadline_is_served_first() -> None:
    core = serving(ANN, BOB, EVE, slots=1)
    assert ask(core, 1, ANN, slack_ms=9000) == [Serve(1)]
    assert ask(core, 2, BOB, slack_ms=8000) == []
    assert ask(core, 3, EVE, slack_ms=500, now=NOW + 1) == []
    assert ask(core, 4, ANN, slack_ms=100, now=NOW + 2) == []
    order = []
    for number in (1, 3, 4):
        core.served(number)
        order += orders(core)
    assert order == [Serve(3), Serve(4), Serve(2)]


def test_one_guest_takes_two_places_and_leaves_the_others_free() -> None:
    core = serving(ANN, BOB, slots=4)
    given_to_ann = [action for number in range(6) for action in ask(core, number, ANN)]
    assert given_to_ann == [Serve(0), Serve(1)]
    assert ask(core, 9, BOB, slack_ms=60_000) == [Serve(9)]


def test_a_guest_beyond_its_part_of_the_queue_is_told_busy() -> None:
    core = serving(ANN, BOB, slots=1)
    for number in range(QUEUE_PER_GUEST):
        ask(core, number, ANN)
    assert ask(core, 99, ANN) == [Decline(99, Reason.BUSY)]
    assert ask(core, 100, BOB) == []
    core.served(0)
    orders(core)
    assert ask(core, 101, ANN) == []


def test_a_piece_that_is_not_held_is_declined() -> None:
    core = serving(ANN)
    assert ask(core, 1, ANN, piece=20) == [Decline(1, Reason.NOT_HELD)]
    assert ask(core, 2, ANN, piece=TOTAL + 5) == [Decline(2, Reason.NOT_HELD)]


def test_requests_of_a_guest_that_is_gone_make_room() -> None:
    core = serving(ANN, BOB, slots=1)
    ask(core, 1, ANN)
    ask(core, 2, BOB)
    core.disconnected(ANN)
    assert orders(core) == [Serve(2)]


def test_when_sharing_stops_what_waits_is_declined() -> None:
    core = serving(ANN, BOB, slots=1)
    ask(core, 1, ANN)
    ask(core, 2, BOB)
    core.stop_sharing(NOW)
    assert orders(core) == [Decline(2, Reason.NOT_SHARING)]
    assert ask(core, 3, BOB) == [Decline(3, Reason.NOT_SHARING)]


@given(st.integers(0, 0xFFFF), st.integers(1, 0xFFFF), st.integers(1, 1024))
def test_leaves_beyond_the_piece_are_refused(first: int, leaves: int, leaf_count: int) -> None:
    """A request passes exactly if all its leaves are in the piece."""
    request = PieceRequest(SWARM, 0, first, leaves)
    if first + leaves <= leaf_count:
        check_request(request, leaf_count)
    else:
        with pytest.raises(ProtocolError):
            check_request(request, leaf_count)


# -- news for guests --------------------------------------------------------------------------


def test_news_waits_a_quarter_second_and_goes_to_every_guest_together() -> None:
    core = serving(ANN, BOB)
    core.gained(SWARM, 20, NOW)
    core.gained(SWARM, 21, NOW + 0.2)
    core.lost(SWARM, 3, NOW + 0.2)
    assert core.get_timer() == NOW + HAVE_BATCH_SECONDS
    core.handle_timer(NOW + 0.24)
    assert orders(core) == []
    core.handle_timer(NOW + HAVE_BATCH_SECONDS)
    assert orders(core) == [
        Send(guest, message)
        for guest in (ANN, BOB)
        for message in (HaveMore(SWARM, (20, 21)), Gone(SWARM, (3,)))
    ]
    core.handle_timer(NOW + 9)
    assert orders(core) == []


@given(st.lists(st.tuples(st.booleans(), st.integers(0, TOTAL - 1), st.floats(0, 0.5)), max_size=40))
def test_what_guests_are_told_adds_up_to_what_is_held(events: list[tuple[bool, int, float]]) -> None:
    """Have, then HaveMore and Gone in their order, give exactly the pieces that are held."""
    core, now = serving(ANN), NOW
    told = set(range(20))
    for gain, piece, pause in [*events, (True, 0, 1.0), (True, 1, 1.0)]:
        now += pause
        core.handle_timer(now)
        if gain:
            core.gained(SWARM, piece, now)
        else:
            core.lost(SWARM, piece, now)
    core.handle_timer(now + 1)
    for action in orders(core):
        assert isinstance(action, Send)
        if isinstance(action.message, HaveMore):
            told |= set(action.message.pieces)
        elif isinstance(action.message, Gone):
            told -= set(action.message.pieces)
    assert told == set(core.holdings[SWARM].held)


def test_much_news_is_cut_into_messages_that_fit() -> None:
    core = Seeding(TRACKER_ID, 2, sharing=True)
    core.hold(SWARM, Bitfield(3000), NOW)
    join(core, ANN)
    for piece in range(2500):
        core.gained(SWARM, piece, NOW)
    core.handle_timer(NOW + 1)
    sizes = [
        len(a.message.pieces) for a in orders(core) if isinstance(a, Send) and isinstance(a.message, HaveMore)
    ]
    assert sizes == [HAVE_BATCH_PIECES, HAVE_BATCH_PIECES, 2500 - 2 * HAVE_BATCH_PIECES]


# -- announces --------------------------------------------------------------------------------


def announces(core: Seeding, now: float) -> list[Announce]:
    core.handle_timer(now)
    sent = [action.message for action in orders(core) if isinstance(action, Send)]
    return [message for message in sent if isinstance(message, Announce)]


def test_nothing_is_announced_while_there_is_no_tracker() -> None:
    core = seeding()
    assert announces(core, NOW) == []
    assert core.get_timer() == float("inf")


def test_first_piece_and_completion_are_announced_at_once_and_all_else_at_the_interval() -> None:
    core = seeding(pieces=())
    core.tracker_connected(NOW)
    assert announces(core, NOW) == [Announce(SWARM, Event.STARTED, 0, TOTAL, 7)]
    core.gained(SWARM, 0, NOW + 1)
    assert announces(core, NOW + 1) == [Announce(SWARM, Event.UPDATE, 1, TOTAL, 7)]
    for piece in range(1, TOTAL - 1):
        core.gained(SWARM, piece, NOW + 2)
    assert announces(core, NOW + 60.9) == []
    assert announces(core, NOW + 61) == [Announce(SWARM, Event.UPDATE, TOTAL - 1, TOTAL, 7, 0x7FFFFFFF)]
    core.gained(SWARM, TOTAL - 1, NOW + 62)
    assert announces(core, NOW + 62) == [Announce(SWARM, Event.COMPLETED, TOTAL, TOTAL, 7)]
    assert announces(core, NOW + 122) == [Announce(SWARM, Event.UPDATE, TOTAL, TOTAL, 7)]


@given(st.lists(st.floats(0.1, 30.0), min_size=5, max_size=60), st.integers(1, 120))
def test_silence_never_lasts_longer_than_the_interval(pauses: list[float], interval: int) -> None:
    """A shell that wakes the core when it asks to be woken announces at least every interval."""
    core, now, last = seeding(), NOW, NOW
    core.announce_seconds = float(interval)
    core.tracker_connected(NOW)
    for piece, pause in enumerate(pauses):
        end = now + pause
        while (timer := core.get_timer()) <= end:
            now = max(now, timer)
            if announces(core, now):
                assert now - last <= interval + 1e-6
                last = now
        now = end
        core.gained(SWARM, piece % TOTAL, now)
    assert now - last <= interval + 1e-6


def test_a_tracker_that_comes_back_hears_everything_as_new() -> None:
    core = seeding()
    core.tracker_connected(NOW)
    announces(core, NOW)
    core.tracker_lost()
    assert announces(core, NOW + 200) == []
    core.tracker_connected(NOW + 201)
    assert [message.event for message in announces(core, NOW + 201)] == [Event.STARTED]


def test_a_change_of_spare_upload_is_told_at_once_and_no_change_is_not() -> None:
    core = seeding()
    core.tracker_connected(NOW)
    announces(core, NOW)
    core.set_spare(3, NOW + 1)
    assert [message.spare for message in announces(core, NOW + 1)] == [3]
    core.set_spare(3, NOW + 2)
    assert announces(core, NOW + 2) == []


def test_who_does_not_share_announces_nothing_to_spare() -> None:
    core = seeding(sharing=False)
    core.tracker_connected(NOW)
    assert [message.spare for message in announces(core, NOW)] == [0]


def test_a_swarm_that_is_held_no_more_is_stopped() -> None:
    core = serving(ANN)
    core.tracker_connected(NOW)
    announces(core, NOW)
    core.forget(SWARM)
    assert orders(core) == [Send(TRACKER_ID, Announce(SWARM, Event.STOPPED, 0, 0, 7))]
    assert ask(core, 1, ANN) == [Decline(1, Reason.UNKNOWN_TITLE)]


def test_of_those_without_a_deadline_each_guest_has_its_turn() -> None:
    """Whoever asks more does not get more; and whoever has a deadline comes first."""
    core = serving(ANN, BOB, EVE, slots=1)
    owners = dict.fromkeys(range(1, 9), ANN) | dict.fromkeys(range(9, 11), BOB)
    under_way = [a for n, guest in owners.items() for a in ask(core, n, guest, slack_ms=NO_DEADLINE_MS)]
    turns = []
    for number in range(11, 15):
        if number == 14:
            under_way += ask(core, number, EVE, slack_ms=3000)
            owners[number] = EVE
        (served,) = under_way
        assert isinstance(served, Serve)
        turns.append(owners[served.request])
        core.served(served.request)
        under_way = orders(core)
    assert turns == [ANN, BOB, ANN, BOB]
    assert under_way == [Serve(14)]
