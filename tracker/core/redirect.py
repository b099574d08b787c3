"""The redirect: whom a viewer is sent to, in which order, and why.

In words: peers of the viewer's own region that can still give, PCs before set-top boxes, then
other regions. Candidates are drawn at random from the classes that give most, until there are
twice as many as are wanted; kept are those with most left after what we promised of them lately
(`tracker/core/candidates.py`). Whoever was promised to others already is passed over while there
are enough. Then always two edges (`tracker/core/edge_choice.py`). Phones get edges only, and nobody
is sent to a phone. Cost depends on how many are wanted, never on the size of the swarm.

What was weighed is kept with the answer; `rank` and `pick` decide from that alone, so that every
answer can be replayed and argued about.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from shared.core import spare
from shared.core.dice import Dice
from shared.core.ids import NODE_ID_BYTES, InfoHash, Kind, NodeId
from shared.core.messages import Source, Why
from tracker.core import candidates as peers
from tracker.core import edge_choice
from tracker.core.candidates import WHYS, Candidates, PeerSeen
from tracker.core.edge_choice import FAIR_SHARE, EdgeSeen
from tracker.core.edges import Edges, EdgeState
from tracker.core.swarm import Swarm, Swarms

PEERS_WANTED = 12
MOST_EDGES_LOOKED_AT = 64
PLAIN_FILE_RATE = 500_000.0  # bytes per second wanted of a file without a bitrate


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks, and for which of the title's 32 stretches (0: any)."""

    node: NodeId
    kind: Kind
    region: str
    stretch: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the tracker, and what it knows of the title."""

    infohash: InfoHash
    viewer: Viewer
    rate: float = 0.0  # bytes per second that the viewer needs; 0: a plain file
    share: float = 0.0  # of all demand that is for this title, 0 to 1
    origin: NodeId | None = None  # the edge that made the title, from which others can fetch it
    number: int = 0  # of the redirect, for the log
    count: int = PEERS_WANTED
    elsewhere: bool = False  # an edge of another region holds it, from which ours can fetch it

    @property
    def wanted(self) -> float:
        """Bytes per second that sources have to give together."""
        return self.rate or PLAIN_FILE_RATE


@dataclass(frozen=True, slots=True)
class Choice:
    """One source of an answer, with its reason."""

    node: NodeId
    spare: int
    why: Why


@dataclass(frozen=True, slots=True)
class Weighed:
    """All that an answer was decided on."""

    question: Question
    at: float
    candidates: Candidates
    region_names: list[str]
    edges: list[EdgeSeen]
    replicas: int
    fair_use: float
    dice: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """Sources best first, edges last; how many to use at once; and what was weighed."""

    choices: tuple[Choice, ...]
    connections: int
    weighed: Weighed
    fetcher: NodeId | None = None  # the edge that was chosen and has yet to fetch the title
    abroad: tuple[Source, ...] = ()  # edges of other regions, named by the central tier

    def trace(self) -> Trace:
        """The answer and its grounds in words."""
        weighed, question = self.weighed, self.weighed.question
        return Trace(
            number=question.number,
            at=weighed.at,
            infohash=question.infohash.hex(),
            viewer=question.viewer.node.hex(),
            kind=question.viewer.kind,
            region=question.viewer.region,
            stretch=question.viewer.stretch,
            wanted_rate=question.wanted,
            count=question.count,
            share=question.share,
            peers=peers.in_words(weighed.candidates, weighed.region_names),
            edges=weighed.edges,
            replicas=weighed.replicas,
            fair_use=weighed.fair_use,
            dice=weighed.dice,
            connections=self.connections,
            chosen=[(choice.node.hex(), choice.why) for choice in self.choices],
            abroad=[(source.node.hex(), source.region) for source in self.abroad],
        )


class Trace(msgspec.Struct, frozen=True):
    """A redirect as it is logged: ids in hexadecimal, `_at` seconds since 1970, `_rate` bytes/s."""

    number: int
    at: float
    infohash: str
    viewer: str
    kind: Kind
    region: str
    stretch: int
    wanted_rate: float
    count: int
    share: float
    peers: list[PeerSeen]
    edges: list[EdgeSeen]
    replicas: int
    fair_use: float
    dice: tuple[float, float]
    connections: int
    chosen: list[tuple[str, Why]]
    abroad: list[tuple[str, str]] = []  # edges that the central tier named, and their regions


@dataclass(frozen=True, slots=True)
class Field:
    """What redirects choose from."""

    swarms: Swarms
    edges: Edges


def choose(field: Field, question: Question, rng: Dice, now: float) -> Answer:
    """Who can serve this viewer; notes what is promised of them."""
    swarms, wanted, viewer = field.swarms, question.wanted, question.viewer
    swarm = swarms.swarms.get(question.infohash) or Swarm()
    tick = swarms.tick(now)
    # A phone is sent to edges only: as if its swarm had no peers.
    pool = Swarm() if viewer.kind is Kind.MOBILE else swarm
    myself = swarms.nodes.find(viewer.node)
    found = peers.gather(
        swarms, pool, viewer.region, myself, viewer.stretch, wanted, question.count, rng, tick
    )  # fmt: skip
    order, connections = peers.rank(found, wanted, question.count)
    for place in order[:connections]:
        swarms.nodes.reserve(int(found.rows[place]), wanted / connections, tick)
    choices = _choices(found, order)
    replicas = edge_choice.replicas(question.share, len(field.edges.states))
    fair_use = FAIR_SHARE * field.edges.mean_use(viewer.region, now)
    edges, states = _edges_seen(field, question, swarm, replicas, fair_use, now)
    dice = (rng.random(), rng.random())
    picked = edge_choice.pick(edges, replicas, fair_use, dice)
    choices += [Choice(states[n].node, spare.HIGHEST, why) for n, why in picked]
    weighed = Weighed(question, now, found, swarms.region_names, edges, replicas, fair_use, dice)
    if not picked:
        return Answer(tuple(choices), connections, weighed)
    first = picked[0][0]
    field.edges.promise(states[first], wanted)
    return Answer(tuple(choices), connections, weighed, None if edges[first].holds else states[first].node)


def _choices(found: Candidates, order: list[int]) -> list[Choice]:
    ids, levels, whys = found.ids.tobytes(), found.spare.tolist(), found.why.tolist()
    return [
        Choice(NodeId(ids[n * NODE_ID_BYTES : (n + 1) * NODE_ID_BYTES]), levels[n], WHYS[whys[n]])
        for n in order
    ]


def replay(trace: Trace) -> tuple[list[tuple[str, Why]], int]:
    """The sources and the number of connections that the same grounds lead to today."""
    order, connections = peers.rank(peers.from_words(trace.peers), trace.wanted_rate, trace.count)
    picked = edge_choice.pick(trace.edges, trace.replicas, trace.fair_use, trace.dice)
    chosen = [(trace.peers[n].node, trace.peers[n].why) for n in order]
    return chosen + [(trace.edges[n].node, why) for n, why in picked], connections


def _edges_seen(
    field: Field, question: Question, swarm: Swarm, replicas: int, fair_use: float, now: float
) -> tuple[list[EdgeSeen], list[EdgeState]]:
    """Edges in the title's order, the viewer's region first, as far as they can matter."""
    region = question.viewer.region
    holding = {node for node in swarm.edges if field.swarms.holds(swarm, node)}
    is_held = any(node in field.edges.states for node in holding)
    somewhere = is_held or question.elsewhere or question.origin in field.edges.states
    edges: list[EdgeSeen] = []
    states: list[EdgeState] = []
    for state in field.edges.order(question.infohash, region):
        many = len(edges) >= MOST_EDGES_LOOKED_AT
        if state.node == question.viewer.node or (many and state.node not in holding):
            continue
        states.append(state)
        edges.append(
            EdgeSeen(
                state.node.hex(),
                state.region,
                state.region == region,
                state.capacity_rate,
                state.expected_rate,
                state.node in holding,
                somewhere and field.edges.fetches(state, question.infohash, now),
                field.edges.trouble(state, now),
            )
        )
        if edge_choice.is_enough(edges, replicas, fair_use, is_held):
            break
    return edges, states
