"""Whether our own sending has filled the line, found out by asking it: send less, and see.

A queue before the line may be ours, or somebody's in the house whose traffic the counters do not
show. Seen from here they look alike, until we send less: a queue of ours drains at once, others'
stays. So when a queue stands on which the connections agree, a *trial* sends half of what the line
carried. If the queue is gone within TRIAL_SECONDS, the line was full of ours, and what it carried
before is what it can carry. If it is not, nothing is concluded, and the next trial waits.

A line that drops instead of queueing is tried when most connections lose packets although the gate
would let more through. Losses, and queues that are not long, have other causes, too, such as a busy
computer: they count when a second trial within a minute says the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from peer.core.line import PathSample

QUEUE_SECONDS = 0.025  # stands
SHORT_QUEUE_SECONDS = 0.012  # stands, when something else than the gate holds us back
LONG_QUEUE_SECONDS = 0.05  # no computer is busy so long, for all connections at once
DRAINED_SECONDS = 0.008
STANDING_SECONDS = 0.1
HELD_BACK_SHARE = 0.93  # of what the gate allows; who sends less is held back by something else
LOSS_SHARE = 0.015  # of what was sent in LOSS_SECONDS, in most of the connections, at least LEAST_SENDERS
LOSS_SECONDS = 1.0
LOSING_SECONDS = 1.5  # longer than a connection takes to find its pace
LEAST_LOST, LEAST_SENDERS = 5, 3
HALF = 0.5  # seconds over which rates are taken
CARRIED_SECONDS = 1.2  # of which the best half second is what the line carries
TRIAL_SECONDS = 3.0
SETTLE_SECONDS = 0.8  # of a trial, before the queue is looked at: old round trips must have left
HINT_SECONDS = 60.0  # in which a second trial confirms a first
REST_SECONDS = 20.0  # after a trial; doubled each time nothing came of it
LONGEST_REST_SECONDS = 600.0
LEAST_USE = 0.3  # of the cap; who sends less has filled nothing


@dataclass(frozen=True, slots=True)
class Traffic:
    """What passed since the last call."""

    sent_bytes: int  # ours, headers counted
    household_rate: float
    paths: tuple[PathSample, ...]
    allowed_rate: float  # by the gate
    queue_seconds: float
    is_agreed: bool  # on the queue, by the connections


@dataclass(frozen=True, slots=True)
class _Interval:
    """Between two samples."""

    at: float  # its end
    seconds: float
    carried_bytes: float
    sent_bytes: int
    paths: tuple[PathSample, ...]


@dataclass(slots=True)
class _Trial:
    began_at: float
    carried_rate: float
    by_loss: bool
    longest_queue_seconds: float = 0.0


class FullLine:
    """Watches, and says `limit_rate` while a trial runs; `verdict` is taken once after one."""

    def __init__(self) -> None:
        self._recent: deque[_Interval] = deque()  # LOSS_SECONDS of them
        self._rates: deque[tuple[float, float]] = deque()
        self._since: dict[str, float] = {}  # when a queue, or losses, began
        self._trial: _Trial | None = None
        self._rest_until = -inf
        self._rest_seconds = REST_SECONDS
        self._last_at: float | None = None
        self._hinted_at = -inf

    @property
    def limit_rate(self) -> float:
        """The most that a trial lets us send, bytes/s; infinite without one."""
        return inf if self._trial is None else self._trial.carried_rate / 2

    def moved(self) -> None:
        """Another network, or a clock that jumped: nothing of before counts."""
        self._recent.clear()
        self._rates.clear()
        self._since.clear()
        self._trial = self._last_at = None
        self._rest_until, self._rest_seconds, self._hinted_at = -inf, REST_SECONDS, -inf

    def sample(self, traffic: Traffic, now: float) -> float | None:
        """The rate that the line turned out to carry when full, or None, nearly always."""
        self._note(traffic, now)
        if self._trial is not None:
            return self._judge(self._trial, traffic.queue_seconds, now)
        queue = self._lasts("queue", self._is_standing(traffic), STANDING_SECONDS, now)
        losses = self._lasts("losses", self._is_held_back(traffic) and self._loses(), LOSING_SECONDS, now)
        if (queue or losses) and now >= self._rest_until:
            carried = max((rate for _, rate in self._rates), default=0.0)
            self._trial = _Trial(now, carried, by_loss=not queue)
            self._since.clear()
        return None

    def _lasts(self, what: str, is_so: bool, seconds: float, now: float) -> bool:
        if not is_so:
            self._since.pop(what, None)
            return False
        return now >= self._since.setdefault(what, now) + seconds

    def _note(self, traffic: Traffic, now: float) -> None:
        """Keep half a second of traffic, and what the line carried in the half seconds before."""
        last, self._last_at = self._last_at, now
        if last is None or now <= last:
            return
        carried = sum(path.delivered_bytes for path in traffic.paths) + traffic.household_rate * (now - last)
        self._recent.append(_Interval(now, now - last, carried, traffic.sent_bytes, traffic.paths))
        while self._recent[0].at <= now - LOSS_SECONDS:
            self._recent.popleft()
        rate = self._rate_of(lambda interval: interval.carried_bytes)
        self._rates.append((now, rate))
        while self._rates[0][0] < now - CARRIED_SECONDS:
            self._rates.popleft()

    def _is_standing(self, traffic: Traffic) -> bool:
        least = SHORT_QUEUE_SECONDS if self._is_held_back(traffic) else QUEUE_SECONDS
        is_used = self._sent_rate() >= LEAST_USE * traffic.allowed_rate
        return is_used and traffic.is_agreed and traffic.queue_seconds > least

    def _is_held_back(self, traffic: Traffic) -> bool:
        return LEAST_USE * traffic.allowed_rate <= self._sent_rate() < HELD_BACK_SHARE * traffic.allowed_rate

    def _sent_rate(self) -> float:
        return self._rate_of(lambda interval: interval.sent_bytes)

    def _rate_of(self, amount: Callable[[_Interval], float]) -> float:
        """Per second, over the last intervals that make HALF a second."""
        seconds = total = 0.0
        for interval in reversed(self._recent):
            seconds += interval.seconds
            total += amount(interval)
            if seconds >= HALF - 1e-6:
                break
        return total / max(HALF, seconds)

    def _loses(self) -> bool:
        """Most connections that send lose packets: not one bad path."""
        sent: dict[object, int] = {}
        lost: dict[object, int] = {}
        for interval in self._recent:
            for path in interval.paths:
                sent[path.path] = sent.get(path.path, 0) + path.sent_datagrams
                lost[path.path] = lost.get(path.path, 0) + path.lost_datagrams
        senders = [path for path, count in sent.items() if count >= LEAST_LOST]
        losers = [path for path in senders if lost[path] > LOSS_SHARE * sent[path]]
        return len(senders) >= LEAST_SENDERS and 2 * len(losers) > len(senders)

    def _judge(self, trial: _Trial, queue_seconds: float, now: float) -> float | None:
        passed = now - trial.began_at
        trial.longest_queue_seconds = max(trial.longest_queue_seconds, queue_seconds)
        if passed < SETTLE_SECONDS:
            return None
        is_clear = not self._loses() if trial.by_loss else queue_seconds < DRAINED_SECONDS
        if not is_clear and passed < TRIAL_SECONDS:
            return None
        self._trial = None
        self._rest_seconds = REST_SECONDS if is_clear else min(LONGEST_REST_SECONDS, 2 * self._rest_seconds)
        # What was found is soon checked: it may still be too much.
        self._rest_until = now + (1.0 if is_clear else self._rest_seconds)
        return trial.carried_rate if is_clear and self._is_sure(trial, now) else None

    def _is_sure(self, trial: _Trial, now: float) -> bool:
        hinted_at, self._hinted_at = self._hinted_at, now
        is_long = not trial.by_loss and trial.longest_queue_seconds > LONG_QUEUE_SECONDS
        return is_long or now - hinted_at <= HINT_SECONDS
