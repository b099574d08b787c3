"""Whether our own sending has filled the line, found out by asking it: send less, and see.

A queue before the line may be ours, or somebody's in the house whose traffic the counters do not
show. Seen from here they look alike, until we send less: a queue of ours drains at once, others'
stays. So when a queue stands (or packets of most connections are lost) while we send, a *trial*
sends half of what the line carried. If the queue is gone within TRIAL_SECONDS, the line was full of
ours, and what it carried before is what it can carry. If it is not, nothing is concluded, and the next
trial waits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

from peer.core.line import PathSample

QUEUE_SECONDS = 0.025  # stands
SHORT_QUEUE_SECONDS = 0.012  # stands, when something else than the gate holds us back
DRAINED_SECONDS = 0.008
STANDING_SECONDS = 0.5
LOSS_SHARE = 0.04  # of what was sent lately, in at least half of the connections
LEAST_LOST = 5  # datagrams
HALF = 0.5  # seconds over which rates are taken
CARRIED_SECONDS = 2.0  # of which the best half second is what the line carries
TRIAL_SECONDS = 3.0
SETTLE_SECONDS = 0.8  # of a trial, before the queue is looked at: old round trips must have left
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


@dataclass(slots=True)
class _Trial:
    began_at: float
    carried_rate: float
    by_loss: bool


class FullLine:
    """Watches, and says `limit_rate` while a trial runs; `verdict` is taken once after one."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float, int, tuple[PathSample, ...]]] = deque()
        self._rates: deque[tuple[float, float]] = deque()
        self._standing_since: float | None = None
        self._trial: _Trial | None = None
        self._rest_until = -inf
        self._rest_seconds = REST_SECONDS
        self._last_at: float | None = None

    @property
    def limit_rate(self) -> float:
        """The most that a trial lets us send, bytes/s; infinite without one."""
        return inf if self._trial is None else self._trial.carried_rate / 2

    def moved(self) -> None:
        """Another network, or a clock that jumped: nothing of before counts."""
        self._recent.clear()
        self._rates.clear()
        self._standing_since = self._trial = self._last_at = None
        self._rest_until, self._rest_seconds = -inf, REST_SECONDS

    def sample(self, queue_seconds: float, traffic: Traffic, now: float) -> float | None:
        """The rate that the line turned out to carry when full, or None, nearly always."""
        self._note(traffic, now)
        if self._trial is not None:
            return self._judge(self._trial, queue_seconds, now)
        if not self._is_standing(queue_seconds, traffic, now):
            self._standing_since = None
        elif self._standing_since is None:
            self._standing_since = now
        elif now >= self._standing_since + STANDING_SECONDS and now >= self._rest_until:
            carried = max((rate for _, rate in self._rates), default=0.0)
            self._trial = _Trial(now, carried, queue_seconds <= SHORT_QUEUE_SECONDS)
        return None

    def _note(self, traffic: Traffic, now: float) -> None:
        """Keep half a second of traffic, and what the line carried in the half seconds before."""
        last, self._last_at = self._last_at, now
        if last is None or now <= last:
            return
        delivered = sum(path.delivered_bytes for path in traffic.paths)
        passed = now - last
        self._recent.append(
            (now, delivered + traffic.household_rate * passed, traffic.sent_bytes, traffic.paths)
        )
        while len(self._recent) > 1 and self._recent[0][0] <= now - HALF:
            self._recent.popleft()
        rate = sum(one[1] for one in self._recent) / max(HALF, passed)
        self._rates.append((now, rate))
        while self._rates[0][0] < now - CARRIED_SECONDS:
            self._rates.popleft()

    def _is_standing(self, queue_seconds: float, traffic: Traffic, now: float) -> bool:
        sent_rate = sum(one[2] for one in self._recent) / HALF
        if sent_rate < LEAST_USE * traffic.allowed_rate:
            return False
        held_back = sent_rate < 0.93 * traffic.allowed_rate
        return (
            queue_seconds > QUEUE_SECONDS
            or (held_back and queue_seconds > SHORT_QUEUE_SECONDS)
            or (self._loses() and queue_seconds > DRAINED_SECONDS / 2)
        )

    def _loses(self) -> bool:
        """Most connections that send lose packets: not one bad path."""
        sent: dict[object, int] = {}
        lost: dict[object, int] = {}
        for _, _, _, paths in self._recent:
            for path in paths:
                sent[path.path] = sent.get(path.path, 0) + path.sent_datagrams
                lost[path.path] = lost.get(path.path, 0) + path.lost_datagrams
        senders = [path for path, count in sent.items() if count >= LEAST_LOST]
        losers = [path for path in senders if lost[path] > LOSS_SHARE * sent[path]]
        return 2 * len(losers) > len(senders) and sum(lost.values()) >= LEAST_LOST

    def _judge(self, trial: _Trial, queue_seconds: float, now: float) -> float | None:
        passed = now - trial.began_at
        if passed < SETTLE_SECONDS:
            return None
        is_clear = not self._loses() if trial.by_loss else queue_seconds < DRAINED_SECONDS
        if not is_clear and passed < TRIAL_SECONDS:
            return None
        self._trial = self._standing_since = None
        self._rest_seconds = REST_SECONDS if is_clear else min(LONGEST_REST_SECONDS, 2 * self._rest_seconds)
        # What was found is soon checked: it may still be too much.
        self._rest_until = now + (2.0 if is_clear else self._rest_seconds)
        return trial.carried_rate if is_clear else None
