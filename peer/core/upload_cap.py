"""The upload cap: strictly under 60 % of the uplink, over every window from outside.

The gate keeps every window of a second, and from 7 Mbit/s of line on every window of 100 ms, to 1.0165
times its rate. 58.6 % of the line as a rate therefore peaks at 59.6 %; what is left to 60 % is for
acknowledgements, which do not wait.

What may be spared for others is the cap less what is going out now; the tracker hears its
class when it changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.core import spare
from shared.core.shape import PIECE_BYTES

CAP_SHARE = 0.60  # the promise: never reached
AIMED_SHARE = 0.586  # the gate's PEAK and what cannot wait come on top
SLOT_SECONDS = 0.5  # of the line: what is under way at once, so that the urgent goes next
LEAST_SLOTS = 3  # two fill the line while a third is acknowledged
LEAST_UPLINK = 16_000.0  # bytes/s; below it a second is a handful of datagrams


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
        return AIMED_SHARE * self._uplink_rate

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
