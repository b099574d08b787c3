"""When to measure the line, and what a measurement tells.

A *train* is TRAIN_BYTES that leave as one burst; the slowest link spreads it out, so the pace at which
it arrives is that link's rate. A *round* is several trains, and the median of them counts.
The gate is never lifted: a train is a burst that was saved up for, see docs/upload-cap.md.
"""

from __future__ import annotations

from collections import deque
from statistics import median

TRAIN_BYTES = 11_000  # ten datagrams of any size, which is what leaves at once over a fresh connection
TRAIN_WIRE_BYTES = 12_500  # with all headers and the acknowledgement of the answer
TRAINS = 5  # that told something make a round
MOST_TRAINS = 8  # in a round, before it is given up
LEAST_COUNTED = TRAIN_BYTES // 4  # bytes after the first half: fewer, and the edge woke too late to tell
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
        self._spent: deque[float] = deque()  # when trains of the last day left
        self._tried = 0
        self._rates: list[float] = []

    def due(self, network: str, now: float) -> bool:
        """A train should leave now, if the line is idle. Another network is measured anew at once."""
        if network != self._network:
            self._network, self._due_at = network, now
            self._tried, self._rates = 0, []
        while self._spent and not now - DAY_SECONDS < self._spent[0] <= now:
            self._spent.popleft()
        return now >= self._due_at and (len(self._spent) + 1) * TRAIN_WIRE_BYTES <= self._budget

    def left(self, now: float) -> None:
        """A train leaves."""
        self._spent.append(now)
        self._tried += 1
        self._due_at = now + GAP_SECONDS

    def told(self, counted_bytes: int, microseconds: int, wire_share: float, now: float) -> float | None:
        """The last train was answered; `wire_share` is bytes on the wire per byte.

        Returns the line's rate in bytes/s of IP packets at the end of a round that told it.
        """
        if LEAST_COUNTED <= counted_bytes <= TRAIN_BYTES and microseconds > 0:
            self._rates.append(1e6 * counted_bytes * min(1.15, max(1.0, wire_share)) / microseconds)
        return self._end(now)

    def failed(self, now: float) -> None:
        """The last train was not answered, or was refused."""
        self._end(now)

    def _end(self, now: float) -> float | None:
        is_round = len(self._rates) >= TRAINS
        if not is_round and self._tried < MOST_TRAINS:
            return None
        rate = median(self._rates) if is_round else None
        self._due_at = now + (RETRY_SECONDS if rate is None else ROUND_SECONDS)
        self._tried, self._rates = 0, []
        return rate
