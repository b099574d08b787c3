"""Peers of unequal lines that serve one title: how often a viewer asks somebody who is full."""

from __future__ import annotations

import heapq
from hashlib import sha256
from itertools import count
from random import Random

from benchmarks.tracker.fleet import START_AT, STREAM_RATE, infohash_of
from shared.core import spare
from shared.core.ids import Kind, NodeId
from shared.core.messages import Announce, Event
from tracker.core.answers import Question, Viewer
from tracker.core.edges import Edges
from tracker.core.redirect import Field, choose_many
from tracker.core.swarm import Swarms

LINES = (150e3, 300e3, 600e3, 1200e3, 2400e3)  # what peers may upload, bytes per second
HEARD_SECONDS = 1.0  # from a change of class to the tracker's knowing
FILM = infohash_of(0)


class Audience:
    """Peers that hold a film, viewers that ask for it, and the tracker between them, in virtual time."""

    def __init__(self, seed: int, *, peers: int, ample: float, stream_seconds: float) -> None:
        """`ample`: what peers could upload over what viewers want, on average."""
        self._rng = Random(seed)
        self._field = Field(Swarms(1e6), Edges(5.0))
        self._stream_seconds = stream_seconds
        self._now = START_AT
        self._lines = {
            NodeId(sha256(b"peer %d" % n).digest()): self._rng.choice(LINES) for n in range(peers)
        }  # fmt: skip
        self._taken = dict.fromkeys(self._lines, 0.0)
        self._told = dict.fromkeys(self._lines, -1)
        self._kinds = {peer: Kind.STB if peer[0] % 4 == 0 else Kind.PC for peer in self._lines}
        self.viewers = sum(self._lines.values()) / STREAM_RATE / ample  # at the same time, on average
        self._events: list[tuple[float, int, NodeId, float]] = []  # until, order, peer, rate given back
        self._serial = count()
        for peer in self._lines:
            self._announce(peer)

    def run(self, seconds: float, *, together: int = 1) -> float:
        """The share of asks that were refused because the holder was full. So many ask at once."""
        asked = refused = 0
        end, rate = self._now + seconds, self.viewers / self._stream_seconds / together
        while self._now < end:
            self._now += self._rng.expovariate(rate)
            self._catch_up()
            viewers = [Viewer(NodeId(self._rng.randbytes(32)), Kind.PC, "") for _ in range(together)]
            questions = [Question(FILM, viewer, STREAM_RATE) for viewer in viewers]
            for answer in choose_many(self._field, questions, self._rng, self._now):
                each = STREAM_RATE / answer.connections
                until = self._now + self._rng.expovariate(1 / self._stream_seconds)
                for choice in answer.choices[: answer.connections]:
                    asked += 1
                    if self._taken[choice.node] + each > self._lines[choice.node]:
                        refused += 1
                    else:
                        self._take(choice.node, each, until)
        return refused / asked

    def _take(self, peer: NodeId, rate: float, until: float) -> None:
        self._taken[peer] += rate
        heapq.heappush(self._events, (until, next(self._serial), peer, rate))
        heapq.heappush(self._events, (self._now + HEARD_SECONDS, next(self._serial), peer, 0.0))

    def _catch_up(self) -> None:
        while self._events and self._events[0][0] <= self._now:
            at, _, peer, rate = heapq.heappop(self._events)
            if rate:
                self._taken[peer] -= rate
                heapq.heappush(self._events, (at + HEARD_SECONDS, next(self._serial), peer, 0.0))
            else:
                self._announce(peer)

    def _announce(self, peer: NodeId) -> None:
        level = spare.class_of(self._lines[peer] - self._taken[peer])
        if level != self._told[peer]:
            self._told[peer] = level
            message = Announce(FILM, Event.UPDATE, 1, 1, level)
            self._field.swarms.announce(message, peer, self._kinds[peer], "", self._now)
