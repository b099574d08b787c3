"""Invariant: every ask is answered, by datagram or over the connection, whatever the network loses.

A real link talks to a real tracker core through a network that a test bends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import tickets
from shared.core.actions import Send
from shared.core.errors import ProtocolError, Reason
from shared.core.ids import HostPort, InfoHash, Kind
from shared.core.messages import Announce, Locate, Message, Redirect, Refusal, Report, Seal, Use, WantSeal
from shared.core.sealed_link import (
    OUT_OF_TURN_SECONDS,
    REST_SECONDS,
    SEAL_REQUEST,
    TICKET_FRESH_SECONDS,
    TRIES,
    Datagram,
    Heard,
    Say,
    SealedLink,
    Vouch,
)
from tests.sealed_parts import exchange, sealed_tracker
from tests.tracker_parts import NOW, TRACKER_ID, announce, ask, entry, infohash, join, node, tracker
from tracker.core.tracker import Tracker

EDGE = node("edge")
FILM = entry("film", EDGE)
SWARM = infohash("film")


def film_tracker() -> Tracker:
    core = sealed_tracker(tracker(FILM, edges=frozenset({EDGE})))
    ask(core, announce(SWARM, spare=7), join(core, "edge", Kind.EDGE))
    return core


@dataclass(slots=True)
class Pair:
    """A node's link and its tracker."""

    core: Tracker = field(default_factory=film_tracker)
    link: SealedLink = field(default_factory=SealedLink)
    now: float = NOW
    is_lost: Callable[[bool], bool] = lambda is_answer: False
    heard: list[Message] = field(default_factory=list)
    said: list[Message] = field(default_factory=list)  # over the connection
    datagrams: list[bytes] = field(default_factory=list)
    vouched: int = 0

    def __post_init__(self) -> None:
        join(self.core, "viewer")
        self.pump()

    def pump(self) -> None:
        while (action := self.link.next_action()) is not None:
            match action:
                case Say():
                    self._say(action.message)
                case Vouch():
                    self.vouched += 1
                case Heard():
                    self.heard.append(action.message)
                case Datagram():
                    self.datagrams.append(action.data)
                    if not self.is_lost(False):
                        (answer,) = exchange(self.core, [action.data], self.now)
                        if answer and not self.is_lost(True):
                            self.link.receive(answer, self.now)

    def _say(self, message: Message) -> None:
        if not isinstance(message, WantSeal):
            self.said.append(message)
        for action in ask(self.core, message, node("viewer"), self.now):
            if not isinstance(action, Send):
                continue
            if isinstance(action.message, Seal):
                self.link.given(action.message, self.now)
            elif action.to == node("viewer"):
                self.heard.append(action.message)

    def take(self, message: Announce | Locate | Report) -> None:
        if not self.link.take(message, self.now):
            self._say(message)
        self.pump()

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (timer := self.link.get_timer()) <= until:
            self.now = max(self.now, timer)
            self.link.handle_timer(self.now)
            self.pump()
        self.now = until

    @property
    def redirects(self) -> list[Redirect]:
        return [message for message in self.heard if isinstance(message, Redirect)]


def test_asks_go_by_datagram_once_there_is_a_seal() -> None:
    pair = Pair()
    pair.take(announce(SWARM))
    pair.take(Locate(5, SWARM))
    (found,) = pair.redirects
    assert (found.request, found.infohash) == (5, SWARM)
    assert [source.node for source in found.sources] == [EDGE]
    assert not pair.said
    assert pair.core.statistics().swarms == 1


def test_a_refusal_comes_as_over_the_connection() -> None:
    pair = Pair()
    pair.take(Locate(5, infohash("nothing")))
    assert pair.heard == [Refusal(5, Reason.UNKNOWN_TITLE, "not in the catalogue")]


def a_report(stalls: int, *uses: Use) -> Report:
    return Report(0, 0, 0, 0, 0, 0, 0, 0, stalls, (), 1, uses)


