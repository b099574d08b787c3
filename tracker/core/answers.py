"""Questions to the redirect and its answers, which stay tables until somebody wants words.

A *wave* is answered at once (`tracker/core/redirect.py`). Its tables have a row for each of its
questions, and from them a single answer, its sources and its trace are made when they are asked
for. Whoever answers many, by datagram, takes `Wave.sources` as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import msgspec
import numpy as np

from shared.core import spare
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.messages import Source, Why
from tracker.core import candidates as peers
from tracker.core import edge_choice
from tracker.core.candidates import WHYS, Candidates, PeerSeen, Ranked, Table, Vector
from tracker.core.edge_choice import EDGES_WANTED, EdgeSeen, EdgeSet
from tracker.core.edges import EdgeState

PEERS_WANTED = 12
WHY_NUMBERS = {why: number for number, why in enumerate(Why)}
PLAIN_FILE_RATE = 500_000.0  # bytes per second wanted of a file without a bitrate


class Viewer(msgspec.Struct, frozen=True, gc=False):
    """Who asks, and for which of the title's 32 stretches (0: any)."""

    node: NodeId
    kind: Kind
    region: str
    stretch: int = 0


class Question(msgspec.Struct, frozen=True, gc=False):
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


class Choice(msgspec.Struct, frozen=True, gc=False):
    """One source of an answer, with its reason."""

    node: NodeId
    spare: int
    why: Why


@dataclass(frozen=True, slots=True)
class EdgeView:
    """The edges as they stood for all who asked for one title from one region at the same moment."""

    seen: list[EdgeSeen]
    states: list[EdgeState]
    regions: list[int]  # their numbers
    replicas: int
    fair_use: float
    set: EdgeSet


@dataclass(frozen=True, slots=True)
class Sources:
    """Tables of a wave's sources, a row each: the first `named` elements are peers, best first, and
    the next `edges` are edges; what follows means nothing."""

    named: Vector
    edges: Vector
    peers: Table  # their rows in the table of nodes, 0 for none; they mean something only now
    states: list[EdgeState]  # of all the edges, one row's after the other's
    states_at: tuple[Vector, Vector]  # where in the tables they stand
    spare: Table
    why: Table  # places in Why
    regions: Table  # numbers of Swarms.region_names


@dataclass(frozen=True, slots=True)
class Wave:
    """Questions that were answered at once, and all that their answers were decided on."""

    at: float
    questions: list[Question]
    found: Candidates
    ranked: Ranked
    region_names: list[str]
    # For each question: the edges that it saw, the dice, and those that were picked, first first.
    edges: list[tuple[EdgeView, tuple[float, float], list[tuple[int, Why]]]]

    def sources(self) -> Sources:
        """Everything that is to be told, for whoever writes many answers at once."""
        found, order = self.found, self.ranked.order
        count, peers_named = order.shape
        at = found.flat(order)
        numbers = np.zeros((3, count, peers_named + EDGES_WANTED), np.uint16)
        for table, column in zip(numbers, (found.spare, found.why, found.regions), strict=True):
            table[:, :peers_named] = column.take(at)
        edges = np.array([len(picked) for _, _, picked in self.edges])
        rows = np.arange(count).repeat(edges)
        nth = np.arange(len(rows)) - (np.cumsum(edges) - edges).repeat(edges)
        columns = self.ranked.named.repeat(edges) + nth
        chosen = [(view, n, why) for view, _, picked in self.edges for n, why in picked]
        numbers[0, rows, columns] = spare.HIGHEST
        numbers[1, rows, columns] = [WHY_NUMBERS[why] for _, _, why in chosen]
        numbers[2, rows, columns] = [view.regions[n] for view, n, _ in chosen]
        peers_at = found.rows.take(at) * (np.arange(peers_named) < self.ranked.named[:, None])
        states = [view.states[n] for view, n, _ in chosen]
        return Sources(self.ranked.named, edges, peers_at, states, (rows, columns), *numbers)

    def fetcher(self, row: int) -> NodeId | None:
        """The edge that was chosen and has yet to fetch the title."""
        view, _, picked = self.edges[row]
        first = picked[0][0] if picked else None
        return None if first is None or view.seen[first].holds else view.states[first].node

    def choices(self, row: int) -> tuple[Choice, ...]:
        """The sources of one answer, best first, edges last."""
        found, places = self.found, self.ranked.order[row, : self.ranked.named[row]]
        columns = (found.ids[row], found.spare[row], found.why[row])
        named = zip(*(column.take(places).tolist() for column in columns), strict=True)
        view, _, picked = self.edges[row]
        return tuple(
            [Choice(NodeId(node), level, WHYS[why]) for node, level, why in named]
            + [Choice(view.states[n].node, spare.HIGHEST, why) for n, why in picked]
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Sources best first, edges last; how many to use at once; and what was weighed."""

    wave: Wave
    row: int
    abroad: tuple[Source, ...] = ()  # edges of other regions, named by the central tier

    @property
    def question(self) -> Question:
        """What was asked."""
        return self.wave.questions[self.row]

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The sources."""
        return self.wave.choices(self.row)

    @property
    def connections(self) -> int:
        """How many of them to use at once."""
        return int(self.wave.ranked.connections[self.row])

    @property
    def fetcher(self) -> NodeId | None:
        """The edge that was chosen and has yet to fetch the title."""
        return self.wave.fetcher(self.row)

    def trace(self) -> Trace:
        """The answer and its grounds in words."""
        question, (view, dice, _) = self.question, self.wave.edges[self.row]
        return Trace(
            number=question.number,
            at=self.wave.at,
            infohash=question.infohash.hex(),
            viewer=question.viewer.node.hex(),
            kind=question.viewer.kind,
            region=question.viewer.region,
            stretch=question.viewer.stretch,
            wanted_rate=question.wanted,
            count=question.count,
            share=question.share,
            peers=peers.in_words(self.wave.found, self.row, self.wave.region_names),
            edges=view.seen,
            replicas=view.replicas,
            fair_use=view.fair_use,
            dice=dice,
            connections=self.connections,
            chosen=[(choice.node.hex(), choice.why) for choice in self.choices],
            abroad=[(source.node.hex(), source.region) for source in self.abroad],
        )


class Answers(Sequence[Answer]):
    """The answers to questions, in their order; `waves` with the places of their questions among them."""

    def __init__(self, count: int, waves: Sequence[tuple[Sequence[int], Wave]]) -> None:
        self.waves = waves
        found = {place: (wave, row) for places, wave in waves for row, place in enumerate(places)}
        self._places = [found[place] for place in range(count)]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Answer: ...
    @overload
    def __getitem__(self, place: slice) -> list[Answer]: ...
    def __getitem__(self, place: int | slice) -> Answer | list[Answer]:
        if isinstance(place, slice):
            return [Answer(wave, row) for wave, row in self._places[place]]
        return Answer(*self._places[place])


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


def replay(trace: Trace) -> tuple[list[tuple[str, Why]], int]:
    """The sources and the number of connections that the same grounds lead to today."""
    wanted, counts = np.array([trace.wanted_rate]), np.array([trace.count])
    ranked = peers.rank(peers.from_words(trace.peers), wanted, counts)
    picked = edge_choice.pick(trace.edges, trace.replicas, trace.fair_use, trace.dice)
    chosen = [(trace.peers[n].node, trace.peers[n].why) for n in ranked.order[0, : ranked.named[0]]]
    return chosen + [(trace.edges[n].node, why) for n, why in picked], int(ranked.connections[0])
