"""Staying connected to a tracker, and matching its answers to our questions.

There may be several: those of the setting, in its order, and the *fellows* that they name. The first
of them that can be reached is our tracker; the next is dialled alongside whenever one takes longer
than PATIENCE_SECONDS to answer, so that a dead one costs little time. When all were tried there is a
doubling pause (1 s to 30 s, jittered, so that a restarted tracker is not hit by everybody in the same
moment). While a later one serves, those before it are tried now and then, and return to office.

Only trackers of the setting can name fellows: one that stands in for another extends nobody's trust.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from shared.core.actions import Action, Answer, Attend, Dial, Hangup, Remember, Send
from shared.core.dice import Dice
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import Address, Kind, NodeId, parse_host_port
from shared.core.messages import Fellow, Fellows, Hello, Message
from shared.core.questions import NO_CLOCK_YET, Questions

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
PATIENCE_SECONDS = 0.6  # for one to answer a dial, before the next is dialled alongside
RETURN_SECONDS = 20.0  # between two tries to get back to a tracker that comes before ours
FOREVER = float("inf")


class TrackerLink:
    """The link of an edge, peer or tool to its tracker."""

    def __init__(
        self, tracker: Address, rng: Dice, *, others: Sequence[Address] = (), fellows: Sequence[Fellow] = ()
    ) -> None:
        """`others`: more trackers of the setting, in order; `fellows`: as remembered from before."""
        self.up = False
        self.fellows: tuple[Fellow, ...] = ()
        self._own = (tracker, *others)
        self._candidates: list[Address] = []
        self._rng = rng
        self._current = tracker
        self._next_candidate = 0  # the one to be dialled next, of this round
        self._dialled: set[NodeId] = set()  # and not heard of since
        self._attentive = False
        self._hasty = False  # as the shell was told
        self._calm = False  # our tracker asked us not to be hasty
        self._retry_at = 0.0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._next_request = 1
        self._questions: Questions[bool] = Questions()
        self._actions: deque[Action] = deque()
        self._follow(tuple(fellows))

    @property
    def tracker(self) -> Address:
        """Our tracker; while none is connected, the one that was, or the first."""
        return self._current

    @property
    def issuers(self) -> frozenset[NodeId]:
        """Whose tickets count."""
        return frozenset(candidate.node for candidate in self._candidates)

    def _follow(self, fellows: tuple[Fellow, ...]) -> None:
        own = {address.node for address in self._own}
        new = [Address(f.node, parse_host_port(f.at)) for f in fellows if f.node not in own]
        # Everybody in an order of their own: the nodes of a tracker that dies are spread over the others.
        ranked = sorted((self._rng.random(), place) for place in range(len(new)))
        self._candidates = [*self._own, *(new[place] for _, place in ranked)]
        self.fellows = fellows

    def learn(self, message: Fellows) -> None:
        """Our tracker named its fellows. Raises ProtocolError for an address that is none."""
        self._calm = bool(message.calm)
        if self._current not in self._own or message.trackers == self.fellows:
            self._attend()
            return
        try:
            self._follow(message.trackers)
        except LocalError as error:
            raise ProtocolError(Reason.MALFORMED, f"a fellow at no address: {error}") from None
        self._actions.append(Remember(message.trackers))
        self._attend()

    # -- connections ----------------------------------------------------------------------------

    def connected(self, node: NodeId, hello: Hello) -> bool:
        """Whether this was a tracker taking office. Raises nothing: a wrong kind never does."""
        place = self._place(node)
        if place is None or hello.kind is not Kind.TRACKER:
            return False
        self._dialled.discard(node)
        before = self._current
        if self.up and before.node != node:
            if self._place(before.node) is not None and place > self._rank:
                self._actions.append(Hangup(node, Reason.CANCELLED, "another tracker was quicker"))
                return False
            self._actions.append(Hangup(before.node, Reason.CANCELLED, "the tracker before it is back"))
        self._abandon()
        self._current = self._candidates[place]
        self.up, self._hasty, self._calm = True, False, False
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self._next_candidate = 0
        self._retry_at = FOREVER
        self._attend()
        return True

    def _place(self, node: NodeId) -> int | None:
        return next((n for n, one in enumerate(self._candidates) if one.node == node), None)

    @property
    def _rank(self) -> int:
        return self._place(self._current.node) or 0

    def disconnected(self, node: NodeId, now: float) -> bool:
        """Whether our tracker is gone, or one of ours did not answer a dial."""
        self._dialled.discard(node)
        if self.up:
            if node != self._current.node:
                return False  # one that we tried to get back to
            self.up = False
            self._abandon()
            self._next_candidate = 1 if self._rank == 0 and len(self._candidates) > 1 else 0
            self._retry_at = now if len(self._candidates) > 1 else now + self._pause()
            return True
        if self._place(node) is None:
            return False
        if self._next_candidate:
            self._retry_at = min(self._retry_at, now)  # the round goes on
        elif not self._dialled:
            self._retry_at = now + self._pause()
        return True

    def _pause(self) -> float:
        pause = self._pause_seconds * (0.5 + self._rng.random() / 2)
        self._pause_seconds = min(LONGEST_PAUSE_SECONDS, 2 * self._pause_seconds)
        return pause

    def attend(self, attentive: bool) -> None:
        """Whether a tracker that falls silent must be noticed soon; costs a ping a second."""
        if attentive != self._attentive:
            self._attentive = attentive
            self._attend()

    def _attend(self) -> None:
        hasty = self._attentive and not self._calm and len(self._candidates) > 1  # else of no use
        if self.up and hasty != self._hasty:
            self._hasty = hasty
            self._actions.append(Attend(self._current.node, hasty))

    # -- questions ------------------------------------------------------------------------------

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

    # -- time -----------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """When to dial again, or to give a question up."""
        if self.up and self._rank and self._retry_at == FOREVER:
            return NO_CLOCK_YET  # to set when those before it are tried
        return min(self._retry_at, self._questions.get_timer())

    def handle_timer(self, now: float) -> None:
        """Dials, and gives questions up, when it is time."""
        self._actions.extend(Answer(request, None) for request in self._questions.give_up(now))
        if self.up and self._rank and self._retry_at == FOREVER:
            self._retry_at = now + RETURN_SECONDS * (0.5 + self._rng.random() / 2)
        elif now >= self._retry_at:
            self._dial(now)

    def _dial(self, now: float) -> None:
        """Dials the next candidate that comes before our tracker; without one, the next of all."""
        last = self._rank if self.up else len(self._candidates)
        place = self._next_candidate
        if place >= last:
            self._next_candidate, self._retry_at = 0, FOREVER
            return
        candidate = self._candidates[place]
        self._dialled.add(candidate.node)
        self._actions.append(Dial(candidate.node, candidate.at))
        self._next_candidate = place + 1 if place + 1 < last else 0
        self._retry_at = now + PATIENCE_SECONDS if self._next_candidate else FOREVER

    def next_action(self) -> Action | None:
        """The next order for the shell, or None."""
        return self._actions.popleft() if self._actions else None
