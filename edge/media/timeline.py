"""Time stamps that a muxer accepts, from whatever a file claims.

Decoding times must rise and no picture may be shown before it is decoded. Transport and
programme streams also restart their clocks (a recording across a channel change); those gaps
are joined. Other formats are believed: a picture may well stand still for a minute there.
"""

from __future__ import annotations

from dataclasses import dataclass

JOIN_SECONDS = 10  # a leap further than this, in either direction, is a new clock


@dataclass(slots=True)
class Timeline:
    """One stream's clock. All times are in ticks of `tick_rate` per second."""

    tick_rate: float
    joins: bool  # whether this container's clocks may restart
    _shift: int = 0
    _last: int | None = None
    _expected: int = 0

    def place(self, dts: int | None, pts: int | None, duration: int) -> tuple[int, int]:
        """(decoding, presentation) times for the next packet or frame; absent ones are filled in."""
        given = dts if dts is not None else pts
        if given is None:
            at = self._expected
        else:
            if self._last is not None and self.joins:
                leap = given + self._shift - self._expected
                if abs(leap) > JOIN_SECONDS * self.tick_rate:
                    self._shift -= leap
            at = given + self._shift
        if self._last is not None and at <= self._last:
            at = self._last + 1
        self._last, self._expected = at, at + max(duration, 1)
        return at, at if pts is None else max(pts + self._shift, at)
