"""A swarm of the real cores in virtual time: same seed, same trace.

Nodes are cores; these files are their network. A message takes one way of latency, a lost one a
retransmission more (QUIC delivers, late). Pieces leave through an uplink that serves its streams
in turn, 16 KiB at a time, at the rate the gate would allow. Viewers read at playback speed
through a buffer as players do, and count start-up and stalls themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.core.admission import Admission
from edge.core.edge import Edge, EdgeSettings
from peer.core.peer import Peer, PeerSettings
from shared.core import entries, messages, signing
from shared.core.actions import Ask, AskManifest, Cancel, Decline, Dial, Hangup, Send, Serve
from shared.core.errors import Reason
from shared.core.ids import Address, InfoHash, Kind, Mode, NodeId
from shared.core.messages import PROTOCOL_VERSION, Hello
from shared.core.rates import Rates
from tests.world_audience import Audience
from tests.world_bulk import Bulk
from tests.world_parts import (
    COARSE,
    FINE,
    Host,
    Line,
    Region,
    Scale,
    Viewer,
    VirtualClock,
    film,
    key_of,
)  # fmt: skip
from tracker.core.tracker import StoreTitle, Tracker, TrackerSettings

DEATH_NOTICED_SECONDS = 12.0  # the shells' idle timeout
DIAL_SECONDS = 5.0
MEASURE_SECONDS = 1.0


class World:
    """A tracker, an edge with a film, and whoever is added."""

    def __init__(
        self,
        seed: int = 1,
        *,
        film_seconds: int = 60,
        bit_rate: float = 3_960_000.0,
        edge_rate: float = 2_500_000.0,
        titles: int = 1,
        scale: Scale = FINE,
    ) -> None:
        """`edge_rate`: of the first edge's uplink, bytes per second."""
        self.clock = VirtualClock(seed, keeps_trace=scale.keeps_trace)
        films = [film(film_seconds, bit_rate, number) for number in range(titles)]
        self.manifest, key = films[0]
        self.manifests = {manifest.infohash: manifest for manifest, _ in films}
        self.hosts: dict[NodeId, Host] = {}
        self.edges: list[Host] = []
        self._scale = scale
        self.bulk = Bulk(self.clock, self.hosts, self.manifests, self.pump, scale.turn_seconds)
        self.audience = Audience(self.clock, self.manifests, self.pump, scale.tick_seconds)
        self._acts: dict[type, Callable[[Host, Any], None]] = {
            Send: self._send,
            Dial: self._dial,
            Hangup: self._hang_up,
            Ask: self.bulk.ask,
            Cancel: self.bulk.cancel,
            AskManifest: self.bulk.ask_manifest,
            Serve: lambda host, action: self.bulk.serve(host, action.request),
            Decline: self.bulk.decline,
            StoreTitle: lambda host, action: host.core.stored(action),
        }
        self.tracker = self._host(
            "tracker", key_of("tracker"), None, Line(1e9, 1e9), Kind.TRACKER, Mode.DIRECT
        )
        self._address = Address(self.tracker.node, self.tracker.at)
        self.edge = self._start_edge("edge", key, edge_rate)
        self.start_tracker()

    # -- building -------------------------------------------------------------------------------

    def _host(
        self,
        name: str,
        key: Ed25519PrivateKey,
        core: Any,
        line: Line,
        kind: Kind,
        mode: Mode,
        region: Region | None = None,
    ) -> Host:
        node = signing.node_id(key.public_key().public_bytes_raw())
        region = region or Region()
        hello = Hello(PROTOCOL_VERSION, kind, mode, region.name, "world", "0.0.0.0:0")
        host = self.hosts[node] = Host(name, node, core, line, hello, region=region)
        self.clock.at(self.clock.now, lambda: self.pump(host))
        return host

    def _random(self) -> Random:
        return Random(self.clock.rng.random())

    def start_tracker(self) -> None:
        """A tracker that knows its catalogue and nothing else, as after a crash."""
        catalogue = [entries.entry_of(manifest) for manifest in self.manifests.values()]
        settings = TrackerSettings(open_to_edges=True)
        self.tracker.core = Tracker(key_of("tracker"), settings, catalogue, self._random())
        self.tracker.alive = True
        self.tracker.timer_at = float("inf")

    def add_edge(self, name: str, up_rate: float, region: str = "") -> Host:
        """One more edge that holds everything; it is nobody's household."""
        return self._start_edge(name, key_of(name), up_rate, region)

    def _start_edge(self, name: str, key: Ed25519PrivateKey, up_rate: float, region: str = "") -> Host:
        settings = EdgeSettings(capacity_rate=up_rate)
        core = Edge(self._address, Admission(frozenset(), False), self._random(), settings)
        host = self._host(name, key, core, Line(up_rate), Kind.EDGE, Mode.SHARED, Region(region))
        self.edges.append(host)
        for manifest in self.manifests.values():
            core.hold(manifest, frozenset(range(manifest.piece_count)), self.clock.now)
        if self._scale is not FINE:
            self._measure(host, 0)  # with one edge nothing depends on its load
        return host

    def add_peer(
        self,
        name: str,
        line: Line,
        kind: Kind = Kind.PC,
        mode: Mode = Mode.SHARED,
        told_rate: float = 0.0,
        region: Region | None = None,
    ) -> Host:
        """A peer that is switched on now and watches nothing yet; it believes `told_rate` of its uplink."""
        core = Peer(PeerSettings(self._address, mode, told_rate or line.up_rate), self._random())
        host = self._host(name, key_of(name), core, line, kind, mode, region)
        self._measure(host, 0)
        return host

    def _measure(self, host: Host, before: int) -> None:
        """The shell's second hand: what left lately goes to the core."""
        sent = host.sent_bytes
        rate = (sent - before) / MEASURE_SECONDS
        host.core.measured(Rates(rate, 0.0, sent, 0, len(host.links)))
        if host.alive:
            self.clock.at(self.clock.now + MEASURE_SECONDS, lambda: self._measure(host, sent))

    def watch(self, host: Host, after_seconds: float, infohash: InfoHash | None = None) -> Viewer:
        """The host's user presses play."""
        viewer = Viewer(host, self.clock.now + after_seconds, infohash=infohash or self.infohash)
        self.audience.watch(viewer)
        return viewer

    def download(self, host: Host, after_seconds: float) -> Viewer:
        """The host's user wants the whole file, and looks at nothing meanwhile."""
        viewer = Viewer(host, self.clock.now + after_seconds, downloads=True, infohash=self.infohash)
        self.audience.watch(viewer)
        return viewer

    def poison(self, host: Host) -> None:
        """The host says that it holds everything, and sends bytes that are wrong."""
        host.poisonous = True
        host.core.hold(self.manifest, frozenset(range(self.manifest.piece_count)), self.clock.now)

    def kill(self, host: Host) -> None:
        """The host's power is cut: others notice when their idle timeouts end."""
        host.alive = False
        self.clock.note(f"{host.name} dies")
        for node in host.links:
            self._lose_later(self.hosts[node], host.node)
        host.links.clear()
        host.flows.clear()

    def leave(self, host: Host) -> None:
        """The host's user has enough and switches it off: others hear of it at once."""
        if not host.alive:
            return
        host.alive = False
        self.clock.note(f"{host.name} leaves")
        for node in host.links:
            other = self.hosts[node]
            when = self.clock.now + self.clock.delay(host, other)
            self.clock.at(when, lambda other=other: self._lose(other, host.node))  # type: ignore[misc]
        host.links.clear()
        host.flows.clear()

    def _lose_later(self, host: Host, node: NodeId) -> None:
        self.clock.at(self.clock.now + DEATH_NOTICED_SECONDS, lambda: self._lose(host, node))

    # -- time -----------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Runs that much virtual time."""
        self.clock.run(seconds)

    def pump(self, host: Host) -> None:
        """Carries out what a core decided, as the shells do."""
        while host.alive and (action := host.core.next_action()) is not None:
            act = self._acts.get(type(action))
            if act is not None:
                act(host, action)
        timer = host.core.get_timer()
        if host.alive and timer < host.timer_at:
            host.timer_at = timer
            self.clock.at(timer, lambda: self._timer(host, timer))

    def _timer(self, host: Host, due: float) -> None:
        if not host.alive or due != host.timer_at:
            return  # a nearer one was set meanwhile
        host.timer_at = float("inf")
        if host.core.get_timer() <= self.clock.now:
            host.core.handle_timer(self.clock.now)
        self.pump(host)

    # -- connections ----------------------------------------------------------------------------

    def _send(self, host: Host, action: Send) -> None:
        target = self.hosts[action.to]
        if action.to not in host.links:
            return
        message = action.message
        if self._scale.encodes:  # what cannot be said on the wire fails here too
            message = messages.decode(messages.encode(message))

        def arrive() -> None:
            if target.alive and host.node in target.links:
                target.core.receive(message, host.node, self.clock.now)
                self.pump(target)

        self.clock.at(self.clock.now + self.clock.delay(host, target), arrive)

    def _dial(self, host: Host, action: Dial) -> None:
        target = self.hosts[action.node]
        wait = 3 * self.clock.delay(host, target) if target.alive else DIAL_SECONDS
        if action.node in host.links:
            wait = 0.0  # the shell says at once that it is connected
        self.clock.at(self.clock.now + wait, lambda: self._dialled(host, target))

    def _dialled(self, host: Host, target: Host) -> None:
        linked = target.node in host.links
        if not host.alive:
            return
        if not target.alive and not linked:
            host.core.disconnected(target.node, Reason.TIMEOUT, self.clock.now)
            self.pump(host)
            return
        for a, b in ((host, target),) if linked else ((host, target), (target, host)):
            a.links[b.node] = None
            a.core.connected(b.node, b.at, b.hello, self.clock.now)
            self.pump(a)

    def _hang_up(self, host: Host, action: Hangup) -> None:
        self.clock.note(f"{host.name} hangs up on {self.hosts[action.node].name}: {action.reason.name}")
        self._lose(self.hosts[action.node], host.node)
        self._lose(host, action.node)

    def _lose(self, host: Host, node: NodeId) -> None:
        if node in host.links and host.alive:
            del host.links[node]
            self.bulk.unlinked(host, node)
            host.core.disconnected(node, Reason.TIMEOUT, self.clock.now)
            self.pump(host)

    # -- figures --------------------------------------------------------------------------------

    @property
    def infohash(self) -> InfoHash:
        """The film's swarm."""
        return self.manifest.infohash

    @property
    def viewers(self) -> list[Viewer]:
        """Everybody who watches, or did."""
        return self.audience.viewers

    def offload(self) -> float:
        """The share of bytes that came from peers."""
        edge = sum(v.host.core.statistics().edge_bytes for v in self.viewers)
        peers = sum(v.host.core.statistics().peer_bytes for v in self.viewers)
        return float(peers / (edge + peers))

    def fingerprint(self) -> str:
        """A hash of all that happened."""
        return self.clock.fingerprint()


__all__ = ["COARSE", "FINE", "Host", "Line", "Region", "Scale", "Viewer", "World"]
