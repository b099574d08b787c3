"""The link to the tracker: when it is dialled, and what becomes of open questions."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.actions import Action, Answer, Dial, Send
from shared.core.errors import LocalError
from shared.core.ids import Address, HostPort, Kind, NodeId
from shared.core.messages import Browse, Catalogue
from shared.core.questions import ANSWER_SECONDS, MAX_QUESTIONS
from shared.core.tracker_link import (
    FIRST_PAUSE_SECONDS,
    FOREVER,
    LONGEST_PAUSE_SECONDS,
    TrackerLink,
)
from tests.tracker_parts import NOW, hello

TRACKER = NodeId(b"T" * 32)
STRANGER = NodeId(b"S" * 32)
AT = HostPort("192.0.2.1", 4430)


def link(seed: int = 1) -> TrackerLink:
    return TrackerLink(Address(TRACKER, AT), Random(seed))


def connected(seed: int = 1) -> TrackerLink:
    made = link(seed)
    assert made.connected(TRACKER, hello(Kind.TRACKER))
    return made


def orders(core: TrackerLink) -> list[Action]:
    taken: list[Action] = []
    while (action := core.next_action()) is not None:
        taken.append(action)
    return taken


def test_the_tracker_is_dialled_at_once_and_only_once() -> None:
    core = link()
    assert core.get_timer() <= NOW
    core.handle_timer(NOW)
    core.handle_timer(NOW)
    assert orders(core) == [Dial(TRACKER, AT)]
    assert core.get_timer() == FOREVER


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_pauses_double_within_bounds(seed: int, failures: int) -> None:
    """Every pause lies between half and the whole of 1, 2, 4 ... at most 30 seconds."""
    core, now = link(seed), NOW
    for failure in range(failures):
        whole = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**failure)
        core.handle_timer(now)
        assert core.disconnected(TRACKER, now)
        pause = core.get_timer() - now
        assert whole / 2 <= pause + 1e-6
        assert pause <= whole + 1e-6
        now = core.get_timer()
    assert orders(core) == [Dial(TRACKER, AT)] * failures


def test_pauses_of_different_nodes_differ() -> None:
    pauses = set()
    for seed in range(5):
        core = link(seed)
        core.disconnected(TRACKER, NOW)
        pauses.add(core.get_timer())
    assert len(pauses) == 5


def test_a_connection_makes_the_next_pause_short_again() -> None:
    core = link()
    for _ in range(8):
        core.disconnected(TRACKER, NOW)
    core.connected(TRACKER, hello(Kind.TRACKER))
    assert (core.up, core.get_timer()) == (True, FOREVER)
    core.disconnected(TRACKER, NOW)
    assert not core.up
    assert core.get_timer() <= NOW + FIRST_PAUSE_SECONDS


def test_others_are_not_the_tracker_whatever_they_say() -> None:
    core = link()
    assert not core.connected(STRANGER, hello(Kind.TRACKER))
    assert not core.connected(TRACKER, hello(Kind.PC))
    assert not core.disconnected(STRANGER, NOW)
    assert not core.up


def test_an_answer_goes_to_its_question_once() -> None:
    core = connected()
    request = core.new_request()
    question, answer = Browse(request), Catalogue(request, 0, ())
    core.ask(request, question)
    assert not core.answered(request + 1, answer)
    assert core.answered(request, answer)
    assert not core.answered(request, answer)
    assert orders(core) == [Send(TRACKER, question), Answer(request, answer)]


def test_questions_without_a_tracker_are_answered_with_none() -> None:
    core = connected()
    first, second = core.new_request(), core.new_request()
    core.ask(first, Browse(first))
    orders(core)
    core.disconnected(TRACKER, NOW)
    core.ask(second, Browse(second))
    assert orders(core) == [Answer(first, None), Answer(second, None)]


def test_a_tracker_that_comes_up_anew_has_forgotten_our_questions() -> None:
    core = connected()
    request = core.new_request()
    core.ask(request, Browse(request))
    orders(core)
    core.connected(TRACKER, hello(Kind.TRACKER))
    assert orders(core) == [Answer(request, None)]


def test_open_questions_are_bounded() -> None:
    core = connected()
    for _ in range(MAX_QUESTIONS):
        request = core.new_request()
        core.ask(request, Browse(request))
    with pytest.raises(LocalError, match="try again"):
        core.ask(core.new_request(), Browse(1))


def test_a_question_that_is_not_answered_is_given_up_and_makes_room() -> None:
    core = connected()
    requests = [core.new_request() for _ in range(MAX_QUESTIONS)]
    for request in requests:
        core.ask(request, Browse(request))
    assert core.get_timer() <= NOW  # asking has no clock
    core.handle_timer(NOW)
    orders(core)
    assert core.get_timer() == NOW + ANSWER_SECONDS
    core.handle_timer(NOW + ANSWER_SECONDS - 0.1)
    assert orders(core) == []
    core.handle_timer(NOW + ANSWER_SECONDS)
    assert orders(core) == [Answer(request, None) for request in requests]
    assert core.get_timer() == FOREVER
    core.ask(core.new_request(), Browse(1))


def test_an_answer_after_its_question_was_given_up_is_dropped_without_offence() -> None:
    core = connected()
    request = core.new_request()
    core.ask(request, Browse(request))
    core.handle_timer(NOW)
    core.handle_timer(NOW + ANSWER_SECONDS)
    orders(core)
    assert core.answered(request, Catalogue(request, 0, ()))
    assert orders(core) == []
    assert not core.answered(request, Catalogue(request, 0, ()))
