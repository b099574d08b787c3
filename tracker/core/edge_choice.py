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
SPREAD = 10.0  # edges of equal size that would share a title with all of the demand, times their number


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
    def use(self) -> float:
        """Load as a share of capacity."""
        return self.load_rate / self.capacity_rate


def replicas(share: float, edges: int) -> int:
    """How many edges share a title that has `share` (0 to 1) of the demand."""
    return max(1, min(edges, 1 + int(SPREAD * share * edges)))


def pool_of(seen: Sequence[EdgeSeen]) -> list[int]:
    """Those who could serve: of the viewer's region if there is one, else all; places in `seen`."""
    able = [n for n, edge in enumerate(seen) if not edge.trouble and (edge.holds or edge.fetches)]
    near = [n for n in able if seen[n].near]
    return near or able


def fair_rate(seen: Sequence[EdgeSeen], pool: Sequence[int]) -> float:
    """The share of its capacity above which an edge has more than a fair share of the load."""
    capacity = sum(seen[n].capacity_rate for n in pool)
    return FAIR_SHARE * sum(seen[n].load_rate for n in pool) / capacity if capacity else 0.0


def set_of(seen: Sequence[EdgeSeen], pool: Sequence[int], size: int) -> list[int]:
    """The edges that share the title."""
    fair = fair_rate(seen, pool)
    return [n for n in pool if seen[n].use <= fair][:size] or list(pool[:size])


def pick(seen: Sequence[EdgeSeen], size: int, dice: tuple[float, float]) -> list[tuple[int, Why]]:
    """Up to two places in `seen`, the first to be asked first. `dice`: two numbers from 0 up to 1."""
    pool = pool_of(seen)
    if not pool:
        return []
    members = set_of(seen, pool, size)
    if size == 1 and not seen[members[0]].holds:
        # A title in little demand stays where it is; only one that nobody holds is fetched.
        fair = fair_rate(seen, pool)
        members = [n for n in pool if seen[n].holds and seen[n].use <= fair][:1] or members
    one = members[int(dice[0] * len(members))]
    rest = [n for n in members if n != one]
    other = rest[int(dice[1] * len(rest))] if rest else one
    first, why = (one, Why.EDGE_LIGHTER) if rest else (one, Why.EDGE_FIRST)
    if seen[other].use < seen[one].use:
        first, other = other, one
    second = _second(seen, pool, first, other)
    return [(first, why)] + ([(second, Why.EDGE_SPARE)] if second is not None else [])


def _second(seen: Sequence[EdgeSeen], pool: Sequence[int], first: int, other: int) -> int | None:
    usable = [n for n, edge in enumerate(seen) if not edge.trouble and (edge.holds or edge.fetches)]
    others = [*([other] if other != first else []), *pool, *usable]
    others = [n for n in others if n != first]
    if not seen[first].holds:
        others = [n for n in others if seen[n].holds] or others
    return others[0] if others else None
