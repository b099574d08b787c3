"""What the central tier said of other regions: who else holds a rendition, for as long as that is news."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from shared.core.dice import Dice
from shared.core.ids import InfoHash, NodeId
from shared.core.messages import Source
from tracker.core.answers import Answer

FRESH_SECONDS = 30.0  # edges abroad come and go, titles are withdrawn
UNKNOWN_SECONDS = 5.0  # so long a title that nobody knows is not asked for again
REMEMBERED = 10_000  # renditions
EDGES_NAMED = 2  # of those abroad, to a viewer


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of the central tier."""

    sources: tuple[Source, ...]
    fresh_until: float


class Abroad:
    """The latest answers."""

    def __init__(self) -> None:
        self._said: dict[InfoHash, Said] = {}

    def note(self, infohash: InfoHash, sources: Iterable[Source], now: float) -> list[InfoHash]:
        """The central tier named these edges; returns what had to be forgotten for it."""
        return self._keep(infohash, Said(tuple(sources), now + FRESH_SECONDS))

    def note_unknown(self, infohash: InfoHash, now: float) -> list[InfoHash]:
        """No region knows this rendition; as `note`."""
        return self._keep(infohash, Said((), now + UNKNOWN_SECONDS))

    def _keep(self, infohash: InfoHash, said: Said) -> list[InfoHash]:
        self._said.pop(infohash, None)
        self._said[infohash] = said
        forgotten = []
        while len(self._said) > REMEMBERED:
            forgotten.append(next(iter(self._said)))
            del self._said[forgotten[-1]]
        return forgotten

    def is_fresh(self, infohash: InfoHash, now: float) -> bool:
        """Whether asking again would tell nothing new."""
        said = self._said.get(infohash)
        return said is not None and now < said.fresh_until

    def sources(self, infohash: InfoHash) -> tuple[Source, ...]:
        """The edges of other regions that hold it, as far as was said: stale news before none."""
        said = self._said.get(infohash)
        return said.sources if said is not None else ()

    def widen(self, answer: Answer, here: Iterable[NodeId], rng: Dice) -> Answer:
        """The answer with edges of other regions at its end, if none that it names has the title.

        `here`: the edges of this region that have it.
        """
        sources = self.sources(answer.question.infohash)
        named = {choice.node for choice in answer.choices}
        sources = tuple(source for source in sources if source.node not in named)
        if not sources or not named.isdisjoint(here):
            return answer
        start = rng.randrange(len(sources))  # their edges share our viewers
        chosen = (sources[start:] + sources[:start])[:EDGES_NAMED]
        return replace(answer, abroad=chosen)
