"""A swarm of the real cores in virtual time: same seed, same trace.

Nodes are cores; this file is their network. A message takes one way of latency, a lost one a
retransmission more (QUIC delivers, late). Pieces leave through an uplink that serves its streams
in turn, 16 KiB at a time, at the rate the gate would allow. Viewers read at playback speed
through a buffer as players do, and count start-up and stalls themselves.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.core.admission import Admission
from edge.core.edge import Edge, rendition_of
from peer.core.peer import Peer, PeerSettings, Rates
from shared.core import manifest as manifests
from shared.core import messages, signing
from shared.core.actions import Ask, AskManifest, Cancel, Decline, Dial, Hangup, Send, Serve
from shared.core.bulk import PieceRequest
from shared.core.errors import Reason
from shared.core.ids import Address, HostPort, InfoHash, Kind, Mode, NodeId, TitleId
from shared.core.manifest import Manifest
from shared.core.merkle import LEAF_BYTES, FileTree, root_of_layer
from shared.core.messages import PROTOCOL_VERSION, Entry, Hello
from shared.core.segments import Media, lay_out
from shared.core.shape import PIECE_BYTES
from tracker.core.tracker import StoreTitle, Tracker, TrackerSettings

PLAYER_BUFFER_SECONDS = 12.0
PLAYER_TICK_SECONDS = 0.05
SEGMENT_MS = 4000


def film(seconds: int = 60, bit_rate: float = 3_960_000.0) -> tuple[Manifest, Ed25519PrivateKey]:
    """A signed manifest of a film whose bytes nobody needs."""
    key = _key("publisher's edge")
    each = int(bit_rate / 8 * SEGMENT_MS / 1000)
    segments = lay_out(1000, [(each, SEGMENT_MS)] * (seconds * 1000 // SEGMENT_MS))
    length = segments[-1].offset + segments[-1].length
    piece = PIECE_BYTES
    layer = b"".join(sha256(b"%d" % n).digest() for n in range(-(-length // piece)))
    tree = FileTree(length, piece, layer, root_of_layer(layer, piece))
    media = Media(
        bandwidth=int(bit_rate),
        average_bandwidth=int(bit_rate),
        codecs="avc1.64001f",
        duration_ms=len(segments) * SEGMENT_MS,
        height=720,
        width=1280,
        init_bytes=1000,
        segments=segments,
    )
    draft = manifests.build("film.mp4", tree, title="Film", title_id=TitleId(bytes(16)), media=media)
    return manifests.parse(manifests.sign(draft, key)), key


def _key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


@dataclass(slots=True)
class Line:
    """An access line: bytes per second each way, and one way of latency in seconds."""

    up_rate: float
    down_rate: float = 6_250_000.0
    latency_seconds: float = 0.015
    loss: float = 0.0


@dataclass(slots=True)
class Flow:
    """One request being served, by its asker's number."""

    asker: Host
    number: int
    sizes: deque[int]


@dataclass(slots=True, eq=False)
class Host:
    """A core on its line."""

    name: str
    node: NodeId
    core: Any
    line: Line
    hello: Hello
    alive: bool = True
    links: set[NodeId] = field(default_factory=set)
    flows: deque[Flow] = field(default_factory=deque)
    sending: bool = False
    asked: dict[int, tuple[Host, int, PieceRequest]] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: count(1))
    down_free_at: float = 0.0
    timer_at: float = float("inf")
    poisonous: bool = False
    sent_bytes: int = 0

    @property
    def at(self) -> HostPort:
        """Where others see it."""
        return HostPort(f"{self.name}.test", 4430)


@dataclass(slots=True)
class Viewer:
    """Somebody watching; counts what a person would notice."""

    host: Host
    began_at: float
    startup_seconds: float | None = None
    shown_seconds: float = 0.0
    read_offset: int = 0
    stalls: int = 0
    stalled: bool = False
    waits_for: int | None = None
    waits_since: float = 0.0
    done: bool = False


