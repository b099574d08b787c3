"""The redirect: whom a viewer is sent to, in which order, and why.

In words: peers of the viewer's own region that can still give, PCs before set-top boxes, then
other regions; of up to twice as many candidates as are wanted, drawn at random, keep those with
most left after what we promised of them lately; then always two edges, in the rendezvous order
of the title, so that a title's demand meets the same edges' caches. Phones get edges only.
Cost depends on how many are wanted, never on the size of the swarm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from math import ceil

from shared.core import spare
from shared.core.dice import Dice
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.messages import Why
from tracker.core.swarm import Holder, Swarm

PEERS_WANTED = 12
EDGES_WANTED = 2  # the second takes over when the first is busy or gone
FEWEST_CONNECTIONS, MOST_CONNECTIONS = 3, 8
BITRATE_HEADROOM = 1.5  # connections must carry the film and catch up after a hiccup
PLAIN_FILE_RATE = 500_000.0  # bytes per second wanted of a file without a bitrate
KIND_ORDER = (Kind.PC, Kind.STB)  # PCs first: they are plugged into better lines


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks."""

    node: NodeId
    kind: Kind
    region: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One source of an answer, with its reason."""

    holder: Holder
    why: Why


@dataclass(frozen=True, slots=True)
class Answer:
    """Sources best first, edges last; and how many to use at once."""

    choices: tuple[Choice, ...]
    connections: int


def choose(swarm: Swarm, infohash: InfoHash, viewer: Viewer, rate: float, rng: Dice, now: float) -> Answer:
    """Sources of `infohash` for a viewer who needs `rate` bytes per second (0: a plain file)."""
    wanted = rate or PLAIN_FILE_RATE
    peers = [] if viewer.kind is Kind.MOBILE else _peers(swarm, viewer, rng, now)
    connections = _connections(peers, wanted)
    for choice in peers[:connections]:
        choice.holder.reserve(wanted / connections, now)
    return Answer((*peers, *_edges(swarm, infohash, viewer)), connections)


def _peers(swarm: Swarm, viewer: Viewer, rng: Dice, now: float) -> list[Choice]:
    found: list[Choice] = []
    for choice in _candidates(swarm, viewer, rng):
        if choice.holder.node != viewer.node:
            found.append(choice)
        if len(found) >= 2 * PEERS_WANTED:
            break
    order = list(Why)
    found.sort(key=lambda c: (order.index(c.why), -_left(c.holder, now)))
    return found[:PEERS_WANTED]


def _candidates(swarm: Swarm, viewer: Viewer, rng: Dice) -> Iterator[Choice]:
    near = {Kind.PC: Why.NEAR_PC, Kind.STB: Why.NEAR_STB}
    far = {Kind.PC: Why.FAR_PC, Kind.STB: Why.FAR_STB}
    others = sorted({region for region, _, _ in swarm.buckets} - {viewer.region})
    for regions, why in (([viewer.region], near), (others, far)):
        for kind in KIND_ORDER:
            for level in range(spare.HIGHEST, 0, -1):
                for region in regions:
                    for holder in swarm.draw((region, kind, level), 2 * PEERS_WANTED, rng):
                        yield Choice(holder, why[kind])


def _left(holder: Holder, now: float) -> float:
    return spare.rate_of(holder.spare) - holder.reservation(now)


def _connections(peers: list[Choice], wanted: float) -> int:
    if not peers:
        return FEWEST_CONNECTIONS
    each = sum(spare.rate_of(c.holder.spare) for c in peers) / len(peers)
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, ceil(BITRATE_HEADROOM * wanted / each)))


def _edges(swarm: Swarm, infohash: InfoHash, viewer: Viewer) -> list[Choice]:
    holders = (h for (_, kind, _), bucket in swarm.buckets.items() if kind is Kind.EDGE for h in bucket)
    complete = [h for h in holders if h.complete and h.node != viewer.node]
    ranked = sorted(complete, key=lambda h: sha256(infohash + h.node).digest(), reverse=True)
    return [Choice(h, why) for h, why in zip(ranked, (Why.EDGE_FIRST, Why.EDGE_SPARE), strict=False)]
