"""What the tracker is told of each title's bytes: our counters, those that have grown since it was told.

Counters run from our start, and the tracker takes differences, so what is told twice counts once:
whenever it is connected anew it is told everything again, because it may have died before it noted
what it heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from peer.core.fetch import Fetch
from shared.core.ids import InfoHash
from shared.core.messages import MAX_USES, Use


class Tally:
    """Which counters the tracker knows."""

    def __init__(self) -> None:
        self._told: dict[InfoHash, Use] = {}
        self._run = 0

    def forget(self) -> None:
        """A tracker is connected: it may know nothing."""
        self._told.clear()

    def run(self, now: float) -> int:
        """When our counters began, as we first told it."""
        self._run = self._run or max(1, int(now * 1000))
        return self._run

    def news(self, fetches: Iterable[Fetch], given: Mapping[InfoHash, int]) -> tuple[Use, ...]:
        """Counters that the tracker does not know yet, as many as a Report takes; the rest comes next."""
        news: list[Use] = []
        for fetch in fetches:
            infohash = fetch.infohash
            use = Use(infohash, fetch.edge_bytes, fetch.peer_bytes, given.get(infohash, 0))
            if use != self._told.get(infohash, Use(infohash, 0, 0, 0)):
                self._told[infohash] = use
                news.append(use)
                if len(news) == MAX_USES:
                    break
        return tuple(news)