class World:
    """Everything in one heap of events."""

    def __init__(self, seed: int = 1, film_seconds: int = 60) -> None:
        self.rng = Random(seed)
        self.now = 1_000_000.0
        self.trace: list[str] = []
        self.manifest, key = film(film_seconds)
        self.hosts: dict[NodeId, Host] = {}
        self.viewers: list[Viewer] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._address = self._start_tracker()
        self.edge = self._start_edge(key)

    # -- building -------------------------------------------------------------------------------

    def _host(self, name: str, key: Ed25519PrivateKey, core: Any, line: Line, kind: Kind, mode: Mode) -> Host:
        node = signing.node_id(key.public_key().public_bytes_raw())
        hello = Hello(PROTOCOL_VERSION, kind, mode, "", "world", "0.0.0.0:0")
        host = Host(name, node, core, line, hello)
        self.hosts[node] = host
        self.at(self.now, lambda: self.pump(host))
        return host

    def _start_tracker(self) -> Address:
        key = _key("tracker")
        settings = TrackerSettings(announce_seconds=20, report_seconds=5, open_to_edges=True)
        core = Tracker(key, settings, [], Random(self.rng.random()))
        self.tracker = self._host("tracker", key, core, Line(1e9, 1e9), Kind.TRACKER, Mode.DIRECT)
        return Address(self.tracker.node, self.tracker.at)

    def _start_edge(self, key: Ed25519PrivateKey) -> Host:
        core = Edge(self._address, Admission(frozenset(), False), Random(self.rng.random()))
        core.hold(self.manifest, frozenset(range(self.manifest.piece_count)), self.now)
        entry = Entry(
            self.manifest.title_id,
            self.manifest.title,
            self.manifest.signer_id,
            (rendition_of(self.manifest),),
        )
        self.tracker.core.stored(StoreTitle(entry, self.manifest.signer_id, 1))
        return self._host("edge", key, core, Line(2_500_000.0), Kind.EDGE, Mode.SHARED)

    def add_peer(
        self,
        name: str,
        line: Line,
        kind: Kind = Kind.PC,
        mode: Mode = Mode.SHARED,
        *,
        poisonous: bool = False,
    ) -> Host:
        """A peer that is switched on now and watches nothing yet."""
        settings = PeerSettings(self._address, mode, line.up_rate)
        core = Peer(settings, Random(self.rng.random()))
        host = self._host(name, _key(name), core, line, kind, mode)
        host.poisonous = poisonous
        return host

    def watch(self, host: Host, after_seconds: float) -> Viewer:
        """The host's user presses play."""
        viewer = Viewer(host, self.now + after_seconds)
        self.viewers.append(viewer)
        self.at(viewer.began_at, lambda: self._press_play(viewer))
        return viewer

    def kill(self, host: Host) -> None:
        """The host's power is cut: others notice when their idle timeouts end."""
        host.alive = False
        self.note(f"{host.name} dies")
        for other in list(host.links):
            self.at(self.now + 1.0, lambda other=other: self._lose(self.hosts[other], host.node))  # type: ignore[misc]
        host.links.clear()
        host.flows.clear()

    # -- the clock ------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Does `what` at clock time `when`."""
        heapq.heappush(self._events, (when, next(self._order), what))

    def run(self, seconds: float) -> None:
        """Runs that much virtual time."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = end

    def note(self, line: str) -> None:
        """Adds to the trace."""
        self.trace.append(f"{self.now - 1_000_000.0:.4f} {line}")

    def pump(self, host: Host) -> None:
        """Carries out what a core decided, as the shells do."""
        while host.alive and (action := host.core.next_action()) is not None:
            self._carry_out(host, action)
        timer = host.core.get_timer()
        if host.alive and timer < host.timer_at:
            host.timer_at = timer
            self.at(max(timer, self.now), lambda: self._timer(host))

    def _timer(self, host: Host) -> None:
        if not host.alive:
            return
        host.timer_at = float("inf")
        if host.core.get_timer() <= self.now:
            host.core.handle_timer(self.now)
        self.pump(host)

    def _delay(self, a: Host, b: Host) -> float:
        way = a.line.latency_seconds + b.line.latency_seconds
        lost = 0
        while self.rng.random() < max(a.line.loss, b.line.loss) and lost < 5:
            lost += 1
        return way + lost * 2.5 * way

    # -- orders ---------------------------------------------------------------------------------

    def _carry_out(self, host: Host, action: Any) -> None:
        match action:
            case Send():
                self._send(host, action)
            case Dial():
                self._dial(host, action.node)
            case Hangup():
                self._hang_up(host, action)
            case Ask():
                self._ask(host, action)
            case Cancel():
                self._cancel(host, action.request)
            case AskManifest():
                self._ask_manifest(host, action)
            case Serve():
                self._serve(host, action.request)
            case Decline():
                self._decline(host, action)
            case StoreTitle():
                host.core.stored(action)

    def _send(self, host: Host, action: Send) -> None:
        target = self.hosts[action.to]
        if action.to not in host.links or not target.alive:
            return
        body = messages.encode(action.message)  # what cannot be said on the wire fails here too

        def arrive() -> None:
            if target.alive and host.node in target.links:
                target.core.receive(messages.decode(body), host.node, self.now)
                self.pump(target)

        self.at(self.now + self._delay(host, target), arrive)

    def _dial(self, host: Host, node: NodeId) -> None:
        target = self.hosts[node]

        def end() -> None:
            if not (host.alive and target.alive):
                host.core.disconnected(node, Reason.TIMEOUT, self.now)
                self.pump(host)
                return
            for a, b in ((host, target), (target, host)):
                a.links.add(b.node)
                a.core.connected(b.node, b.at, b.hello, self.now)
                self.pump(a)

        wait = 3 * self._delay(host, target) if target.alive else 5.0
        self.at(self.now + wait, end)

    def _hang_up(self, host: Host, action: Hangup) -> None:
        self.note(f"{host.name} hangs up on {self.hosts[action.node].name}: {action.reason.name}")
        self._lose(self.hosts[action.node], host.node)
        self._lose(host, action.node)

    def _lose(self, host: Host, node: NodeId) -> None:
        if node in host.links and host.alive:
            host.links.discard(node)
            host.flows = deque(f for f in host.flows if f.asker.node != node)
            host.core.disconnected(node, Reason.TIMEOUT, self.now)
            self.pump(host)

    # -- bulk -----------------------------------------------------------------------------------

    def _ask(self, host: Host, action: Ask) -> None:
        source = self.hosts[action.node]
        self.note(f"{host.name} asks {source.name} for {action.piece}+{action.first_leaf}")
        request = PieceRequest(
            action.infohash, action.piece, action.first_leaf, action.leaf_count, action.slack_ms
        )

        def arrive() -> None:
            if source.alive and host.node in source.links:
                number = next(source.numbers)
                source.asked[number] = (host, action.request, request)
                size = action.leaf_count * LEAF_BYTES
                source.core.requested(number, request, host.node, size, self.now)
                self.pump(source)

        self.at(self.now + self._delay(host, source), arrive)

    def _ask_manifest(self, host: Host, action: AskManifest) -> None:
        source = self.hosts[action.node]

        def arrive() -> None:
            if host.alive and source.alive:
                reason = source.core.seeding.may_read_manifest(action.infohash, host.node)
                if reason is Reason.NONE:
                    host.core.hold(self.manifest, frozenset(), self.now)
                else:
                    host.core.fetches[action.infohash].manifest_failed(action.node, self.now)
                self.pump(host)

        self.at(self.now + 2 * self._delay(host, source), arrive)

    def _decline(self, host: Host, action: Decline) -> None:
        asker, number, _ = host.asked.pop(action.request)
        self.note(f"{host.name} declines {asker.name}: {action.reason.name}")
        self.at(self.now + self._delay(host, asker), lambda: self._end(asker, number, action.reason))

    def _end(self, asker: Host, number: int, reason: Reason) -> None:
        if asker.alive:
            asker.core.chunk_ended(number, reason, self.now)
            self.pump(asker)

    def _serve(self, host: Host, number: int) -> None:
        asker, theirs, request = host.asked[number]
        piece = self.manifest.piece_size(request.piece)
        sizes = deque(
            min(LEAF_BYTES, piece - leaf * LEAF_BYTES)
            for leaf in range(request.first_leaf, request.first_leaf + request.leaf_count)
        )
        host.flows.append(Flow(asker, theirs, sizes))
        host.asked[number] = (asker, theirs, request)
        if not host.sending:
            host.sending = True
            self._send_leaf(host)

    def _send_leaf(self, host: Host) -> None:
        """One leaf of the flow whose turn it is; the next when the line is free again."""
        if not host.flows or not host.alive:
            host.sending = False
            return
        flow = host.flows.popleft()
        size = flow.sizes.popleft()
        last = not flow.sizes
        host.sent_bytes += size
        took = size * 1.03 / self._rate(host)
        self.at(self.now + took, lambda: self._left(host, flow, size, last))
        if last:
            mine = next(n for n, (a, m, _) in host.asked.items() if (a, m) == (flow.asker, flow.number))
            self.at(self.now + took, lambda: self._served(host, mine))
        else:
            host.flows.append(flow)

    def _rate(self, host: Host) -> float:
        gated = isinstance(host.core, Peer)
        return host.core.cap.gate_rate() if gated else host.line.up_rate

    def _served(self, host: Host, number: int) -> None:
        host.asked.pop(number, None)
        host.core.served(number)
        self.pump(host)

    def _left(self, host: Host, flow: Flow, size: int, last: bool) -> None:
        asker = flow.asker
        start = max(self.now + self._delay(host, asker), asker.down_free_at)
        asker.down_free_at = start + size / asker.line.down_rate
        self.at(asker.down_free_at, lambda: self._leaf(host, flow, size, last))
        self._send_leaf(host)

    def _leaf(self, host: Host, flow: Flow, size: int, last: bool) -> None:
        asker = flow.asker
        if not asker.alive:
            return
        if host.poisonous:
            self._end(asker, flow.number, Reason.BAD_DATA)
            return
        where = asker.core.request_place(flow.number)
        asker.core.leaf_arrived(flow.number, host.node, size, self.now)
        if last:
            asker.core.chunk_ended(flow.number, Reason.NONE, self.now)
            if where is not None:
                asker.core.stored(*where, True, self.now)
        self.pump(asker)

    def _cancel(self, host: Host, number: int) -> None:
        for other in self.hosts.values():
            for mine, (asker, theirs, _) in list(other.asked.items()):
                if asker is host and theirs == number:
                    self.at(self.now + self._delay(host, other), lambda o=other, m=mine: self._drop(o, m))  # type: ignore[misc]

    def _drop(self, source: Host, number: int) -> None:
        if number in source.asked:
            asker, theirs, _ = source.asked.pop(number)
            source.flows = deque(f for f in source.flows if (f.asker, f.number) != (asker, theirs))
            source.core.served(number)
            self.pump(source)

    # -- people ---------------------------------------------------------------------------------

    def _press_play(self, viewer: Viewer) -> None:
        viewer.host.core.fetch(self.infohash, self.now)
        self.pump(viewer.host)
        self._play(viewer)

    @property
    def infohash(self) -> InfoHash:
        """The film's swarm."""
        return self.manifest.infohash

    def _play(self, viewer: Viewer) -> None:
        if not viewer.host.alive or viewer.done:
            return
        fetch = viewer.host.core.fetches[self.infohash]
        if fetch.manifest is not None:
            self._read(viewer, fetch)
            self._show(viewer, fetch)
        self.at(self.now + PLAYER_TICK_SECONDS, lambda: self._play(viewer))

    def _read(self, viewer: Viewer, fetch: Any) -> None:
        piece_bytes = self.manifest.piece_length
        while viewer.read_offset < self.manifest.length:
            ahead = fetch.known.playhead.media_seconds(viewer.read_offset) - viewer.shown_seconds
            if ahead > PLAYER_BUFFER_SECONDS:
                break
            piece = viewer.read_offset // piece_bytes
            if viewer.waits_for is None and not fetch.read(viewer.read_offset, self.now):
                viewer.waits_for, viewer.waits_since = piece, self.now
                fetch.wait(piece, self.now)
            if not fetch.known.here(piece):
                break
            if viewer.waits_for is not None:
                fetch.stop_waiting(piece)
                fetch.known.playhead.waited(viewer.read_offset, viewer.waits_since, self.now)
                viewer.waits_for = None
            viewer.read_offset = (piece + 1) * piece_bytes
        self.pump(viewer.host)

    def _show(self, viewer: Viewer, fetch: Any) -> None:
        end = min(viewer.read_offset, self.manifest.length)
        available = fetch.known.playhead.media_seconds(end) - viewer.shown_seconds
        total = SEGMENT_MS / 1000 * len(self.manifest.media.segments)  # type: ignore[union-attr]
        if viewer.startup_seconds is None:
            if available >= 1.0:
                viewer.startup_seconds = self.now - viewer.began_at
                self.note(f"{viewer.host.name} shows a picture")
        elif available >= PLAYER_TICK_SECONDS or end == self.manifest.length:
            viewer.stalled = False
            viewer.shown_seconds += PLAYER_TICK_SECONDS
            if viewer.shown_seconds >= total:
                viewer.done = True
                self.note(f"{viewer.host.name} saw it all")
        elif not viewer.stalled:
            viewer.stalled = True
            viewer.stalls += 1
            self.note(f"{viewer.host.name} stalls")

    # -- figures --------------------------------------------------------------------------------

    def offload(self) -> float:
        """The share of bytes that came from peers."""
        edge = sum(v.host.core.statistics().edge_bytes for v in self.viewers)
        peers = sum(v.host.core.statistics().peer_bytes for v in self.viewers)
        return float(peers / (edge + peers))


__all__ = ["Host", "Line", "Rates", "Viewer", "World", "film"]
