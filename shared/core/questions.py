"""Questions that wait for an answer: each is given up after a while, and the answer may still come then.

What was given up is remembered for a while, so that who answers late offends nobody. Nothing here grows
without bound, whatever the other side leaves unanswered.
"""

from __future__ import annotations

from typing import Generic, TypeVar

MAX_QUESTIONS = 256  # open, and as many given up
ANSWER_SECONDS = 15.0  # a person has given up by then
NO_CLOCK_YET = float("-inf")
FOREVER = float("inf")

About = TypeVar("About")


class Questions(Generic[About]):
    """What was asked, by the number that the answer will name."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[About, float]] = {}  # until when
        self._late: dict[int, About] = {}  # given up, oldest first

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_full(self) -> bool:
        """No other question may be asked now."""
        return len(self._open) >= MAX_QUESTIONS

    def ask(self, number: int, about: About, now: float | None = None) -> None:
        """Waits for an answer from `now` on, or from the next `give_up` on where there is no clock.

        When there are too many, the oldest is given up for it: whoever minds looks at `is_full` before.
        """
        if self.is_full:
            oldest = next(iter(self._open))
            self._remember(oldest, self._open.pop(oldest)[0])
        self._open[number] = about, NO_CLOCK_YET if now is None else now + ANSWER_SECONDS

    def answered(self, number: int) -> About | None:
        """What an open question was about; None if it is not open."""
        return self._open.pop(number, (None, 0.0))[0]

    def answered_late(self, number: int) -> About | None:
        """What a question was about that was given up; None if there is none."""
        return self._late.pop(number, None)

    def give_up(self, now: float) -> list[int]:
        """Questions that nobody answered in time, oldest first."""
        given_up = []
        for number, (about, until) in list(self._open.items()):
            if until == NO_CLOCK_YET:
                self._open[number] = about, now + ANSWER_SECONDS
            elif now >= until:
                del self._open[number]
                self._remember(number, about)
                given_up.append(number)
        return given_up

    def _remember(self, number: int, about: About) -> None:
        self._late[number] = about
        if len(self._late) > MAX_QUESTIONS:
            del self._late[next(iter(self._late))]

    def forget(self) -> list[int]:
        """Nobody will answer any of them any more: those that were open, in order."""
        opened = sorted(self._open)
        self._open.clear()
        self._late.clear()
        return opened

    def get_timer(self) -> float:
        """When to call `give_up`."""
        return min((until for _, until in self._open.values()), default=FOREVER)
