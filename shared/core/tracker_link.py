"""Staying connected to the tracker, and matching its answers to our questions.

Dialled at once, again after a failure with doubling pauses (1 s to 30 s, jittered, so that a
restarted tracker is not hit by everybody in the same moment).
"""

from __future__ import annotations

from collections import deque

from shared.core.actions import Action, Answer, Dial, Send
from shared.core.dice import Dice
from shared.core.errors import LocalError
from shared.core.ids import Address, Kind, NodeId
from shared.core.messages import Hello, Message
from shared.core.questions import Questions

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
FOREVER = float("inf")


class TrackerLink:
    """The link of an edge, peer or tool to its tracker."""

    def __init__(self, tracker: Address, rng: Dice) -> None:
        self.tracker = tracker
        self.up = False
        self._rng = rng
        self._retry_at = 0.0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._next_request = 1
        self._questions: Questions[bool] = Questions()
        self._actions: deque[Action] = deque()

    def connected(self, node: NodeId, hello: Hello) -> bool:
        """Whether this was the tracker coming up. Raises nothing: a wrong kind is never up."""
        if node != self.tracker.node or hello.kind is not Kind.TRACKER:
            return False
        self._abandon()
        self.up = True
        self._retry_at = FOREVER
        self._pause_seconds = FIRST_PAUSE_SECONDS
        return True

    def disconnected(self, node: NodeId, now: float) -> bool:
        """Whether this was the tracker going down, or not answering a dial."""
        if node != self.tracker.node:
            return False
        self.up = False
        self._abandon()
        self._retry_at = now + self._pause_seconds * (0.5 + self._rng.random() / 2)
        self._pause_seconds = min(LONGEST_PAUSE_SECONDS, 2 * self._pause_seconds)
        return True

    def _abandon(self) -> None:
        self._actions.extend(Answer(request, None) for request in self._questions.forget())

    def new_request(self) -> int:
        """A number for a request that is about to be `ask`ed."""
        self._next_request += 1
        return self._next_request

    def ask(self, request: int, message: Message) -> None:
        """Sends a request; an Answer follows, with None if the tracker cannot be reached or
        keeps silent. Raises LocalError if too many wait."""
        if self._questions.is_full:
            raise LocalError("too many requests wait for the tracker; try again in a moment")
        if self.up:
            self._questions.ask(request, True)
            self._actions.append(Send(self.tracker.node, message))
        else:
            self._actions.append(Answer(request, None))

    def answered(self, request: int, message: Message) -> bool:
        """Whether `message` answers a request of ours; an Answer follows if it is still open."""
        if self._questions.answered(request):
            self._actions.append(Answer(request, message))
            return True
        return bool(self._questions.answered_late(request))

    def get_timer(self) -> float:
        """When to dial again, or to give a question up."""
        return min(self._retry_at, self._questions.get_timer())

    def handle_timer(self, now: float) -> None:
        """Dials, and gives questions up, when it is time."""
        self._actions.extend(Answer(request, None) for request in self._questions.give_up(now))
        if now >= self._retry_at:
            self._retry_at = FOREVER  # until `disconnected` says that this one failed
            self._actions.append(Dial(self.tracker.node, self.tracker.at))

    def next_action(self) -> Action | None:
        """The next order for the shell, or None."""
        return self._actions.popleft() if self._actions else None
