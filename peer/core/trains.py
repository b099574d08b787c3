"""When to measure the line, and what a measurement tells.

A *train* is some bytes that leave as one burst; the slowest link spreads it out, so the pace at which
it arrives is that link's rate. A *round* is several trains, and the median of them counts.
A shaper lets so much of a burst pass at once as its bucket holds, and a train that the bucket swallows tells
nothing of the line. So a round begins with short trains, and whenever one passed too fast the next is longer.
The gate is never lifted: a train is a burst that was saved up for, see docs/upload-cap.md.
"""

from __future__ import annotations

from collections import deque
from statistics import median

LENGTHS = (11_000, 22_000, 33_000)  # bytes; the longest still fits into a second of an estimate's cap
WIRE_SHARE = 1.14  # of a byte, at most, with all headers and the acknowledgement of the answer
TRAINS = 5  # that told something make a round
MOST_TRAINS = 13  # in a round, before it is given up
LEAST_COUNTED = (
    0.25  # of a train, after its first half: less, and the edge saw too much of it at once to tell
)
LEAST_MICROSECONDS = (
    6_000  # a train that passed faster is too short for the line's bucket and the edge's clock
)
GAP_SECONDS = 2.0  # silence between trains
ROUND_SECONDS = 6 * 3600.0
RETRY_SECONDS = 900.0  # after a round that told nothing; the edge refuses more
DAY_SECONDS = 86_400.0
BUDGET_SHARE = 0.02  # of a day's budget
BUDGET_BYTES = 1_000_000  # a day, where there is no budget


class Trains:
    """Plans trains; `day_budget` is in bytes, None for no bound."""

    def __init__(self, day_budget: int | None) -> None:
        self._budget = BUDGET_BYTES if day_budget is None else min(BUDGET_BYTES, BUDGET_SHARE * day_budget)
        self._network: str | None = None
        self._due_at = 0.0
        self._spent: deque[tuple[float, float]] = deque()  # when trains of the last day left, and their bytes
        self._tried = 0
        self._length = 0  # an index
        self._rates: list[float] = []

    @property
    def next_bytes(self) -> int:
        """How long the next train is."""
        return LENGTHS[self._length]

    def due(self, network: str, now: float) -> bool:
        """A train should leave now, if the line is idle. Another network is measured anew at once."""
        if network != self._network:
            self._network, self._due_at = network, now
            self._tried, self._length, self._rates = 0, 0, []
        while self._spent and not now - DAY_SECONDS < self._spent[0][0] <= now:
            self._spent.popleft()
        spent = sum(size for _, size in self._spent)
        return now >= self._due_at and spent + WIRE_SHARE * self.next_bytes <= self._budget

    def left(self, now: float) -> None:
        """A train leaves."""
        self._spent.append((now, WIRE_SHARE * self.next_bytes))
        self._tried += 1
        self._due_at = now + GAP_SECONDS

    def told(self, counted_bytes: int, microseconds: int, wire_share: float, now: float) -> float | None:
        """The last train was answered; `wire_share` is bytes on the wire per byte.

        Returns the line's rate in bytes/s of IP packets at the end of a round that told it. A line on which
        the longest train passes too fast is believed to carry just what would have been slow enough.
        """
        is_told = LEAST_COUNTED * self.next_bytes <= counted_bytes <= self.next_bytes
        is_longest = self._length == len(LENGTHS) - 1
        if not is_longest and (not is_told or microseconds < LEAST_MICROSECONDS):
            self._length += 1
            self._rates = []
        elif is_told:
            wire_bytes = counted_bytes * min(WIRE_SHARE, max(1.0, wire_share))
            self._rates.append(1e6 * wire_bytes / max(microseconds, LEAST_MICROSECONDS))
        return self._end(now)

    def failed(self, now: float) -> None:
        """The last train was not answered, was refused, or was cut."""
        self._end(now)

    def _end(self, now: float) -> float | None:
        is_round = len(self._rates) >= TRAINS
        if not is_round and self._tried < MOST_TRAINS:
            return None
        rate = median(self._rates) if is_round else None
        self._due_at = now + (RETRY_SECONDS if rate is None else ROUND_SECONDS)
        self._tried, self._length, self._rates = 0, 0, []
        return rate
