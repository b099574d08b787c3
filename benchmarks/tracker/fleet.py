"""Edges of unequal size with caches, and four trackers that hear of their load every five seconds."""

from __future__ import annotations

import heapq
from bisect import bisect
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import accumulate, count
from random import Random

from shared.core.ids import HostPort, InfoHash, Kind, NodeId
from shared.core.messages import Announce, Event, Load
from tracker.core.answers import Question, Viewer
from tracker.core.edges import Edges
from tracker.core.heat import SURGE_SECONDS, Heat
from tracker.core.redirect import Field, choose
from tracker.core.swarm import Swarms

START_AT = 1_000_000.0
REPORT_SECONDS = 5.0
STREAM_RATE = 500_000.0
SIZES = (1.0, 1.0, 2.0, 4.0)  # of edges, over and over
TRACKERS = 4


def infohash_of(title: int) -> InfoHash:
    """The swarm of a title."""
    return InfoHash(sha256(b"title %d" % title).digest())


class Zipf:
    """Titles by popularity: the n-th is asked for 1/n as often as the first."""

    def __init__(self, titles: int, rng: Random) -> None:
        self._sums = list(accumulate(1 / (n + 1) for n in range(titles)))
        self._rng = rng

    def draw(self) -> int:
        """A title."""
        return bisect(self._sums, self._rng.random() * self._sums[-1])


@dataclass(slots=True)
class Edge:
    """What an edge does: serves streams, and keeps what was asked for last."""

    id: NodeId
    capacity_rate: float
    slots: int
    streams: int = 0
    kept: OrderedDict[int, None] = field(default_factory=OrderedDict)

    @property
    def use(self) -> float:
        """Load as a share of capacity."""
        return self.streams * STREAM_RATE / self.capacity_rate

    def touch(self, title: int) -> bool:
        """Whether it has the title; marks it as asked for just now."""
        if title in self.kept:
            self.kept.move_to_end(title)
            return True
        return False


@dataclass(slots=True)
class Outcome:
    """What was seen of a run."""

    asked: int = 0
    hits: int = 0
    samples: list[list[float]] = field(default_factory=list)  # use of every edge, once a second

    @property
    def hit(self) -> float:
        """The share of asks that met a cache that had the title."""
        return self.hits / self.asked

    def worst(self, window: int | None = None) -> float:
        """The most used edge over the mean, in the worst window of that many seconds (None: all)."""
        window = window or len(self.samples)
        worst = 0.0
        for start in range(0, len(self.samples) - window + 1, max(1, window // 2)):
            sums = [sum(edge) for edge in zip(*self.samples[start : start + window], strict=True)]
            worst = max(worst, max(sums) * len(sums) / sum(sums))
        return worst


class Fleet:
    """Edges, trackers with the real cores, and viewers, in virtual time."""

    def __init__(self, seed: int, *, titles: int, edges: int = 20, slots: int, use: float, rate: float,
                 stream_seconds: float, is_pure: bool = False) -> None:  # fmt: skip
        """`slots`: titles an edge of mean size keeps; `use`: mean load as a share of capacity; `rate`:
        viewers a second; `is_pure`: every title to the first edge of its order, whatever the load."""
        self.rng = Random(seed)
        self.zipf = Zipf(titles, Random(seed + 1))
        self.now = START_AT
        self._rate, self._stream_seconds, self._is_pure = rate, stream_seconds, is_pure
        sizes = [SIZES[n % len(SIZES)] for n in range(edges)]
        capacity = rate * stream_seconds * STREAM_RATE / use
        self.edges = {
            (node := NodeId(sha256(b"edge %d" % n).digest())): Edge(
                node, capacity * size / sum(sizes), max(1, round(slots * edges * size / sum(sizes)))
            )
            for n, size in enumerate(sizes)
        }
        self._fields = [Field(Swarms(1e6), Edges(REPORT_SECONDS)) for _ in range(TRACKERS)]
        self._surges = [Heat(SURGE_SECONDS) for _ in range(TRACKERS)]
        self._origin = next(iter(self.edges))
        for each in self._fields:
            for edge in self.edges:
                each.edges.joined(edge, "", HostPort("192.0.2.1", 4430), self.now)
        self._ends: list[tuple[float, int, NodeId]] = []
        self._serial = count()
        self._crowd = 0.0
        self._reports = [
            (START_AT + REPORT_SECONDS * n / edges, n, edge) for n, edge in enumerate(self.edges)
        ]
        for edge in self.edges:
            self._report(edge)

    def run(self, seconds: float, *, crowd: float = 0.0) -> Outcome:
        """Runs that long; `crowd`: the part of viewers who all want one title that nobody wanted before."""
        self._crowd = crowd
        outcome, end, sample_at = Outcome(), self.now + seconds, self.now + 1
        while self.now < end:
            self.now += self.rng.expovariate(self._rate)
            self._catch_up()
            while sample_at <= self.now:
                outcome.samples.append([edge.use for edge in self.edges.values()])
                sample_at += 1
            self._arrive(outcome)
        return outcome

    def _catch_up(self) -> None:
        while self._ends and self._ends[0][0] <= self.now:
            _, _, edge = heapq.heappop(self._ends)
            self.edges[edge].streams -= 1
        while self._reports[0][0] <= self.now:
            at, number, edge = heapq.heappop(self._reports)
            self._report(edge)
            heapq.heappush(self._reports, (at + REPORT_SECONDS, number, edge))

    def _report(self, node: NodeId) -> None:
        edge = self.edges[node]
        load = Load(
            int(edge.capacity_rate), int(edge.streams * STREAM_RATE), 1 << 40, 0, int(self.now * 1000)
        )
        for each in self._fields:
            each.edges.loaded(node, load, self.now)

    def _arrive(self, outcome: Outcome) -> None:
        title = -1 if self.rng.random() < self._crowd else self.zipf.draw()
        edge = self.edges[self._chosen(title)]
        outcome.asked += 1
        if edge.touch(title):
            outcome.hits += 1
        else:
            self._keep(edge, title)
        edge.streams += 1
        until = self.now + self.rng.expovariate(1 / self._stream_seconds)
        heapq.heappush(self._ends, (until, next(self._serial), edge.id))

    def _chosen(self, title: int) -> NodeId:
        infohash, number = infohash_of(title), self.rng.randrange(TRACKERS)
        tracker, surge = self._fields[number], self._surges[number]
        if self._is_pure:
            return tracker.edges.order(infohash)[0].node
        viewer = Viewer(NodeId(self.rng.randbytes(32)), Kind.MOBILE, "")
        share = surge.share(infohash, self.now)
        question = Question(infohash, viewer, STREAM_RATE, share, self._origin)
        surge.add(infohash, self.now)
        return choose(tracker, question, self.rng, self.now).choices[0].node

    def _keep(self, edge: Edge, title: int) -> None:
        edge.kept[title] = None
        self._announce(edge, title, Event.COMPLETED)
        if len(edge.kept) > edge.slots:
            gone, _ = edge.kept.popitem(last=False)
            self._announce(edge, gone, Event.STOPPED)

    def _announce(self, edge: Edge, title: int, event: Event) -> None:
        message = Announce(infohash_of(title), event, 1, 1, 7)
        for each in () if self._is_pure else self._fields:
            each.swarms.announce(message, edge.id, Kind.EDGE, "", self.now)
