"""Edges that fetch from each other in virtual time: real cores, and the test as their tracker.

A message takes `DELAY` each way; a piece takes the source's time for it, one after the other per
asker. The disk of an edge outlives its core, as a disk outlives a killed process.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from edge.core.admission import Admission
from edge.core.edge import Edge, EdgeSettings
from edge.core.outbox import GiveUp, Note
from shared.core import messages, tickets
from shared.core.actions import Ask, AskManifest, Cancel, Decline, Dial, Hangup, Send, Serve
from shared.core.bulk import PieceRequest
from shared.core.errors import Reason
from shared.core.ids import Address, HostPort, InfoHash, Kind, NodeId
from shared.core.manifest import Manifest
from shared.core.messages import Message, Place, Placed, Schedule, Source, Why
from tests.tracker_parts import KEY, NOW, TRACKER_ID, hello, node
from tests.world_parts import film

FILM, _ = film(20)
OTHER, _ = film(12)
THIRD, _ = film(16)
TOTAL = FILM.piece_count
ANN = node("ann")
DELAY = 0.02
DIAL_SECONDS = 5.0
AT = HostPort("192.0.2.1", 4431)
TRACKER_AT = HostPort("192.0.2.1", 4430)


@dataclass(slots=True)
class Host:
    """An edge: its core, its disk, and how fast it sends."""

    name: str
    core: Edge
    rate: float
    disk: dict[InfoHash, set[int]] = field(default_factory=dict)
    alive: bool = True
    lies: bool = False
    mute: bool = False  # takes requests and answers nothing
    full: bool = False  # its disk
    links: set[NodeId] = field(default_factory=set)
    told: list[tuple[float, Message]] = field(default_factory=list)  # to the tracker
    guests: list[tuple[NodeId, Message]] = field(default_factory=list)  # what others were told
    notes: list[str] = field(default_factory=list)
    served: dict[int, list[Any]] = field(default_factory=dict)  # requests of guests: Serve or Decline
    asked: dict[int, tuple[Host, int]] = field(default_factory=dict)
    free_at: dict[NodeId, float] = field(default_factory=dict)
    sent_bytes: int = 0

    @property
    def id(self) -> NodeId:
        return node(self.name)

    def placed(self) -> list[Placed]:
        return [message for _, message in self.told if isinstance(message, Placed)]


class Edges:
    """The network, the clock, and what titles there are."""

    def __init__(self, *manifests: Manifest) -> None:
        self.now = NOW
        self.manifests = {manifest.infohash: manifest for manifest in manifests}
        self.hosts: dict[NodeId, Host] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._numbers = count(1)
        self._rng = Random(1)

    # -- building ---------------------------------------------------------------------------------

    def edge(self, name: str, *held: Manifest, rate: float = 5e6, quota: int = 1 << 34) -> Host:
        """An edge that holds these titles, connected to its tracker."""
        host = Host(name, self._core(name, quota), rate)
        self.hosts[host.id] = host
        for manifest in held:
            host.disk[manifest.infohash] = set(range(manifest.piece_count))
            host.core.hold(manifest, frozenset(host.disk[manifest.infohash]), self.now)
        self.meet_tracker(host)
        return host

    def _core(self, name: str, quota: int) -> Edge:
        settings = EdgeSettings(node(name), 1e8, quota)
        return Edge(Address(TRACKER_ID, TRACKER_AT), Admission(frozenset(), False), self._rng, settings)

    def meet_tracker(self, host: Host) -> None:
        host.core.connected(TRACKER_ID, TRACKER_AT, hello(Kind.TRACKER), self.now)
        host.core.receive(Schedule(60, 5), TRACKER_ID, self.now)
        self.pump(host)

    def lose_tracker(self, host: Host) -> None:
        host.core.disconnected(TRACKER_ID, Reason.TIMEOUT, self.now)
        self.pump(host)

    def kill(self, host: Host, *, quota: int = 1 << 34) -> None:
        """As kill -9 does, and starts it again on the same disk."""
        for other in list(host.links):
            self._part(self.hosts[other], host.id)
        host.links.clear()
        host.asked.clear()
        host.core = self._core(host.name, quota)
        for infohash, pieces in host.disk.items():
            host.core.hold(self.manifests[infohash], frozenset(pieces), self.now)
        self.meet_tracker(host)

    def die(self, host: Host) -> None:
        """Its power is cut, and everybody notices."""
        host.alive = False
        for other in list(host.links):
            self._part(self.hosts[other], host.id)

    def _part(self, host: Host, other: NodeId) -> None:
        if other in host.links:
            host.links.discard(other)
            for number, (source, _) in list(host.asked.items()):
                if source.id == other:
                    self._end(host, number, Reason.SHUTDOWN)
            host.core.disconnected(other, Reason.TIMEOUT, self.now)
            self.pump(host)

    def place(
        self,
        host: Host,
        manifest: Manifest,
        *sources: Host,
        order: int = 1,
        by: NodeId = TRACKER_ID,
        **changed: Any,
    ) -> None:
        """The tracker orders a title."""
        expires_at = int(self.now) + tickets.TICKET_SECONDS
        ticket = tickets.issue(KEY, tickets.Ticket(host.id, manifest.infohash, expires_at, tickets.UNLIMITED))
        named = tuple(Source(s.id, str(AT), Kind.EDGE, "", 7, Why.EDGE_FIRST) for s in sources)
        fields = {"length": manifest.length, "before": 0, "signer": manifest.signer_id, **changed}
        message = Place(order, manifest.infohash, ticket=ticket, sources=named, **fields)
        host.core.receive(messages.decode(messages.encode(message)), by, self.now)
        self.pump(host)

    # -- time -------------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), what))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            timers = [(host.core.get_timer(), host) for host in self.hosts.values() if host.alive]
            timer, host = min(timers, key=lambda pair: pair[0])
            event_at = self._events[0][0] if self._events else float("inf")
            if min(timer, event_at) > until:
                break
            self.now = max(self.now, min(timer, event_at))
            if event_at <= timer:
                heapq.heappop(self._events)[2]()
            else:
                host.core.handle_timer(self.now)
                self.pump(host)
        self.now = until

    # -- what cores want ----------------------------------------------------------------------------

    def pump(self, host: Host) -> None:
        while host.alive and (action := host.core.next_action()) is not None:
            self._act(host, action)

    def _act(self, host: Host, action: Any) -> None:
        match action:
            case Send():
                self._send(host, action)
            case Dial() if action.node in self.hosts:  # not a tracker
                other = self.hosts[action.node]
                wait = 2 * DELAY if other.alive else DIAL_SECONDS
                self.at(self.now + wait, lambda: self._dialled(host, other))
            case Hangup() if action.node in self.hosts:
                self.at(self.now, lambda: self._part(host, action.node))
            case AskManifest():
                self.at(self.now + 2 * DELAY, lambda: self._manifest(host, action))
            case Ask():
                self._ask(host, action)
            case Cancel():
                self.at(self.now, lambda: self._end(host, action.request, Reason.CANCELLED))
            case Serve() | Decline():
                for answers in host.served.get(action.request, []):
                    answers(action)
            case GiveUp():
                host.core.forget(action.infohash)
                host.disk.pop(action.infohash, None)
            case Note():
                host.notes.append(action.text)

    def _send(self, host: Host, action: Send) -> None:
        if action.to == TRACKER_ID:
            host.told.append((self.now, action.message))
        elif action.to not in self.hosts:
            host.guests.append((action.to, action.message))
        elif action.to in host.links:
            other = self.hosts[action.to]
            self.at(self.now + DELAY, lambda: self._hear(other, action.message, host.id))

    def _hear(self, host: Host, message: Message, sender: NodeId) -> None:
        if host.alive and sender in host.links:
            host.core.receive(messages.decode(messages.encode(message)), sender, self.now)
            self.pump(host)

    def _dialled(self, host: Host, other: Host) -> None:
        if not other.alive:
            host.core.disconnected(other.id, Reason.TIMEOUT, self.now)
            self.pump(host)
            return
        fresh = other.id not in host.links
        for a, b in ((host, other), (other, host)) if fresh else ((host, other),):
            a.links.add(b.id)
            a.core.connected(b.id, AT, hello(Kind.EDGE), self.now)
            self.pump(a)

    def _manifest(self, host: Host, action: AskManifest) -> None:
        source, infohash = self.hosts[action.node], action.infohash
        manifest = self.manifests[infohash]
        if source.lies or manifest.signer_id != action.signer or not source.alive:
            host.core.orders.manifest_failed(infohash, action.node, Reason.BAD_DATA, self.now)
        else:
            held = host.disk.setdefault(infohash, set())
            host.core.orders.learned(manifest, frozenset(held), self.now)
        self.pump(host)

    # -- pieces -------------------------------------------------------------------------------------

    def _ask(self, host: Host, action: Ask) -> None:
        source, number = self.hosts[action.node], next(self._numbers)
        host.asked[action.request] = (source, action.piece)
        manifest = self.manifests[action.infohash]
        size = manifest.piece_size(action.piece)
        request = PieceRequest(action.infohash, action.piece, 0, action.leaf_count, action.slack_ms)

        def answer(verdict: Serve | Decline) -> None:
            if isinstance(verdict, Decline):
                self.at(self.now + DELAY, lambda: self._end(host, action.request, verdict.reason))
            elif not source.mute:
                begins = max(self.now, source.free_at.get(host.id, 0.0))
                source.free_at[host.id] = ends = begins + size / source.rate
                self.at(ends, lambda: self._sent(host, source, action, number, size))

        def arrive() -> None:
            source.served[number] = [answer]
            source.core.requested(number, request, host.id, size, self.now)
            self.pump(source)

        self.at(self.now + DELAY, arrive)

    def _sent(self, host: Host, source: Host, action: Ask, number: int, size: int) -> None:
        source.core.served(number)
        self.pump(source)
        if action.request not in host.asked or not source.alive:
            return
        source.sent_bytes += size
        if source.lies:
            self._end(host, action.request, Reason.BAD_DATA)
            return
        host.core.orders.leaf_arrived(action.request, self.now)
        self._end(host, action.request, Reason.NONE)
        if host.full:
            host.core.orders.not_stored(action.infohash, self.now)
        else:
            host.disk[action.infohash].add(action.piece)
            host.core.orders.stored(action.infohash, action.piece, self.now)
        self.pump(host)

    def _end(self, host: Host, number: int, reason: Reason) -> None:
        if host.asked.pop(number, None) is not None:
            host.core.orders.chunk_ended(number, reason, self.now)
            self.pump(host)


def world(**origin: Any) -> tuple[Edges, Host, Host]:
    """An origin that holds the film, and an edge that does not."""
    edges = Edges(FILM, OTHER, THIRD)
    return edges, edges.edge("origin", FILM, OTHER, **origin), edges.edge("edge")


def is_whole(host: Host) -> bool:
    return host.disk.get(FILM.infohash) == set(range(TOTAL))
