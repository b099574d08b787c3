"""Token buckets and windows, which bound a rate, and meters, which report one.

A bucket holds at most `burst_bytes` and gains `rate` bytes a second. Over any stretch of W
seconds that ends with a level of L, exactly `rate x W + level before - L` bytes were taken, so
a taker who waits until its bytes are there never exceeds `rate x W + burst_bytes`. Taking more
than is there leaves a debt, which later takers wait out.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import exp, inf

WINDOW_GRAINS = 500  # bounds how many entries a window has
EDGE_SECONDS = 1e-5  # nobody's clock is finer: both ends of a window belong to it
ROUNDING = 1e-12


class TokenBucket:
    """Bytes that may be spent: `rate` bytes/s, at most `burst_bytes` saved up; starts full."""

    def __init__(self, rate: float, burst_bytes: float) -> None:
        _check(rate, burst_bytes)
        self._rate = rate
        self._burst_bytes = burst_bytes
        self._level = float(burst_bytes)
        self._counted_at = -inf  # tokens are minted up to here, and never twice

    @property
    def rate(self) -> float:
        """Bytes per second gained."""
        return self._rate

    @property
    def burst_bytes(self) -> float:
        """The most that can be saved up."""
        return self._burst_bytes

    def available(self, now: float) -> float:
        """Bytes that may be taken at `now`; negative while there is a debt."""
        self._mint(now)
        return self._level

    def take(self, count: float, now: float) -> None:
        """Spend `count` bytes; the level may go below zero."""
        self._mint(now)
        self._level -= count

    def ready_at(self, count: float, now: float) -> float:
        """When `count` bytes will be there if nobody takes any; `now` if they are, `inf` if never."""
        missing = count - self.available(now)
        if missing <= 0:
            return now
        if count > self._burst_bytes or self._rate == 0:
            return inf
        # After a backward step of the clock nothing is minted until it has caught up.
        return max(now, self._counted_at) + missing / self._rate

    def set_rate(self, rate: float, now: float, burst_bytes: float | None = None) -> None:
        """Gain `rate` from `now` on; what was saved or owed stays, cut to the new burst."""
        self._mint(now)
        burst_bytes = self._burst_bytes if burst_bytes is None else burst_bytes
        _check(rate, burst_bytes)
        self._rate = rate
        self._burst_bytes = burst_bytes
        self._level = min(self._level, burst_bytes)

    def empty(self, now: float) -> None:
        """Forget what was saved; a debt stays."""
        self._mint(now)
        self._level = min(self._level, 0.0)

    def _mint(self, now: float) -> None:
        if now <= self._counted_at:
            return
        if self._level < self._burst_bytes and self._rate > 0:
            self._level = min(self._burst_bytes, self._level + self._rate * (now - self._counted_at))
        self._counted_at = now


class RateWindow:
    """How much (bytes, or the time they take at a rate) passed in the last `seconds`; never less than
    really did: what passed close together counts as having passed at the end of that time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._kept_seconds = seconds + EDGE_SECONDS
        self._entries: deque[_Passed] = deque()  # oldest first
        self._total = 0.0
        self._now = -inf

    def add(self, amount: float, now: float) -> None:
        """Count what passed at `now`; a clock that steps back is taken to stand still."""
        self._forget(now)
        self._total += amount
        last = self._entries[-1] if self._entries else None
        if last is not None and self._now < last.first_at + self.seconds / WINDOW_GRAINS:
            last.last_at = self._now
            last.amount += amount
        else:
            self._entries.append(_Passed(self._now, self._now, amount))

    def total(self, now: float) -> float:
        """What passed after `now - seconds`."""
        self._forget(now)
        return self._total

    def ready_at(self, bound: float, now: float) -> float:
        """When no more than `bound` will have passed in the last `seconds`: `now`, or later."""
        if bound < -ROUNDING:
            return inf
        left = self.total(now)
        for entry in self._entries:
            if left <= bound:
                return now
            left -= entry.amount
            now = max(now, entry.last_at + self._kept_seconds)
        return now

    def _forget(self, now: float) -> None:
        self._now = max(now, self._now)
        while self._entries and self._entries[0].last_at + self._kept_seconds <= self._now:
            self._total -= self._entries.popleft().amount
        if not self._entries:
            self._total = 0.0  # sums of fractions drift


@dataclass(slots=True)
class _Passed:
    first_at: float
    last_at: float
    amount: float


class RateMeter:
    """An exponentially weighted bytes-per-second figure for screens; never a reason to send."""

    def __init__(self, time_constant_seconds: float = 2.0) -> None:
        if not 0 < time_constant_seconds < inf:
            raise ValueError(f"a time constant of {time_constant_seconds} s")
        self._time_constant = time_constant_seconds
        self._weight = 0.0  # bytes, decayed to _counted_at
        self._counted_at = -inf

    def add(self, count: float, now: float) -> None:
        """Count bytes that passed at `now`."""
        self._decay(now)
        self._weight += count

    def rate(self, now: float) -> float:
        """Bytes per second, lately."""
        self._decay(now)
        return self._weight / self._time_constant

    def _decay(self, now: float) -> None:
        if now > self._counted_at:
            if self._weight:
                self._weight *= exp((self._counted_at - now) / self._time_constant)
            self._counted_at = now


def _check(rate: float, burst_bytes: float) -> None:
    if not 0 <= rate < inf or not 0 < burst_bytes < inf:
        raise ValueError(f"a bucket of {rate} bytes/s and {burst_bytes} bytes")
