"""The upload cap: strictly under 60 % of the uplink, over every window from outside.

The gate is a bucket: in any window of W seconds at most rate x W + burst bytes leave. So that
even a window of one second stays under 60 % of a slow line, the burst is taken off first:

    rate = min(58 % of the uplink, 59.8 % of the uplink - burst / 1 s)

What may be spared for others is the cap less what is going out now; the tracker hears its
class when it changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.core import spare
from shared.core.shape import PIECE_BYTES

CAP_SHARE = 0.60  # the promise: never reached
AIMED_SHARE = 0.58  # headroom for clocks and headers we cannot see
WINDOW_SHARE = 0.598
BURST_BYTES = 3_000.0  # two full datagrams: a datagram is never split
BURST_SECONDS = 0.0015  # adds 0.9 % of the line to a window of 100 ms
SLOT_SECONDS = 0.5  # of the line: what is under way at once, so that the urgent goes next
LEAST_SLOTS = 2  # the second fills the line while the first is acknowledged
LEAST_UPLINK = 16_000.0  # bytes/s; below it the burst alone would break the promise


@dataclass(frozen=True, slots=True)
class CapStatistics:
    """Bytes per second; `uplink_rate` is what the line is believed to carry."""

    uplink_rate: float
    cap_rate: float
    up_rate: float

    @property
    def use(self) -> float:
        """The share of the cap in use, 0 to 1."""
        return self.up_rate / self.cap_rate if self.cap_rate else 0.0


class UploadCap:
    """Turns the uplink's rate in bytes/s into the rate of the gate and the class of spare upload."""

    def __init__(self, uplink_rate: float) -> None:
        self._uplink_rate = uplink_rate
        self._up_rate = 0.0

    def gate_rate(self) -> float:
        """Bytes per second, headers included, that may leave; 0 on a line too slow to share."""
        if self._uplink_rate < LEAST_UPLINK:
            return 0.0
        return min(AIMED_SHARE * self._uplink_rate, WINDOW_SHARE * self._uplink_rate - self.burst_bytes())

    def burst_bytes(self) -> float:
        """What may leave at once: two datagrams, or a moment of a fast line."""
        return max(BURST_BYTES, BURST_SECONDS * AIMED_SHARE * self._uplink_rate)

    def slots(self, most: int) -> int:
        """How many pieces to send at the same time, `most` at most. Many at once would all
        be late together; few, and the order of deadlines decides."""
        return min(most, max(LEAST_SLOTS, round(self.gate_rate() * SLOT_SECONDS / PIECE_BYTES)))

    def used(self, up_rate: float) -> None:
        """What leaves the socket at present, bytes per second."""
        self._up_rate = up_rate

    def spare_class(self) -> int:
        """The class of what could still be given."""
        return spare.class_of(max(0.0, self.gate_rate() - self._up_rate))

    def statistics(self) -> CapStatistics:
        """A snapshot for screens."""
        return CapStatistics(self._uplink_rate, self.gate_rate(), self._up_rate)
