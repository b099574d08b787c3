"""One heap of timers for many owners, cheap for timers that mostly move later.

An owner's time may change with every datagram. Only a move to an *earlier* time is pushed; an
entry that turns out too early when it comes up is put back at the owner's time. So an owner's
entries form a stack, earliest on top, of a handful: idle time-out, probe, acknowledgement.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count
from math import inf
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)


class Timers(Generic[Owner]):
    """When each owner wants to be woken."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Owner]] = []
        self._serial = count()  # owners need no order
        self._wake_at: dict[Owner, float] = {}
        self._queued: dict[Owner, list[float]] = {}  # each owner's entries, earliest last

    def set(self, owner: Owner, wake_at: float) -> None:
        """Wake `owner` at that time instead of the one before; `inf` for never."""
        self._wake_at[owner] = wake_at
        queued = self._queued.setdefault(owner, [])
        if wake_at < inf and (not queued or wake_at < queued[-1]):
            queued.append(wake_at)
            heapq.heappush(self._heap, (wake_at, next(self._serial), owner))

    def discard(self, owner: Owner) -> None:
        """The owner is gone, for good."""
        self._wake_at.pop(owner, None)
        self._queued.pop(owner, None)

    def next_at(self) -> float:
        """No owner is due before that time."""
        return self._heap[0][0] if self._heap else inf

    def pop_due(self, now: float) -> Owner | None:
        """An owner whose time has come, or None. It must be set again."""
        while self._heap and self._heap[0][0] <= now:
            _, _, owner = heapq.heappop(self._heap)
            queued = self._queued.get(owner)
            if not queued:
                continue  # gone since
            queued.pop()
            if self._wake_at[owner] <= now:
                return owner
            self.set(owner, self._wake_at[owner])
        return None
