"""The redirect: whom a viewer is sent to, in which order, and why.

In words: peers of the viewer's own region that can still give, PCs before set-top boxes, then
other regions. Candidates are drawn at random from the classes that give most, until there are
twice as many as are wanted; kept are those with most left after what we promised of them lately.
Whoever was promised to others already is passed over while there are enough. Then always
two edges (`tracker/core/edge_choice.py`). Phones get edges only, and nobody is sent to a phone.
Cost depends on how many are wanted, never on the size of the swarm.

What was seen goes into a `Trace`; `rank` and `pick` decide from that alone, so that every answer
can be replayed and argued about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import msgspec

from shared.core import spare
from shared.core.dice import Dice
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.messages import Why
from tracker.core import edge_choice
from tracker.core.edge_choice import EdgeSeen
from tracker.core.edges import Edges, EdgeState
from tracker.core.records import GONE, KIND_NUMBERS, KINDS
from tracker.core.swarm import Swarm, Swarms

PEERS_WANTED = 12
MOST_LOOKED_AT = 4 * PEERS_WANTED  # candidates, before we make do with what there is
MOST_EDGES_LOOKED_AT = 64
FEWEST_CONNECTIONS, MOST_CONNECTIONS = 3, 8
BITRATE_HEADROOM = 1.5  # connections must carry the film and catch up after a hiccup
PLAIN_FILE_RATE = 500_000.0  # bytes per second wanted of a file without a bitrate
FULL_PART = 0.75  # of its class left: one weaker than a connection is worth naming until it is promised
KIND_ORDER = (Kind.PC, Kind.STB)  # PCs first: they are plugged into better lines
NEAR = {Kind.PC: Why.NEAR_PC, Kind.STB: Why.NEAR_STB}
FAR = {Kind.PC: Why.FAR_PC, Kind.STB: Why.FAR_STB}
WHY_ORDER = {why: place for place, why in enumerate((*NEAR.values(), *FAR.values()))}


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks, and for which of the title's 32 stretches (0: any)."""

    node: NodeId
    kind: Kind
    region: str
    stretch: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """One source of an answer, with its reason."""

    node: NodeId
    spare: int
    why: Why


@dataclass(frozen=True, slots=True)
class Answer:
    """Sources best first, edges last; how many to use at once; and what was weighed."""

    choices: tuple[Choice, ...]
    connections: int
    trace: Trace
    fetcher: NodeId | None = None  # the edge that was chosen and has yet to fetch the title


class PeerSeen(msgspec.Struct, frozen=True):
    """A candidate as it stood when the choice was made."""

    node: str
    region: str
    spare: int
    promised_rate: float  # by our recent redirects
    holds: bool  # the stretch that is wanted, as far as we know
    why: Why

    @property
    def left_rate(self) -> float:
        """What it can still give."""
        return spare.rate_of(self.spare) - self.promised_rate

    def is_full(self, each: float) -> bool:
        """Whether a connection of `each` bytes per second would find it busy with those sent before."""
        return self.left_rate < min(each, FULL_PART * spare.rate_of(self.spare))


class Trace(msgspec.Struct, frozen=True):
    """All that a redirect was decided on."""

    number: int
    at: float
    infohash: str
    viewer: str
    kind: Kind
    region: str
    stretch: int
    rate: float  # bytes per second wanted
    share: float  # of the demand that is for this title, 0 to 1
    dice: tuple[float, float]
    peers: list[PeerSeen]
    edges: list[EdgeSeen]
    connections: int
    chosen: list[tuple[str, Why]]  # as answered


@dataclass(frozen=True, slots=True)
class Field:
    """What redirects choose from."""

    swarms: Swarms
    edges: Edges


def choose(
    field: Field,
    infohash: InfoHash,
    viewer: Viewer,
    rate: float,
    rng: Dice,
    now: float,
    *,
    share: float = 0.0,
    number: int = 0,
    origin: NodeId | None = None,
) -> Answer:
    """Sources of `infohash` for a viewer who needs `rate` bytes per second (0: a plain file).

    `share`: of the demand that is for this title; `number`: of the redirect, for the log;
    `origin`: the edge that made the title, from which others can fetch it.
    """
    wanted = rate or PLAIN_FILE_RATE
    swarm = field.swarms.swarms.get(infohash) or Swarm()
    tick = field.swarms.tick(now)
    rows, peers = [], []
    if viewer.kind is not Kind.MOBILE:
        for row, seen in _candidates(field.swarms, swarm, viewer, wanted, rng, tick):
            rows.append(row)
            peers.append(seen)
    edges, states = _edges_seen(field, infohash, swarm, viewer, origin, now)
    dice = (rng.random(), rng.random())
    order, connections = rank(peers, wanted)
    for place in order[:connections]:
        field.swarms.nodes.reserve(rows[place], wanted / connections, tick)
    picked = edge_choice.pick(edges, edge_choice.replicas(share, len(edges)), dice)
    fetcher = None
    if picked:
        first = picked[0][0]
        states[first].promised_rate += wanted
        fetcher = None if edges[first].holds else states[first].node
    choices = [Choice(field.swarms.nodes.id(rows[n]), peers[n].spare, peers[n].why) for n in order]
    choices += [Choice(states[n].node, spare.HIGHEST, why) for n, why in picked]
    chosen = [(choice.node.hex(), choice.why) for choice in choices]
    trace = Trace(
        number, now, infohash.hex(), viewer.node.hex(), viewer.kind, viewer.region, viewer.stretch,
        wanted, share, dice, peers, edges, connections, chosen,
    )  # fmt: skip
    return Answer(tuple(choices), connections, trace, fetcher)


