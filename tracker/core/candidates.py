"""The peers that redirects weigh: drawn from buckets, seen in columns, ranked.

All questions of a batch are weighed together: numpy does for two hundred what it does for one in
hardly more time. So what is known of candidates stands in tables with a row for each question.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.core import spare
from shared.core.dice import Dice
from shared.core.ids import NODE_ID_BYTES
from shared.core.messages import Why
from tracker.core.columns import seen
from tracker.core.swarm import KIND_ORDER, Swarm, Swarms

FEWEST_CONNECTIONS, MOST_CONNECTIONS = 3, 8
BITRATE_HEADROOM = 1.5  # connections must carry the film and catch up after a hiccup
FULL_PART = 0.75  # of its class left: one weaker than a connection is worth naming until it is promised
LEAST_BEYOND, MOST_BEYOND = 2, 8  # viewers sent at once to somebody who is full, where others are too few;
BEYOND_PART = 1 / 16  # between these, that part of all who ask: only a large crowd need save waves by it
WHYS = (Why.NEAR_PC, Why.NEAR_STB, Why.FAR_PC, Why.FAR_STB)  # best first
RATES = np.array([spare.rate_of(level) for level in range(spare.HIGHEST + 1)])
ID = np.dtype((np.void, NODE_ID_BYTES))

# Sorting keys, from the right: place, what is left, reason, lacks, full, unfit.
_PLACE_BITS = 12
_MOST_LEFT = float((1 << 37) - 1)
_WHY = 1 << 50
_HOLDS, _FULL, _FIT = 4 * _WHY, 8 * _WHY, 16 * _WHY

Vector = NDArray[Any]
Table = NDArray[Any]  # a row for each question, an element for each of its candidates
Draws = Iterator[tuple["array[int]", bool]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What questions say of the peers they want, an element each."""

    swarms: Sequence[Swarm]
    regions: Sequence[int]
    viewers: Vector  # their rows in the table of nodes, 0 for one that has none
    stretches: Vector  # 0: any
    wanted: Vector  # bytes per second
    counts: Vector  # how many peers are to be named, at most


@dataclass(frozen=True, slots=True)
class Candidates:
    """Tables; elements that do not `fit` are of nobody, or of the viewer itself."""

    fit: Table
    rows: Table  # of the table of nodes; they mean something only now
    ids: Table
    regions: Table
    spare: Table
    rates: Table  # what the class of spare upload stands for
    promised_rate: Table  # by our recent redirects
    left_rate: Table  # what each can still give
    holds: Table  # the stretch that is wanted, as far as we know
    why: Table  # places in WHYS

    def full(self, each: Vector) -> Table:
        """Who would find a connection of `each` bytes per second too much after those sent before."""
        full: Table = self.left_rate < np.minimum(each[:, None], FULL_PART * self.rates)
        return full

    def part(self, rows: Vector) -> Candidates:
        """Some questions' rows."""
        return Candidates(*(getattr(self, column.name)[rows] for column in fields(self)))

    def flat(self, places: Table) -> Table:
        """Places in rows as places in all of a table."""
        flat: Table = places + (np.arange(len(places)) * self.fit.shape[1])[:, None]
        return flat


@dataclass(frozen=True, slots=True)
class Ranked:
    """Whom each question is told of: the first `named` of its `order`, which are places in its row."""

    order: Table
    named: Vector
    connections: Vector
    each: Vector  # bytes per second of a connection

    def part(self, rows: Vector) -> Ranked:
        """Some questions' rows."""
        return Ranked(self.order[rows], self.named[rows], self.connections[rows], self.each[rows])


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

    def is_full(self, each: float) -> bool:
        """Whether a connection of `each` bytes per second is too much for it."""
        return self.left_rate < min(each, FULL_PART * spare.rate_of(self.spare))