def test_an_answered_report_vouches_for_the_connection() -> None:
    pair = Pair()
    pair.take(a_report(1))
    assert pair.core.nodes[node("viewer")].report == a_report(1)
    assert pair.vouched == 1
    assert not pair.said
    pair.take(a_report(2, *(Use(infohash(f"film {n}"), 1, 1, 1) for n in range(20))))
    assert [type(message) for message in pair.said] == [Report], "it does not fit"


def test_counters_of_titles_arrive_though_newer_reports_follow() -> None:
    pair = Pair()
    pair.take(announce(SWARM))
    pair.is_lost = lambda is_answer: True
    pair.take(a_report(1, Use(SWARM, 5, 6, 7)))
    pair.take(a_report(2))
    pair.take(a_report(3))
    pair.is_lost = lambda is_answer: False
    sent = len(pair.datagrams)
    pair.wait(5)
    assert len(pair.datagrams) == sent + 2, "the one with counters and the newest"
    (counters,) = pair.core.usage.take().counters.values()
    assert (counters.edge_bytes, counters.peer_bytes, counters.uploaded_bytes) == (5, 6, 7)


def test_a_refused_announce_costs_what_it_costs_there() -> None:
    pair = Pair()
    pair.take(announce(SWARM, held=11, total=10))
    assert pair.said == [announce(SWARM, held=11, total=10)]


def test_a_lost_ask_is_sealed_anew_under_another_counter() -> None:
    pair = Pair()
    pair.take(announce(SWARM))
    pair.is_lost = lambda is_answer: len(pair.datagrams) == 2
    pair.take(Locate(5, SWARM))
    assert not pair.redirects
    pair.wait(5)
    assert len(pair.redirects) == 1
    assert len({datagram[8:16] for datagram in pair.datagrams}) == len(pair.datagrams) == 3
    assert not pair.said


def test_a_deaf_door_is_given_up_for_a_while() -> None:
    pair = Pair()
    pair.take(announce(SWARM))
    pair.is_lost = lambda is_answer: True
    pair.take(Locate(5, SWARM))
    pair.take(announce(SWARM, spare=2))
    pair.wait(10)
    assert sorted(map(type, pair.said), key=str) == [Announce, Locate]
    assert len(pair.redirects) == 1
    assert len(pair.datagrams) == 1 + 2 * TRIES
    pair.take(Locate(6, SWARM))
    assert len(pair.datagrams) == 1 + 2 * TRIES
    pair.is_lost = lambda is_answer: False
    pair.wait(REST_SECONDS)
    pair.take(Locate(7, SWARM))
    assert len(pair.datagrams) == 2 + 2 * TRIES
    assert [found.request for found in pair.redirects] == [5, 6, 7]


def test_before_anything_was_answered_one_try_is_enough() -> None:
    pair = Pair()
    pair.is_lost = lambda is_answer: True
    pair.take(Locate(5, SWARM))
    pair.wait(1)
    assert len(pair.datagrams) == 1
    assert [found.request for found in pair.redirects] == [5]


def test_a_later_announce_makes_an_earlier_one_pointless() -> None:
    pair = Pair()
    pair.take(announce(infohash("other")))
    lost = len(pair.datagrams) + 1
    pair.is_lost = lambda is_answer: len(pair.datagrams) == lost
    pair.take(announce(SWARM, held=1))
    pair.take(announce(SWARM, held=9))
    pair.wait(10)
    assert len(pair.datagrams) == lost + 1
    holder = pair.core.swarms.find(SWARM, node("viewer"))
    assert holder is not None
    assert holder.held == 9