def rank(peers: Sequence[PeerSeen], wanted: float) -> tuple[list[int], int]:
    """The places in `peers` of those to be named, best first, and the number of connections.

    `wanted`: bytes per second that the viewer needs.
    """
    connections = _connections(peers, wanted)
    each = wanted / connections
    order = sorted(
        range(len(peers)),
        key=lambda n: (
            peers[n].is_full(each),
            not peers[n].holds,
            WHY_ORDER[peers[n].why],
            -peers[n].left_rate,
        ),
    )
    able = sum(not peer.is_full(each) for peer in peers)
    return order[: min(PEERS_WANTED, max(able, connections))], connections


def _connections(peers: Sequence[PeerSeen], wanted: float) -> int:
    if not peers:
        return FEWEST_CONNECTIONS
    each = sum(spare.rate_of(peer.spare) for peer in peers) / len(peers)
    return max(FEWEST_CONNECTIONS, min(MOST_CONNECTIONS, ceil(BITRATE_HEADROOM * wanted / each)))


def _candidates(
    swarms: Swarms, swarm: Swarm, viewer: Viewer, wanted: float, rng: Dice, tick: int
) -> Iterator[tuple[int, PeerSeen]]:
    """Rows of nodes, and what is seen of them, until enough of them can give."""
    nodes, records = swarms.nodes, swarms.records
    need, able, looked_at = wanted / MOST_CONNECTIONS, 0, 0
    myself = nodes.find(viewer.node)
    for record, near in _drawn(swarms, swarm, viewer.region, rng):
        row = records.node[record]
        kind = KINDS[nodes.kind[row] & ~GONE]
        if row == myself or nodes.kind[row] & GONE or kind not in NEAR:
            continue
        level = records.spare[record]
        complete = 0 < records.total[record] <= records.held[record]
        holds = not viewer.stretch or complete or bool(records.summary[record] >> (viewer.stretch - 1) & 1)
        region = swarms.region_names[nodes.region[row]]
        why = (NEAR if near else FAR)[kind]
        seen = PeerSeen(nodes.id(row).hex(), region, level, nodes.reserved(row, tick), holds, why)
        yield row, seen
        able += holds and not seen.is_full(need)
        looked_at += 1
        if able >= 2 * PEERS_WANTED or looked_at >= MOST_LOOKED_AT:
            return


def _drawn(swarms: Swarms, swarm: Swarm, region: str, rng: Dice) -> Iterator[tuple[int, bool]]:
    """Records that can give and whether they are near, the most promising first."""
    own = swarms.region_number(region)
    for regions, near in (([own], True), (None, False)):
        for place in swarm.far(own, rng) if regions is None else regions:
            for kind in KIND_ORDER:
                for level in range(spare.HIGHEST, 0, -1):
                    for record in swarm.window(place, KIND_NUMBERS[kind], level, 2 * PEERS_WANTED, rng):
                        yield record, near


def _edges_seen(
    field: Field, infohash: InfoHash, swarm: Swarm, viewer: Viewer, origin: NodeId | None, now: float
) -> tuple[list[EdgeSeen], list[EdgeState]]:
    holding = field.swarms.edges_with(swarm)
    somewhere = bool(holding) or origin in field.edges.states
    order = field.edges.order(infohash)
    if len(order) > MOST_EDGES_LOOKED_AT:
        order = tuple(e for n, e in enumerate(order) if n < MOST_EDGES_LOOKED_AT or e.node in holding)
    states = [state for state in order if state.node != viewer.node]
    seen = [
        EdgeSeen(
            state.node.hex(),
            state.region,
            state.region == viewer.region,
            state.capacity_rate,
            state.expected_rate,
            state.node in holding,
            state.takes_orders and somewhere,
            field.edges.trouble(state, now),
        )
        for state in states
    ]
    return seen, states
