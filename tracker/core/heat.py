"""Heat: how much a title is wanted, as counters that decay.

A counter is a value and the moment it was right. Reading it multiplies by exp(-age / constant), so
nothing is swept, nothing is rounded, and a title nobody asks for costs nothing. *Planned heat* is
demand that somebody knows of before it comes: it counts in full from its moment until the release
and decays from then on like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp

from shared.core.ids import InfoHash

HEAT_SECONDS = 3 * 3600.0  # an evening's demand is forgotten by the next; a night does not clear the disks
SURGE_SECONDS = 60.0  # a crowd is noticed within a minute
FEW_ASKS = 20.0  # this many say nothing yet about shares
COLD = 0.01  # a counter below is not worth its memory
SWEPT_AT = 1024  # counters, before the cold ones are looked for the first time


@dataclass(frozen=True, slots=True)
class Planned:
    """Demand that is expected."""

    heat: float
    from_at: float  # it counts from here on
    release_at: float  # and decays from here on
    edges: int = 0  # how many shall hold it; 0: as its heat asks
    regions: frozenset[str] = frozenset()  # where; empty: anywhere


class Heat:
    """Decayed counts of asks, per rendition."""

    def __init__(self, constant_seconds: float = HEAT_SECONDS) -> None:
        self._constant = constant_seconds
        self._counts: dict[InfoHash, tuple[float, float]] = {}
        self._total = (0.0, 0.0)
        self._sweep_at = SWEPT_AT
        self.planned: dict[InfoHash, Planned] = {}

    def add(self, infohash: InfoHash, now: float, amount: float = 1.0) -> None:
        """Somebody asked for it."""
        self._counts[infohash] = (self._decayed(self._counts.get(infohash, (0.0, now)), now) + amount, now)
        self._total = (self._decayed(self._total, now) + amount, now)
        if len(self._counts) > self._sweep_at:
            self._sweep(now)

    def of(self, infohash: InfoHash, now: float) -> float:
        """Its heat: asks, each weighing exp(-age / constant), and what is planned."""
        heat = self.asked(infohash, now)
        planned = self.planned.get(infohash)
        if planned is not None and now >= planned.from_at:
            heat += self._decayed((planned.heat, planned.release_at), now)
        return heat

    def asked(self, infohash: InfoHash, now: float) -> float:
        """Its heat without what is planned."""
        return self._decayed(self._counts[infohash], now) if infohash in self._counts else 0.0

    def total(self, now: float) -> float:
        """All asks together, decayed, without plans."""
        return self._decayed(self._total, now)

    def share(self, infohash: InfoHash, now: float) -> float:
        """The part of all demand that is for this rendition, 0 to 1; small while there is little."""
        return self.asked(infohash, now) / (self.total(now) + FEW_ASKS)

    def plan(self, infohash: InfoHash, planned: Planned) -> None:
        """Expects demand; a plan for the same rendition replaces the one before."""
        self.planned[infohash] = planned

    def warm(self, now: float) -> Iterator[InfoHash]:
        """Every rendition that has been asked for lately or has a plan."""
        for infohash, planned in list(self.planned.items()):
            if now > planned.release_at and self._decayed((planned.heat, planned.release_at), now) < COLD:
                del self.planned[infohash]
        return iter(list(self._counts.keys() | self.planned.keys()))

    def _decayed(self, counter: tuple[float, float], now: float) -> float:
        value, at = counter
        return value * exp(-max(0.0, now - at) / self._constant)

    def _sweep(self, now: float) -> None:
        self._counts = {
            infohash: counter
            for infohash, counter in self._counts.items()
            if self._decayed(counter, now) >= COLD
        }
        self._sweep_at = max(SWEPT_AT, 2 * len(self._counts))
