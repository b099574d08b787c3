"""One direction of an emulated path, without I/O: a bottleneck with its queue, delay, and random loss."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

CLUMP_SECONDS = 0.001  # datagrams that came together may leave together within so long

Way = TypeVar("Way")


@dataclass(frozen=True, slots=True)
class Clump(Generic[Way]):
    """Datagrams of one size (the last may be shorter) that arrive together."""

    way: Way  # whose they are
    due_at: float
    payload: bytes
    segment_bytes: int


class Path(Generic[Way]):
    """Takes datagrams at one end, gives them back in order at the other when they are due."""

    def __init__(
        self, *, rate: float, delay_seconds: float, loss: float, queue_bytes: int, seed: int
    ) -> None:
        self.passed = 0
        self.lost = 0  # at random
        self.dropped = 0  # by the queue
        self._rate = rate
        self._delay_seconds = delay_seconds
        self._loss = loss
        self._queue_bytes = queue_bytes
        self._rng = Random(seed)
        self._free_at = 0.0  # when the bottleneck has sent all it took
        self._clumps: deque[Clump[Way]] = deque()

    def take(self, way: Way, payload: bytes, segment_bytes: int, now: float) -> None:
        """Datagrams that came in together, `segment_bytes` each but for the last."""
        group: list[bytes] = []
        begun_at = now
        for start in range(0, len(payload), segment_bytes):
            segment = payload[start : start + segment_bytes]
            if not self._admit(len(segment), now):
                continue
            if group and self._free_at - begun_at > CLUMP_SECONDS:
                self._close(way, group, segment_bytes)
                group = []
            if not group:
                begun_at = self._free_at
            group.append(segment)
        self._close(way, group, segment_bytes)

    def pop_due(self, now: float) -> Clump[Way] | None:
        """The next clump that has arrived, if any."""
        if self._clumps and self._clumps[0].due_at <= now:
            return self._clumps.popleft()
        return None

    def next_at(self) -> float | None:
        """When the next one arrives."""
        return self._clumps[0].due_at if self._clumps else None

    def _admit(self, size: int, now: float) -> bool:
        if self._rng.random() < self._loss:
            self.lost += 1
            return False
        self._free_at = max(self._free_at, now)
        if (self._free_at - now) * self._rate + size > self._queue_bytes:
            self.dropped += 1
            return False
        self._free_at += size / self._rate
        self.passed += 1
        return True

    def _close(self, way: Way, group: list[bytes], segment_bytes: int) -> None:
        if group:
            due_at = self._free_at + self._delay_seconds
            self._clumps.append(Clump(way, due_at, b"".join(group), segment_bytes))
