"""One QUIC connection between two nodes that know each other's ids, for trio tasks.

The endpoint feeds it datagrams and timers and sends what it builds; tasks use its streams.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, Protocol, TypeVar

import trio
from aioquic.quic import events

from shared.core.errors import ConnectionLost, ProtocolError, Reason, Refused
from shared.core.ids import HostPort, NodeId
from shared.identity import node_id_of
from shared.losses import loss_of, printable
from shared.quic import Out, QuicEngine, reset_route
from shared.quic_settings import ALPN
from shared.sockets import host_port
from shared.statistics import ConnectionStatistics
from shared.stream import Stream as Stream

MAX_UNACCEPTED_STREAMS = 256  # opened by the peer and not yet accepted here
MAX_WAITING_STREAMS = 1024  # opened here, and over the peer's limit of open streams
VOUCHED_SECONDS = 2.0  # later than else comes the ping after a `vouch`
MAX_FAREWELLS = 3  # repeats of a close that the peer did not hear

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class Host(Protocol):
    """What a connection needs of its endpoint; described there."""

    def touch(self, connection: Connection) -> None: ...
    def add_route(self, connection_id: bytes, connection: Connection) -> None: ...
    def drop_route(self, connection_id: bytes) -> None: ...
    def settle(self, connection: Connection) -> None: ...


class Connection:
    """A connection to `peer`; compared by identity."""

    def __init__(
        self,
        engine: QuicEngine,
        host: Host,
        *,
        expected: NodeId | None,
        now: float,
        handshake_seconds: float,
        keep_alive_seconds: float | None = None,
    ) -> None:
        self.is_client = expected is not None
        self.is_over = False  # nothing will be sent or received any more
        self._engine = engine
        self._host = host
        self._expected = expected
        self._peer: NodeId | None = None
        self._settled = trio.Event()
        self._closed = trio.Event()
        self.loss: ConnectionLost | None = None  # why it ended, if it did
        self._handshake_by = now + handshake_seconds
        self.keep_alive_seconds = keep_alive_seconds
        self.heard_at = self._quiet_since = now  # heard, or pinged
        self._vouched_at = -inf
        self._streams: dict[int, Stream] = {}
        self._blocked: set[Stream] = set()
        self._unaccepted: deque[Stream] = deque()
        self._arrival = trio.lowlevel.ParkingLot()
        self._reset_token = b""  # the route by which a reset finds us
        self._farewell: list[tuple[bytes, Any]] = []
        self._farewells_due, self._farewells_left = 0, MAX_FAREWELLS
        self._sent, self._received = [0, 0], [0, 0]  # datagrams, bytes
        self._handlers: dict[type[events.QuicEvent], Callable[[Any], None]] = {
            events.HandshakeCompleted: self._on_handshake,
            events.StreamDataReceived: lambda event: self._stream(event).take_data(
                event.data, event.end_stream
            ),
            events.StreamReset: lambda event: self._stream(event).take_reset(event.error_code),
            events.StopSendingReceived: lambda event: self._stream(event).take_stop(event.error_code),
            events.ConnectionIdIssued: lambda event: host.add_route(event.connection_id, self),
            events.ConnectionIdRetired: lambda event: host.drop_route(event.connection_id),
            events.ConnectionTerminated: self._on_terminated,
        }

    # For tasks

    @property
    def peer(self) -> NodeId:
        """The id of the node at the other end, proved by its key."""
        assert self._peer is not None, "only a connection whose handshake is over is handed out"
        return self._peer

    @property
    def is_established(self) -> bool:
        """The peer is known, and the connection has not ended."""
        return self._peer is not None and self.loss is None

    @property
    def remote(self) -> HostPort:
        """Where the peer is now; it may move."""
        return host_port(self._engine.get_peer_address() or ("", 0))

    def open_stream(self) -> Stream:
        """A new stream; what is written waits while the peer allows no more streams.

        Raises ConnectionLost, and Refused(BUSY) when MAX_WAITING_STREAMS wait already.
        """
        self._check_alive()
        if self._engine.waiting_streams >= MAX_WAITING_STREAMS:
            raise Refused(Reason.BUSY, f"{MAX_WAITING_STREAMS} streams wait for the other side already")
        stream_id = self._engine.get_next_available_stream_id()
        self._engine.send_stream_data(stream_id, b"")  # makes it known; nothing is sent yet
        return self._add_stream(stream_id)

    async def accept_stream(self) -> Stream:
        """The next stream that the peer opened. Raises ConnectionLost."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_alive()
        while not self._unaccepted:
            await self._arrival.park()
            self._check_alive()
        return self._unaccepted.popleft()

    def close(self, reason: Reason = Reason.NONE, detail: str = "") -> None:
        """End it at once; the peer hears the reason and up to 160 characters of detail."""
        if self.loss is None:
            detail = printable(detail)
            self._guard(lambda: self._engine.end(reason, detail), None)
            self._lose(ConnectionLost(reason, detail))
            self._host.touch(self)

    async def wait_closed(self) -> ConnectionLost:
        """Wait for the end and say why it came."""
        await self._closed.wait()
        assert self.loss is not None
        return ConnectionLost(self.loss.reason, self.loss.detail)  # its own, so that it can be raised

    async def wait_established(self) -> None:
        """Wait until the peer is known. Raises ConnectionLost if that fails."""
        await self._settled.wait()
        self._check_alive()

    def statistics(self) -> ConnectionStatistics:
        """A frozen view for screens and decisions."""
        path = self._engine.figures()
        return ConnectionStatistics(
            bytes_sent=self._sent[1],
            bytes_received=self._received[1],
            datagrams_sent=self._sent[0],
            datagrams_received=self._received[0],
            lost_datagrams=path.lost_datagrams,
            rtt_seconds=path.rtt_seconds,
            window_bytes=path.window_bytes,
            in_flight_bytes=path.in_flight_bytes,
            datagram_bytes=path.datagram_bytes,
            streams=len(self._streams),
        )

    def vouch(self, now: float) -> None:
        """The peer was heard by another way: the connection is alive as if a packet of it had come."""
        if self.is_established:
            self._engine.note_alive(now)
            self.heard_at = self._quiet_since = self._vouched_at = now

    def take_shortest_rtt(self) -> float | None:
        """The shortest round trip, in seconds, since the last call; None if none was measured."""
        return self._engine.take_shortest_rtt()

    # For the endpoint

    @property
    def wants_turn(self) -> bool:
        """Stream data waits for a turn at the gate."""
        return self._engine.wants_turn and self.loss is None

    @property
    def is_brief(self) -> bool:
        """What waits for a turn is less than a datagram of some stream."""
        return self._engine.is_brief

    @property
    def has_more(self) -> bool:
        """It could go on sending once others had their turn."""
        return self._engine.has_more and self.loss is None

    def dial(self, sockaddr: Any, now: float) -> None:
        """Begin the handshake."""
        self._guard(lambda: self._engine.connect(sockaddr, now), None)

    def receive(self, datagram: bytes, sender: Any, now: float) -> None:
        """A datagram came in."""
        if self._hear(len(datagram), 1, now):
            self._guard(lambda: self._engine.receive_datagram(datagram, sender, now), None)
            if self._engine.is_stillborn and not self.is_client:
                self._break("a first datagram that cannot be decrypted")
            self._take_events()

    def take_reset(self) -> None:
        """The peer answered that it knows nothing of this connection; `transmit` afterwards."""
        self.is_over = True
        self._lose(ConnectionLost(Reason.TIMEOUT, "the other side has started anew and knows no more of it"))

    def receive_batch(self, data: memoryview, segment_bytes: int, sender: Any, now: float) -> list[bytes]:
        """Datagrams of `segment_bytes` (the last may be shorter) came in, the first of them for us.

        Returns those that must be looked at one by one; some may be for another connection.
        """
        nothing: list[bytes] = []
        left = self._guard(lambda: self._engine.receive_batch(data, segment_bytes, sender, now), nothing)
        taken = -(-len(data) // segment_bytes) - len(left)
        if taken:
            self._hear(len(data) - sum(map(len, left)), taken, now)
            self._take_events()
        return left

    def transmit(self, now: float, out: Out, *, gated: bool, turn: int) -> None:
        """Hand `out` the datagrams to send now; see `QuicEngine.send`."""
        if self._farewells_due:
            self._farewells_due, self._farewells_left = 0, self._farewells_left - 1
            for datagram, recipient in self._farewell:
                out(datagram, len(datagram), recipient)
            return
        if self.loss is not None:
            out = self._keeping_farewell(out)
        self._guard(lambda: self._engine.send(now, out, gated=gated, turn=turn), None)
        self._take_events()
        for stream in list(self._blocked):
            stream.take_progress()
        if len(self._streams) > self._engine.stream_count:
            self._drop_finished()

    def count_sent(self, datagrams: int, payload_bytes: int) -> None:
        """Datagrams really left."""
        self._sent[0] += datagrams
        self._sent[1] += payload_bytes

    def note_refused(self, datagram_bytes: int) -> None:
        """The system would not send a datagram because it is so large."""
        self._engine.note_refused(datagram_bytes)

    def timer_at(self, may_pass_at: float = 0.0) -> float:
        """When `handle_timer` is due, if no data may leave before `may_pass_at`; `inf` for never."""
        if self.is_over:
            return inf
        due = self._guard(self._engine.get_timer, None) or inf
        if due == self._engine.paced_until:
            due = max(due, may_pass_at)
        if not self._settled.is_set():
            due = min(due, self._handshake_by)
        if self.is_established:
            due = min(due, self._ping_at())
        return due

    def handle_timer(self, now: float) -> bool:
        """The time of `timer_at` may have come: then True; `transmit` afterwards."""
        if self.timer_at() > now and not self.wants_turn:
            return False  # it was put off since
        if not self._settled.is_set() and now >= self._handshake_by:
            self.close(Reason.TIMEOUT, "the handshake took too long")
        if self.is_established and now >= self._ping_at():
            self._quiet_since = now
            self._engine.send_ping(0)
        self._guard(lambda: self._handle_engine_timer(now), None)
        self._take_events()
        return True

    def take_apart(self) -> None:
        """It is over and the endpoint has forgotten it; see `QuicEngine.take_apart`."""
        self.is_over = True
        self._handlers.clear()
        self._streams.clear()
        self._engine.take_apart()

    # Private

    def _ping_at(self) -> float:
        quiet = self.keep_alive_seconds or inf
        put_off = VOUCHED_SECONDS if quiet > VOUCHED_SECONDS else 0.0
        return max(self._quiet_since, self._vouched_at + put_off) + quiet

    def _hear(self, payload_bytes: int, datagrams: int, now: float) -> bool:
        """Count what came in; False if the connection has ended, and only our close is worth repeating."""
        self._received[0] += datagrams
        self._received[1] += payload_bytes
        self.heard_at = self._quiet_since = now
        if self.loss is not None:  # it may not have heard our close
            self._farewells_due = min(1, self._farewells_left)
        return self.loss is None

    def _keeping_farewell(self, out: Out) -> Out:
        farewell: list[tuple[bytes, Any]] = []

        def keep(data: bytes | memoryview, segment_bytes: int, recipient: Any) -> None:
            farewell.append((bytes(data), recipient))
            self._farewell = farewell
            out(data, segment_bytes, recipient)

        return keep

    def _handle_engine_timer(self, now: float) -> None:
        # aioquic compares with a time that it lacks before the first datagram and after the end.
        if self._engine.get_timer() is not None:
            self._engine.handle_timer(now)

    def _guard(self, step: Callable[[], _Result], otherwise: _Result) -> _Result:
        """Run a step of the engine; should it fail on what a stranger sent, only this connection ends."""
        if self.is_over:
            return otherwise
        try:
            return step()
        except Exception as error:
            _LOG.warning("connection to %s dropped: the QUIC engine failed: %r", self.remote, error)
            _LOG.debug("the engine's traceback", exc_info=error)
            self._break("the QUIC engine failed")
            return otherwise

    def _break(self, detail: str) -> None:
        self.is_over = True
        self._lose(ConnectionLost(Reason.INTERNAL, detail))

    def _take_events(self) -> None:
        while (event := self._engine.next_event()) is not None:
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(event)
        if self._engine.reset_token != self._reset_token:
            self._host.drop_route(reset_route(self._reset_token))
            self._reset_token = self._engine.reset_token
            self._host.add_route(reset_route(self._reset_token), self)
        if self._engine.ending is not None:
            self._lose(loss_of(self._engine.ending))

    def _on_handshake(self, event: events.HandshakeCompleted) -> None:
        try:
            if event.alpn_protocol != ALPN:
                raise ProtocolError(Reason.VERSION, f"not {ALPN}")
            peer = node_id_of(self._engine.peer_certificate)
            if self._expected not in (None, peer):
                raise ProtocolError(Reason.NOT_ALLOWED, f"another node answered: {peer.hex()}")
        except ProtocolError as error:
            self.close(error.reason, error.detail)
            return
        self._peer = peer
        self._settle()

    def _on_terminated(self, event: events.ConnectionTerminated) -> None:
        self.is_over = True

    def _stream(
        self, event: events.StreamDataReceived | events.StreamReset | events.StopSendingReceived
    ) -> Stream:
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            return stream
        stream = self._add_stream(event.stream_id)
        self._unaccepted.append(stream)
        self._arrival.unpark()
        if len(self._unaccepted) > MAX_UNACCEPTED_STREAMS:
            self.close(Reason.TOO_LARGE, f"more than {MAX_UNACCEPTED_STREAMS} streams at once")
        return stream

    def _add_stream(self, stream_id: int) -> Stream:
        touch = partial(self._host.touch, self)
        stream = Stream(stream_id, self._engine, touch, lambda: self.loss, self._blocked)
        self._streams[stream_id] = stream
        return stream

    def _drop_finished(self) -> None:
        for stream_id in [known for known in self._streams if not self._engine.has_stream(known)]:
            stream = self._streams.pop(stream_id)
            stream.take_progress()
            self._engine.forget(stream_id)

    def _lose(self, loss: ConnectionLost) -> None:
        if self.loss is not None:
            return
        self.loss = loss
        self._unaccepted.clear()
        for stream in self._streams.values():
            stream.take_loss()
        self._arrival.unpark_all()
        self._closed.set()
        self._settle()

    def _settle(self) -> None:
        if not self._settled.is_set():
            self._settled.set()
            self._host.settle(self)

    def _check_alive(self) -> None:
        if self.loss is not None:
            raise ConnectionLost(self.loss.reason, self.loss.detail)