def rank(found: Candidates, wanted: Vector, counts: Vector) -> Ranked:
    """Who is to be named, best first, at most `counts`; and the number of connections.

    Who can still give comes before who was promised to others, who holds what is wanted before who
    may not, then near PCs, near boxes, far PCs, far boxes; among equals who has most left, to the
    byte, then who was drawn first. `wanted`: bytes per second that the viewer needs.
    """
    fits = _count(found.fit)
    connections = _connections(found, fits, wanted)
    each = wanted / connections
    full = found.full(each)
    # One number says it all, so that it can be sorted without looking elsewhere.
    keys = full * _FULL - found.holds * _HOLDS + found.why * _WHY + np.arange(full.shape[1])
    keys -= np.maximum(found.left_rate, -_MOST_LEFT).astype(np.int64) << _PLACE_BITS
    keys -= found.fit * _FIT
    keys.sort(axis=1)
    named = np.minimum(np.minimum(counts, np.maximum(_count(found.fit > full), connections)), fits)
    most = max(named.tolist())
    return Ranked(keys[:, :most] & (1 << _PLACE_BITS) - 1, named, connections, each)


def used(found: Candidates, ranked: Ranked) -> tuple[Vector, Vector]:
    """Those that viewers use at once, one question after the other, as places in all of a table; and
    how many each uses."""
    count = np.minimum(ranked.named, ranked.connections)
    is_used = np.arange(ranked.order.shape[1]) < count[:, None]
    return found.flat(ranked.order)[is_used], count


def settled(found: Candidates, ranked: Ranked) -> Vector:
    """Which questions may stand: those that use nobody whom the questions before them have filled, or
    who was full already and is used by some of these. The first always may."""
    at, count = used(found, ranked)
    rows, each = found.rows.take(at), ranked.each.repeat(count)
    least = np.minimum(each, FULL_PART * found.rates.take(at))
    order = rows.argsort(kind="stable")
    sums = each[order].cumsum()
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = np.diff(rows[order]) != 0
    firsts = is_first.nonzero()[0]
    lengths = np.diff(firsts, append=len(rows))
    earlier = np.empty(len(rows))
    earlier[order] = sums - each[order] - (sums[firsts] - each[order][firsts]).repeat(lengths)
    left = found.left_rate.take(at)
    beyond = max(LEAST_BEYOND, min(MOST_BEYOND, int(BEYOND_PART * len(count))))
    is_filled = np.where(left >= least, left - earlier < least, earlier >= beyond * each)
    lost = np.bincount(np.arange(len(count)).repeat(count), weights=is_filled, minlength=len(count))
    fine: Vector = lost == 0
    return fine


def _count(flags: Table) -> Vector:
    """How many are true in each row."""
    count: Vector = np.add.reduce(flags, axis=1)
    return count


def _connections(found: Candidates, fits: Vector, wanted: Vector) -> Vector:
    """How many sources to use at once: more where they are weak."""
    together = np.add.reduce(found.rates * found.fit, axis=1)
    many = np.ceil(BITRATE_HEADROOM * wanted * fits / np.maximum(1.0, together))
    within: Vector = np.maximum(FEWEST_CONNECTIONS, np.minimum(MOST_CONNECTIONS, many)).astype(np.int64)
    return within


def gather(swarms: Swarms, asked: Asked, rng: Dice, tick: int) -> Candidates:
    """Candidates from the most promising buckets, twice as many as are wanted; where some of them
    have nothing left to give, as many again."""
    sizes = (2 * asked.counts).tolist()
    draws = list(map(Swarm.windows, asked.swarms, asked.regions, sizes, repeat(rng)))
    drawn = list(map(_draw, draws, sizes))
    found = _seen(swarms, asked, drawn, tick)
    full = found.full(asked.wanted / MOST_CONNECTIONS)
    able = _count((found.fit & found.holds) > full)
    short = (able < 2 * asked.counts).nonzero()[0].tolist()
    more = [n for n in short if len(drawn[n][0]) >= sizes[n]]
    if not more:
        return found
    for n in more:
        places, near = _draw(draws[n], sizes[n])
        drawn[n] = (drawn[n][0] + places, drawn[n][1] + near)
    return _seen(swarms, asked, drawn, tick)


