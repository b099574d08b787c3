"""Which two edges a viewer is given, of all of them in the order of the title.

The first comes from the title's *set*: as many edges at the front of its order as its demand needs,
passing over those that already have more than a fair share of the load (bounded loads: Mirrokni,
Thorup and Zadimoghaddam, 2016). Of two drawn from the set the less loaded is taken (the power of
two choices: Mitzenmacher, 2001). A small set keeps caches warm, two choices keep it level, the guard
keeps a crowd from drowning one edge before its demand has been noticed. The second takes over when
the first is busy or gone, and holds the title if any edge does.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from shared.core.messages import Why

EDGES_WANTED = 2
FAIR_SHARE = 1.25  # times the mean load; 1.25 costs few cache hits and bounds the worst edge
SPREAD = 14.0  # a title with 1/14 of the demand is shared by all edges: less, and a crowd is not spread
# in time; more, and caches hold the same things (`python -m benchmarks.tracker --only simulation`)


class EdgeSeen(msgspec.Struct, frozen=True):
    """An edge as it stood when the choice was made."""

    node: str
    region: str
    near: bool  # in the viewer's region
    capacity_rate: float
    load_rate: float  # with what was promised since its report
    holds: bool
    fetches: bool  # would fetch what it does not hold
    trouble: str  # why nobody new is sent there

    @property
    def is_able(self) -> bool:
        """Whether it could serve this title."""
        return not self.trouble and (self.holds or self.fetches)

    @property
    def use(self) -> float:
        """Load as a share of capacity."""
        return self.load_rate / self.capacity_rate


def replicas(share: float, edges: int, spread: float = SPREAD) -> int:
    """How many edges share a title that has `share` (0 to 1) of the demand."""
    return max(1, min(edges, 1 + int(spread * share * edges)))


def pool_of(seen: Sequence[EdgeSeen]) -> list[int]:
    """Those who could serve: of the viewer's region if there is one, else all; places in `seen`."""
    able = [n for n, edge in enumerate(seen) if edge.is_able]
    near = [n for n in able if seen[n].near]
    return near or able


def members_of(seen: Sequence[EdgeSeen], size: int, fair_use: float) -> list[int]:
    """The edges that share the title: `size` of them, or the one that has it if demand is small."""
    pool = pool_of(seen)
    fair = [n for n in pool if seen[n].use <= fair_use] or pool
    if size == 1:
        # A title in little demand stays where it is; only one that nobody holds is fetched.
        return [n for n in fair if seen[n].holds][:1] or fair[:1]
    return fair[:size]


class EdgeSet:
    """The edges that share a title, worked out once for all who ask for it at the same moment."""

    def __init__(self, seen: Sequence[EdgeSeen], size: int, fair_use: float) -> None:
        """`size`: of the title's set; `fair_use`: the load, as a share of capacity, above which an edge
        has had its share."""
        self._members = members_of(seen, size, fair_use)
        self._uses = [edge.use for edge in seen]
        able = [n for n, edge in enumerate(seen) if edge.is_able]
        self._others = sorted(able, key=lambda n: not seen[n].near)
        self._holders = [n for n in self._others if seen[n].holds]

    def pick(self, dice: tuple[float, float]) -> list[tuple[int, Why]]:
        """Up to two places in `seen`, the first to be asked first. `dice`: two numbers from 0 up to 1."""
        members, uses = self._members, self._uses
        if not members:
            return []
        place, rest = int(dice[0] * len(members)), len(members) - 1
        first, other, why = members[place], None, Why.EDGE_FIRST
        if rest:
            drawn = int(dice[1] * rest)
            other, why = members[drawn + (drawn >= place)], Why.EDGE_LIGHTER
            if uses[other] < uses[first]:
                first, other = other, first
        second = self._second(first, other)
        return [(first, why)] if second is None else [(first, why), (second, Why.EDGE_SPARE)]

    def _second(self, first: int, other: int | None) -> int | None:
        if other in self._holders:
            return other
        for holder in self._holders:
            if holder != first:
                return holder
        return other if other is not None else next((n for n in self._others if n != first), None)


def pick(
    seen: Sequence[EdgeSeen], size: int, fair_use: float, dice: tuple[float, float]
) -> list[tuple[int, Why]]:
    """The edges for one viewer, as `EdgeSet` says."""
    return EdgeSet(seen, size, fair_use).pick(dice)
