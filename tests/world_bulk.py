"""Bulk streams in virtual time: requests, leaves, cancels and manifests.

A line sends in turns of its streams. A turn is a leaf, or as many as the line carries in
`turn_seconds`: then leaves of a turn arrive together, which is what large crowds can afford."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from peer.core.peer import Peer
from shared.core.actions import Ask, AskManifest, Cancel, Decline
from shared.core.bulk import PieceRequest
from shared.core.errors import Reason
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.manifest import Manifest
from shared.core.merkle import LEAF_BYTES
from tests.world_parts import Flow, Host, VirtualClock

WIRE_SHARE = 1.03  # headers and acknowledgements, which the gate counts


class Bulk:
    """The streams of all hosts. `pump` carries out what a core decided."""

    def __init__(
        self,
        clock: VirtualClock,
        hosts: dict[NodeId, Host],
        manifests: dict[InfoHash, Manifest],
        pump: Callable[[Host], None],
        turn_seconds: float,
    ) -> None:
        self._clock = clock
        self._hosts = hosts
        self._manifests = manifests
        self._pump = pump
        self._turn_seconds = turn_seconds

    # -- asking ---------------------------------------------------------------------------------

    def ask(self, host: Host, action: Ask) -> None:
        """A request leaves; a lost connection fails it at once, as the shell does."""
        source = self._hosts[action.node]
        self._clock.note(f"{host.name} asks {source.name} for {action.piece}+{action.first_leaf}")
        if source.node not in host.links:
            self._clock.at(self._clock.now, lambda: self._end(host, action.request, Reason.TIMEOUT))
            return
        host.asking[action.request] = source
        host.asks += source.hello.kind is not Kind.EDGE
        request = PieceRequest(
            action.infohash, action.piece, action.first_leaf, action.leaf_count, action.slack_ms
        )
        self._clock.at(
            self._clock.now + self._clock.delay(host, source),
            lambda: self._requested(source, host, action.request, request),
        )

    def _requested(self, source: Host, asker: Host, number: int, request: PieceRequest) -> None:
        if not source.alive or asker.node not in source.links or number not in asker.asking:
            return
        mine = next(source.numbers)
        source.asked[mine] = (asker, number, request)
        size = sum(self._leaves(request))
        source.core.requested(mine, request, asker.node, size, self._clock.now)
        self._pump(source)

    def cancel(self, host: Host, action: Cancel) -> None:
        """The asker wants no more; what is on the wire still comes."""
        source = host.asking.pop(action.request, None)
        if source is not None:
            self._clock.note(f"{host.name} gives up {action.request} at {source.name}")
            host.failed_asks += source.hello.kind is not Kind.EDGE
            when = self._clock.now + self._clock.delay(host, source)
            self._clock.at(when, lambda: self._cancelled(source, host, action.request))

    def _cancelled(self, source: Host, asker: Host, number: int) -> None:
        for mine, (who, theirs, _) in list(source.asked.items()):
            if (who, theirs) == (asker, number) and source.alive:
                source.flows = deque(f for f in source.flows if f.request != mine)
                self._served(source, mine)

    def ask_manifest(self, host: Host, action: AskManifest) -> None:
        """The manifest comes a round trip later, or a refusal."""
        source = self._hosts[action.node]

        def arrive() -> None:
            if not host.alive:
                return
            if source.alive and self._may_read(source, host, action.infohash):
                host.core.hold(self._manifests[action.infohash], frozenset(), self._clock.now)
            else:
                host.core.fetches[action.infohash].manifest_failed(
                    action.node, Reason.TIMEOUT, self._clock.now
                )
            self._pump(host)

        self._clock.at(self._clock.now + 2 * self._clock.delay(host, source), arrive)

    def _may_read(self, source: Host, host: Host, infohash: InfoHash) -> bool:
        reason = source.core.seeding.may_read_manifest(infohash, host.node)
        return bool(reason is Reason.NONE)

    def decline(self, host: Host, action: Decline) -> None:
        """A source says no."""
        asker, number, _ = host.asked.pop(action.request)
        asker.failed_asks += host.hello.kind is not Kind.EDGE
        self._clock.note(f"{host.name} declines {asker.name}: {action.reason.name}")
        when = self._clock.now + self._clock.delay(host, asker)
        self._clock.at(when, lambda: self._end(asker, number, action.reason))

    def _end(self, asker: Host, number: int, reason: Reason) -> None:
        asker.asking.pop(number, None)
        if asker.alive:
            asker.core.chunk_ended(number, reason, self._clock.now)
            self._pump(asker)

    def unlinked(self, host: Host, node: NodeId) -> None:
        """A connection of `host` is gone, and the streams on it."""
        host.flows = deque(f for f in host.flows if f.asker.node != node)
        host.asked = {n: a for n, a in host.asked.items() if a[0].node != node}
        host.asking = {n: source for n, source in host.asking.items() if source.node != node}

    # -- serving --------------------------------------------------------------------------------

    def _leaves(self, request: PieceRequest) -> deque[int]:
        piece = self._manifests[request.infohash].piece_size(request.piece)
        leaves = range(request.first_leaf, request.first_leaf + request.leaf_count)
        return deque(min(LEAF_BYTES, piece - leaf * LEAF_BYTES) for leaf in leaves)

    def serve(self, host: Host, mine: int) -> None:
        """The core gave a request its turn."""
        asker, number, request = host.asked[mine]
        host.flows.append(Flow(asker, number, self._leaves(request), mine))
        if not host.sending:
            host.sending = True
            self._send_turn(host)

    def _send_turn(self, host: Host) -> None:
        """The flow whose turn it is sends; the next when the line is free again."""
        if not host.flows or not host.alive:
            host.sending = False
            return
        flow = host.flows.popleft()
        rate = self._rate(host)
        count = max(1, min(len(flow.sizes), int(rate * self._turn_seconds) // LEAF_BYTES))
        sizes = [flow.sizes.popleft() for _ in range(count)]
        if flow.sizes:
            host.flows.append(flow)
        size, last = sum(sizes), not flow.sizes
        host.sent_bytes += size
        took = size * WIRE_SHARE / rate
        self._clock.at(self._clock.now + took, lambda: self._left(host, flow, sizes, last))

    def _rate(self, host: Host) -> float:
        return host.core.cap.gate_rate() if isinstance(host.core, Peer) else host.line.up_rate

    def _left(self, host: Host, flow: Flow, sizes: list[int], last: bool) -> None:
        asker, clock, size = flow.asker, self._clock, sum(sizes)
        there = asker.region.down(host.region.up(clock.now, size), size) + clock.delay(host, asker)
        asker.down_free_at = max(there, asker.down_free_at) + size / asker.line.down_rate
        clock.at(asker.down_free_at, lambda: self._arrived(host, flow, sizes, last))
        if last:  # its turn ends when the asker has acknowledged it all
            acknowledged_at = asker.down_free_at + clock.delay(asker, host)
            clock.at(acknowledged_at, lambda: self._served(host, flow.request))
        self._send_turn(host)

    def _served(self, host: Host, mine: int) -> None:
        if host.asked.pop(mine, None) is not None and host.alive:
            host.core.served(mine)
            self._pump(host)

    def _arrived(self, host: Host, flow: Flow, sizes: list[int], last: bool) -> None:
        asker, now = flow.asker, self._clock.now
        if not asker.alive:
            return
        asker.received_bytes += sum(sizes)
        if host.poisonous:
            self._end(asker, flow.number, Reason.BAD_DATA)
            return
        for size in sizes:
            asker.core.leaf_arrived(flow.number, host.node, size, now)
        if last:
            self._whole(asker, flow.number)
        self._pump(asker)

    def _whole(self, asker: Host, number: int) -> None:
        place = asker.core.request_place(number)
        asker.asking.pop(number, None)
        asker.core.chunk_ended(number, Reason.NONE, self._clock.now)
        if place is not None:
            asker.stored.append(place[1])
            asker.core.stored(*place, True, self._clock.now)
