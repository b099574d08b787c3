"""How many pieces to send at once: few, as long as more of them would not bring more out.

What is under way cannot be overtaken, so a piece that is needed at once waits for all that were begun
before it: on a line of 20 Mbit/s, 64 of them take seven seconds. But how much the line carries, nobody
tells us, and guests on slow lines need many turns side by side to fill a fast one. So it is tried: while
requests wait, half as many slots again are opened; if clearly more goes out with them they stay, else
they are closed and it is tried again later.
"""

from __future__ import annotations

FIRST_SLOTS = 6
GROWTH = 1.5
GAIN = 1.15  # times what went out before: with half as many slots again, of which a third could be noise
TURNS_PER_SLOT = 3  # that a rate is taken over
LEAST_SECONDS = 0.3
REST_SECONDS = 20.0  # after a try that brought nothing


class Slots:
    """`count` of them; `most` bounds the memory that they take."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = min(FIRST_SLOTS, most)
        self._before: tuple[int, float] | None = None  # slots, and bytes/s with them, while more are tried
        self._began_at: float | None = None
        self._turns = self._bytes = 0
        self._rest_until = float("-inf")

    def ended(self, size: int) -> None:
        """A turn is over in which so many bytes were to leave."""
        self._turns += 1
        self._bytes += size

    def look(self, *, is_short: bool, now: float) -> None:
        """Now and then: whether requests wait for nothing but a slot."""
        if not is_short or self._began_at is None:
            self._begin(now if is_short else None)
            return
        seconds = now - self._began_at
        if self._turns >= TURNS_PER_SLOT * self.count and seconds >= LEAST_SECONDS:
            self._judge(self._bytes / seconds, now)
            self._begin(now)

    def _begin(self, at: float | None) -> None:
        self._began_at = at
        self._turns = self._bytes = 0

    def _judge(self, rate: float, now: float) -> None:
        if self._before is not None and rate < GAIN * self._before[1]:
            self.count, self._before = self._before[0], None
            self._rest_until = now + REST_SECONDS
        elif now >= self._rest_until and self.count < self.most:
            self._before = (self.count, rate)
            self.count = min(self.most, round(GROWTH * self.count))
        else:
            self._before = None
