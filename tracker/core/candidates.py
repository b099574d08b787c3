"""The peers that a redirect weighs: drawn from buckets, seen in columns, ranked."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.core import spare
from shared.core.dice import Dice
from shared.core.ids import NODE_ID_BYTES, Kind
from shared.core.messages import Why
from tracker.core.columns import seen
from tracker.core.records import GONE, KIND_NUMBERS
from tracker.core.swarm import Swarm, Swarms

MOST_LOOKED_AT = 4  # candidates for each that is wanted, before we make do with what there is
FEWEST_CONNECTIONS, MOST_CONNECTIONS = 3, 8
BITRATE_HEADROOM = 1.5  # connections must carry the film and catch up after a hiccup
FULL_PART = 0.75  # of its class left: one weaker than a connection is worth naming until it is promised
KIND_ORDER = (KIND_NUMBERS[Kind.PC], KIND_NUMBERS[Kind.STB])  # PCs first: they have better lines
WHYS = (Why.NEAR_PC, Why.NEAR_STB, Why.FAR_PC, Why.FAR_STB)  # best first
RATES = np.array([spare.rate_of(level) for level in range(spare.HIGHEST + 1)])

Vector = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Candidates:
    """One element each per candidate."""

    rows: Vector  # of the table of nodes; they mean something only now
    ids: Vector  # (n, 32) bytes
    regions: Vector
    spare: Vector
    promised_rate: Vector  # by our recent redirects
    holds: Vector  # the stretch that is wanted, as far as we know
    why: Vector  # places in WHYS

    @property
    def left_rate(self) -> Vector:
        """What each can still give."""
        return RATES[self.spare] - self.promised_rate

    def full(self, each: float) -> Vector:
        """Who would find a connection of `each` bytes per second too much after those sent before."""
        return self.left_rate < np.minimum(each, FULL_PART * RATES[self.spare])


class PeerSeen(msgspec.Struct, frozen=True):
    """A candidate in words."""

    node: str
    region: str
    spare: int
    promised_rate: float
    holds: bool
    why: Why

    @property
    def left_rate(self) -> float:
        """What it can still give."""
        return spare.rate_of(self.spare) - self.promised_rate


def rank(candidates: Candidates, wanted: float, count: int) -> tuple[list[int], int]:
    """The places of those to be named, best first, at most `count`; and the number of connections.

    Who can still give comes before who was promised to others, who holds what is wanted before who
    may not, then near PCs, near boxes, far PCs, far boxes; among equals who has most left.
    `wanted`: bytes per second that the viewer needs.
    """
    connections = connections_for(candidates, wanted)
    full = candidates.full(wanted / connections)
    order = np.lexsort((-candidates.left_rate, candidates.why, ~candidates.holds, full))
    able = len(full) - int(np.count_nonzero(full))
    return order[: min(count, max(able, connections))].tolist(), connections


def connections_for(candidates: Candidates, wanted: float) -> int:
    """How many sources to use at once: more where they are weak."""
    if not len(candidates.rows):
        return FEWEST_CONNECTIONS
    each = float(RATES[candidates.spare].sum()) / len(candidates.rows)
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, ceil(BITRATE_HEADROOM * wanted / each)))


def gather(
    swarms: Swarms, swarm: Swarm, region: str, myself: int, stretch: int, wanted: float, count: int,
    rng: Dice, tick: int,
) -> Candidates:  # fmt: skip
    """Candidates from the most promising buckets, until 2 * `count` of them can give, or there are
    no more, or too many were looked at. `myself`: the viewer's row, or 0."""
    drawn, near = array("I"), 0
    found = None
    for window, is_near in _windows(swarms, swarm, region, 2 * count, rng):
        drawn.extend(window)
        near += len(window) if is_near else 0
        if len(drawn) < 2 * count:
            continue
        found = _seen(swarms, drawn, near, myself, stretch, tick)
        able = ~found.full(wanted / MOST_CONNECTIONS) & found.holds
        if np.count_nonzero(able) >= 2 * count or len(drawn) >= MOST_LOOKED_AT * count:
            return found
    return _seen(swarms, drawn, near, myself, stretch, tick)


def _windows(
    swarms: Swarms, swarm: Swarm, region: str, size: int, rng: Dice
) -> Iterator[tuple[array[int], bool]]:
    own = swarms.region_number(region)
    for place in (own, None):
        for there in [own] if place is not None else swarm.far(own, rng):
            for kind in KIND_ORDER:
                for level in range(spare.HIGHEST, 0, -1):
                    window = swarm.window(there, kind, level, size, rng)
                    if window:
                        yield window, there == own


def _seen(swarms: Swarms, drawn: array[int], near: int, myself: int, stretch: int, tick: int) -> Candidates:
    """The drawn records, the first `near` of which are in the viewer's region."""
    records, nodes = swarms.records, swarms.nodes
    places = np.array(drawn, dtype=np.intp)
    far = np.arange(len(places)) >= near
    rows = seen(records.node)[places]
    kinds = seen(nodes.kind)[rows]
    fit = (kinds & GONE == 0) & (rows != myself)
    if not fit.all():
        places, far, rows, kinds = places[fit], far[fit], rows[fit], kinds[fit]
    ids = np.frombuffer(nodes.ids, dtype=np.uint8).reshape(-1, NODE_ID_BYTES)[rows]
    return Candidates(
        rows=rows,
        ids=ids,
        regions=seen(nodes.region)[rows],
        spare=seen(records.spare)[places],
        promised_rate=nodes.reserved_of(rows, tick),
        holds=_holds(swarms, places, stretch),
        why=2 * far + (kinds == KIND_ORDER[1]),
    )


def _holds(swarms: Swarms, places: Vector, stretch: int) -> Vector:
    if not stretch:
        return np.ones(len(places), dtype=bool)
    records = swarms.records
    held, total = seen(records.held)[places], seen(records.total)[places]
    told = seen(records.summary)[places] >> (stretch - 1) & 1 == 1
    holds: Vector = told | ((total > 0) & (held >= total))
    return holds


def in_words(candidates: Candidates, names: Sequence[str]) -> list[PeerSeen]:
    """The candidates for a log; `names`: of the regions."""
    return [
        PeerSeen(bytes(node).hex(), names[region], int(level), float(promised), bool(holds), WHYS[why])
        for node, region, level, promised, holds, why in zip(
            candidates.ids, candidates.regions, candidates.spare,
            candidates.promised_rate, candidates.holds, candidates.why, strict=True,
        )
    ]  # fmt: skip


def from_words(peers: Sequence[PeerSeen]) -> Candidates:
    """The candidates of a log, to be ranked again."""
    return Candidates(
        rows=np.arange(len(peers)),
        ids=np.zeros((len(peers), NODE_ID_BYTES), dtype=np.uint8),
        regions=np.zeros(len(peers), dtype=np.uint16),
        spare=np.array([peer.spare for peer in peers], dtype=np.uint8),
        promised_rate=np.array([peer.promised_rate for peer in peers], dtype=float),
        holds=np.array([peer.holds for peer in peers], dtype=bool),
        why=np.array([WHYS.index(peer.why) for peer in peers], dtype=int),
    )
