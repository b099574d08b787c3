"""What the line can carry, and how far that is believed.

* *Configured*: the user said it. It is believed, until the line is seen full with less.
* *Estimated*: nobody knows. It begins as for a slow line; whenever the line is seen full, what it
  carried then is what it can carry. Until that has happened three times it is used with care.

* *Measured*: nobody knows, but trains of bytes to an edge told (`peer.core.trains`). Whoever answers may lie
  or err: it is bounded, and where the line was seen full it is not believed far beyond that.

A line is *full* when a queue stands before it that our own sending made (`peer.core.full_line`).
That is the only moment at which traffic tells the capacity; less traffic says nothing.

A line that carried less than was believed is believed to carry just that, CORRECTION_SECONDS long
(then the belief before gets another chance: a neighbour in the house may have been sending), and
twice as long each time it happens again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

ESTIMATE_FROM = 250_000.0  # bytes/s; nearly every line can do 2 Mbit/s
LEAST_CORRECTED = 16_000.0  # bytes/s; below it, nothing was measured but a pause
TOLERANCE = 0.95  # of the belief: so much less is within what a measurement errs
CARRIED_SHARE = 0.98  # of what was carried: half a second is measured to 2 %
CORRECTION_SECONDS = 3600.0
LONGEST_CORRECTION_SECONDS = 86_400.0
CONFIDENCE = (0.4, 0.7, 0.8, 0.9)  # of an estimate, by how often the line was seen full
MEASURED_CONFIDENCE = (0.8, 0.9)  # after one measurement, and after others that agree
AGREEING = 0.85  # the smaller of two measurements is that much of the larger
MOST_MEASURED = 12_500_000.0  # bytes/s, 100 Mbit/s: beyond it a train is too short for clocks
BEYOND_FULL = 1.25  # of what the line carried when full: so much more a measurement may say


class Grounds(StrEnum):
    """Why the line is believed to carry what it is believed to."""

    CONFIGURED = "configured"
    ESTIMATED = "estimated"
    MEASURED = "measured"
    CORRECTED = "corrected"  # configured, but seen full with less


@dataclass(frozen=True, slots=True)
class _Correction:
    rate: float
    until: float


class UplinkBelief:
    """The line's capacity in bytes per second of IP packets."""

    def __init__(self, configured_rate: float) -> None:
        """`configured_rate` 0: nobody said."""
        self._configured_rate = configured_rate
        self._estimate = ESTIMATE_FROM
        self._times_full = 0
        self._full_rate = inf  # what it carried when last seen full
        self._measured: tuple[float, ...] = ()  # the last two, bounded, since the line was last seen full
        self._correction: _Correction | None = None
        self._correction_seconds = CORRECTION_SECONDS

    @property
    def rate(self) -> float:
        """What the line is believed to carry."""
        if not self._configured_rate:
            return self._estimate
        return self._correction.rate if self._correction is not None else self._configured_rate

    @property
    def grounds(self) -> Grounds:
        """Why."""
        if not self._configured_rate:
            return Grounds.MEASURED if self._measured else Grounds.ESTIMATED
        return Grounds.CONFIGURED if self._correction is None else Grounds.CORRECTED

    @property
    def confidence(self) -> float:
        """How sure that is, 0 to 1; also the share of it that is used."""
        if self._configured_rate:
            return 1.0
        if self._measured:
            return MEASURED_CONFIDENCE[
                len(self._measured) > 1 and min(self._measured) >= AGREEING * max(self._measured)
            ]
        return CONFIDENCE[min(self._times_full, len(CONFIDENCE) - 1)]

    def seen_full(self, carried_rate: float, now: float) -> None:
        """Our sending filled the line while it carried so much, of ours and the household's."""
        carried_rate *= CARRIED_SHARE
        if carried_rate < LEAST_CORRECTED:
            return
        if not self._configured_rate:
            self._estimate = carried_rate
            self._times_full += 1
            self._full_rate, self._measured = carried_rate, ()
        elif carried_rate < TOLERANCE * self.rate:
            self._correction = _Correction(carried_rate, now + self._correction_seconds)
            self._correction_seconds = min(LONGEST_CORRECTION_SECONDS, 2 * self._correction_seconds)

    def measured(self, rate: float) -> None:
        """Trains told so many bytes/s; ignored where the user said what the line carries."""
        if self._configured_rate or not rate >= LEAST_CORRECTED:
            return
        self._full_rate *= BEYOND_FULL  # a step further each time, as long as it is not seen full again
        self._estimate = min(rate, MOST_MEASURED, self._full_rate)
        self._measured = (*self._measured[-1:], self._estimate)

    def at(self, now: float) -> None:
        """Time passes: corrections end."""
        if self._correction is not None and now >= self._correction.until:
            self._correction = None

    def moved(self) -> None:
        """Another network: what was learnt of the last one is void."""
        self._correction = None
        self._correction_seconds = CORRECTION_SECONDS
        self._estimate = ESTIMATE_FROM
        self._times_full = 0
        self._full_rate, self._measured = inf, ()
