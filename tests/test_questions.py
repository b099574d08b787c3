"""Questions that wait for an answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.core.questions import ANSWER_SECONDS, FOREVER, MAX_QUESTIONS, Questions


@given(st.lists(st.tuples(st.sampled_from(["ask", "answer", "wait"]), st.integers(0, 40)), max_size=60))
def test_each_question_is_answered_or_given_up_once(happenings: list[tuple[str, int]]) -> None:
    """A question is open until its answer or its time, whichever is first; then it is known as late."""
    questions, now, number = Questions[str](), 0.0, 0
    until: dict[int, float] = {}
    late: set[int] = set()
    for happening, size in happenings:
        if happening == "ask":
            number += 1
            questions.ask(number, f"about {number}", now)
            until[number] = now + ANSWER_SECONDS
        elif happening == "answer":
            asked = size % (number + 1)
            assert questions.answered(asked) == (f"about {asked}" if asked in until else None)
            assert questions.answered_late(asked) == (f"about {asked}" if asked in late else None)
            until.pop(asked, None)
            late.discard(asked)
        else:
            now += size / 4
            over = [one for one, at in until.items() if now >= at]
            assert questions.give_up(now) == over
            late.update(over)
            for one in over:
                del until[one]
        assert questions.get_timer() == min(until.values(), default=FOREVER)
        assert len(questions) == len(until)


def test_what_is_never_answered_does_not_grow() -> None:
    questions = Questions[int]()
    for number in range(10 * MAX_QUESTIONS):
        questions.ask(number, number, now=float(number))
        questions.give_up(float(number))
    assert len(questions) <= ANSWER_SECONDS + 1
    remembered = [
        number for number in range(10 * MAX_QUESTIONS) if questions.answered_late(number) is not None
    ]
    assert len(remembered) == MAX_QUESTIONS
    assert remembered[-1] == 10 * MAX_QUESTIONS - 1 - len(questions)


def test_too_many_at_once_give_the_oldest_up() -> None:
    questions = Questions[int]()
    for number in range(MAX_QUESTIONS + 1):
        questions.ask(number, 1 + number, now=0.0)
    assert questions.is_full
    assert questions.answered(0) is None
    assert questions.answered_late(0) == 1
    assert questions.answered(MAX_QUESTIONS) == 1 + MAX_QUESTIONS


def test_who_is_gone_answers_nothing() -> None:
    questions = Questions[int]()
    for number in (3, 1, 2):
        questions.ask(number, number, now=0.0)
    assert questions.forget() == [1, 2, 3]
    assert questions.answered(1) is questions.answered_late(1) is None
    assert questions.get_timer() == FOREVER
