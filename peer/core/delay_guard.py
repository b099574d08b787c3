"""The delay guard: while a queue stands before the line, we use less than the cap allows.

As LEDBAT (RFC 6817) it aims at TARGET_SECONDS of waiting at most, and moves with how far that is
missed: with twice the target the share halves in half a second, without a queue it grows from a
tenth to all in four seconds. It never falls under LEAST_SHARE: a queue that others make does not go
away because we stop, and a share that is nothing would tell us nothing.
"""

from __future__ import annotations

from math import exp

TARGET_SECONDS = 0.025
LEAST_SHARE = 0.1
FALL_PER_SECOND = 1.4  # ln 4: times how far the target is missed, in targets
MOST_MISSED = 3.0
RISE_SECONDS = 4.0  # from nothing to all, without a queue
JUMP_SECONDS = 2.0  # longer between two calls, and nothing is known


class DelayGuard:
    """`share` of the cap that may be used, LEAST_SHARE to 1."""

    def __init__(self) -> None:
        self.share = 1.0
        self._at: float | None = None

    def sample(self, queue_seconds: float, now: float) -> None:
        """The queue is so long now."""
        before, self._at = self._at, now
        if before is None:
            return
        passed = now - before
        if not 0 <= passed <= JUMP_SECONDS:
            self.share = min(self.share, 0.5)  # asleep, or a clock was set: begin with care
            return
        missed = queue_seconds / TARGET_SECONDS - 1.0
        if missed > 0:
            self.share *= exp(-FALL_PER_SECOND * min(MOST_MISSED, missed) * passed)
        else:
            self.share -= missed * passed / RISE_SECONDS
        self.share = min(1.0, max(LEAST_SHARE, self.share))