def test_a_ticket_is_kept_while_it_is_fresh() -> None:
    pair = Pair()
    for seconds in (0, 15, 15, 15):
        pair.wait(seconds)
        pair.take(Locate(5, SWARM))
    first, *others = pair.redirects
    tickets.check(first.ticket, tracker=TRACKER_ID, viewer=node("viewer"), infohash=SWARM, now=pair.now)
    assert [found.ticket for found in others] == [first.ticket] * 3
    pair.wait(OUT_OF_TURN_SECONDS / 2)
    pair.take(Locate(6, SWARM))  # as after a source has refused it
    assert pair.redirects[-1].ticket != first.ticket
    renewed = pair.redirects[-1].ticket
    pair.wait(TICKET_FRESH_SECONDS + 1)
    pair.take(Locate(7, SWARM))
    assert pair.redirects[-1].ticket not in (first.ticket, renewed)


def test_a_seal_is_renewed_before_it_ends_and_asks_under_way_move_over() -> None:
    pair = Pair()
    pair.take(announce(SWARM))
    pair.wait(2600)
    pair.is_lost = lambda is_answer: len(pair.datagrams) == 2
    pair.wait(99.9)
    pair.take(Locate(5, SWARM))
    pair.wait(10)  # the new seal comes before the second try
    pair.wait(3600)
    pair.take(Locate(6, SWARM))
    assert [found.request for found in pair.redirects] == [5, 6]
    assert not pair.said
    assert len({datagram[1:8] for datagram in pair.datagrams}) == 3


def test_old_answers_and_noise_are_passed_over() -> None:
    pair = Pair()
    pair.take(announce(SWARM))
    pair.is_lost = lambda is_answer: True
    pair.take(Locate(5, SWARM))
    (answer,) = exchange(pair.core, [pair.datagrams[-1]], pair.now)
    for wrong in (b"", b"\x09", answer[:-1], answer[:40], bytes(1200), b"\x08" + answer[1:], answer * 2):
        pair.link.receive(wrong, pair.now)
    for at in range(0, len(answer), 29):
        forged = bytearray(answer)
        forged[at] ^= 1
        pair.link.receive(bytes(forged), pair.now)
    pair.pump()
    assert not pair.heard
    for _ in range(2):
        pair.link.receive(answer, pair.now)
        pair.pump()
    assert len(pair.heard) == 1


def test_without_a_seal_everything_goes_over_the_connection() -> None:
    link = SealedLink()
    assert not link.take(announce(SWARM), NOW)
    assert link.refused(Refusal(SEAL_REQUEST, Reason.NOT_ALLOWED))
    assert not link.refused(Refusal(5, Reason.NOT_ALLOWED))
    assert not link.take(announce(SWARM), NOW)


def seal(worker: int = 0, workers: int = 1, at: str = "") -> Seal:
    return Seal(SEAL_REQUEST, bytes([worker]) * 7, bytes(16), bytes([1] * 16), 3600, worker, workers, at)


def test_each_worker_is_asked_for_its_own_infohashes() -> None:
    link = SealedLink()
    for worker in range(3):
        link.given(seal(worker, 3, f"192.0.2.1:{worker + 1}"), NOW)
    for first in range(6):
        assert link.take(announce(InfoHash(bytes([first]) * 32)), NOW)
    sent = []
    while (action := link.next_action()) is not None:
        if isinstance(action, Datagram):
            sent.append((action.at, action.data[1]))
    assert sent == [(HostPort("192.0.2.1", n % 3 + 1), n % 3) for n in range(6)]


@pytest.mark.parametrize("wrong", [seal(3, 3), seal(at="nowhere at all")])
def test_a_seal_that_cannot_be_used_costs_the_connection(wrong: Seal) -> None:
    with pytest.raises(ProtocolError):
        SealedLink().given(wrong, NOW)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_whatever_is_lost_every_locate_is_answered_once(fates: list[bool], count: int) -> None:
    pair = Pair()
    left = list(fates)
    pair.is_lost = lambda is_answer: bool(left) and left.pop()
    for number in range(count):
        pair.take(Locate(number + 1, SWARM))
        pair.wait(0.3)
    pair.wait(30)
    assert sorted(found.request for found in pair.redirects) == list(range(1, count + 1))
    assert len({datagram[1:16] for datagram in pair.datagrams}) == len(pair.datagrams)
