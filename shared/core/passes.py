"""When connections may send bulk data again: passes are spaced, the more the more connections send.

What a pass over a connection costs does not depend on how much it sends. A hundred connections
that each answer every acknowledgement with the few packets it allows would spend all their time on
passes, fall behind, be acknowledged in smaller and smaller parts, and fall further behind. So with
n others sending, each has a pass at most every n x PASS_SECONDS: passes together take a
bounded part of the time, and what collects in between leaves as one batch. A single connection
never waits; one of a hundred sends every 36 ms. Acknowledgements and other control frames do
not wait for passes.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Generic, TypeVar

PASS_SECONDS = 0.0004  # about four times what a pass costs
MAX_SPACING_SECONDS = 0.036  # below what a sender's pace is made up for
COUNTING_SECONDS = 0.1  # how long a connection counts as sending

Sender = TypeVar("Sender", bound=Hashable)


class Passes(Generic[Sender]):
    """Who passed when, and who may next."""

    def __init__(self) -> None:
        self._passed_at: dict[Sender, float] = {}
        self._sending: set[Sender] = set()  # since _counted_at
        self._counted_at = -inf
        self._spacing_seconds = 0.0

    def passed(self, sender: Sender, now: float) -> None:
        """The sender sent bulk data."""
        self._passed_at[sender] = now
        self._sending.add(sender)

    def next_at(self, sender: Sender, now: float) -> float:
        """From when on the sender may pass again."""
        if now >= self._counted_at + COUNTING_SECONDS:
            self._spacing_seconds = min(MAX_SPACING_SECONDS, PASS_SECONDS * max(0, len(self._sending) - 1))
            self._sending.clear()
            self._counted_at = now
        return self._passed_at.get(sender, -inf) + self._spacing_seconds

    def discard(self, sender: Sender) -> None:
        """The sender is gone."""
        self._passed_at.pop(sender, None)
        self._sending.discard(sender)