def _draw(draws: Draws, size: int) -> tuple[array[int], int]:
    """Draws until there are `size`, or no more; and how many of these, the first, are near."""
    drawn, near = array("I"), 0
    for window, is_near in draws:
        drawn += window
        if is_near:
            near = len(drawn)
        if len(drawn) >= size:
            break
    return drawn, near


def _seen(swarms: Swarms, asked: Asked, drawn: Sequence[tuple[array[int], int]], tick: int) -> Candidates:
    """The drawn records, and what is known of whom they are of."""
    records, nodes = swarms.records, swarms.nodes
    places = _table([row for row, _ in drawn])
    far = np.arange(places.shape[1]) >= np.array([near for _, near in drawn])[:, None]
    rows = seen(records.node).take(places).astype(np.intp)
    kinds = seen(nodes.kind).take(rows)
    is_box = kinds == KIND_ORDER[1]
    fit = (is_box | (kinds == KIND_ORDER[0])) & (rows != asked.viewers[:, None])
    level = seen(records.spare).take(places)
    rates, promised = RATES.take(level), nodes.reserved_of(rows, tick)
    return Candidates(
        fit=fit,
        rows=rows,
        ids=np.frombuffer(nodes.ids, ID).take(rows),
        regions=seen(nodes.region).take(rows),
        spare=level,
        rates=rates,
        promised_rate=promised,
        left_rate=rates - promised,
        holds=_holds(swarms, places, asked.stretches) if asked.stretches.any() else fit,
        why=2 * far + is_box,
    )


def _table(drawn: Sequence[array[int]]) -> Table:
    """Rows of unequal length, filled up with the number of no record."""
    lengths = list(map(len, drawn))
    width = max(lengths)
    flat = np.frombuffer(b"".join(drawn), np.uint32).astype(np.intp)
    if len(flat) == width * len(drawn):
        return flat.reshape(len(drawn), width)
    table = np.zeros((len(drawn), width), dtype=np.intp)
    table[np.arange(width) < np.array(lengths)[:, None]] = flat
    return table


def _holds(swarms: Swarms, places: Table, stretches: Vector) -> Table:
    records = swarms.records
    held, total = seen(records.held).take(places), seen(records.total).take(places)
    told = seen(records.summary).take(places) >> np.maximum(0, stretches - 1)[:, None] & 1 == 1
    holds: Table = told | ((total > 0) & (held >= total)) | (stretches == 0)[:, None]
    return holds


def in_words(found: Candidates, place: int, names: Sequence[str]) -> list[PeerSeen]:
    """The candidates of one question for a log, in the order they were drawn; `names`: of the regions."""
    fit = found.fit[place]
    columns = (found.ids, found.regions, found.spare, found.promised_rate, found.holds, found.why)
    return [
        PeerSeen(bytes(node).hex(), names[region], int(level), float(promised), bool(holds), WHYS[why])
        for node, region, level, promised, holds, why in zip(
            *(column[place][fit].tolist() for column in columns), strict=True
        )
    ]


def from_words(peers: Sequence[PeerSeen]) -> Candidates:
    """The candidates of a log, to be ranked again."""
    shape = (1, len(peers))
    level = np.array([[peer.spare for peer in peers]], dtype=np.uint8)
    promised = np.array([[peer.promised_rate for peer in peers]], dtype=float)
    return Candidates(
        fit=np.ones(shape, dtype=bool),
        rows=np.zeros(shape, dtype=np.intp),
        ids=np.zeros(shape, dtype=ID),
        regions=np.zeros(shape, dtype=np.uint16),
        spare=level,
        rates=RATES.take(level),
        promised_rate=promised,
        left_rate=RATES.take(level) - promised,
        holds=np.array([[peer.holds for peer in peers]], dtype=bool),
        why=np.array([[WHYS.index(peer.why) for peer in peers]], dtype=int),
    )
