"""One UDP socket that listens and dials, its QUIC connections, and the task that drives them.

It sleeps until there is a datagram, a timer, a turn at the gate or something that a task wants sent. Then
it makes a *pass*: it drains the socket, fires timers, and lets each touched connection send once.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from math import inf
from typing import Any

import trio

from shared import clock
from shared.alarm import alarm
from shared.asides import Asides
from shared.connection import Connection
from shared.core.errors import ConnectionLost, Reason
from shared.core.gate import Gate, Pass
from shared.core.ids import HostPort, NodeId
from shared.core.lull import Lull
from shared.core.passes import Passes
from shared.identity import Identity
from shared.outlet import Outlet
from shared.quic import QuicEngine, route_of_reset
from shared.quic_settings import quieten_engine
from shared.reception import Reception, Welcome
from shared.sockets import DatagramSocket, bind, destination, header_bytes, host_port, resolve, split
from shared.statistics import EndpointStatistics
from shared.steering import ALONE, Berth
from shared.timers import Timers

READS_PER_WAKE, BYTES_PER_WAKE = 64, 1 << 20  # then other tasks get their turn
MAX_UNACCEPTED = 256  # established connections that nobody accepted yet
HANDSHAKE_SECONDS = 10.0
HANDSHAKE_DATAGRAMS = 2  # a flight may make
LONGEST_ID_END = 26  # a long header's first bytes, to the end of the longest destination id
MIN_TIMER_SECONDS = 0.0005  # no peer can make a timer spin


class Endpoint:
    """Made by `open_endpoint`."""

    def __init__(
        self,
        identity: Identity,
        sock: DatagramSocket,
        berth: Berth,
        *,
        gate: Gate[Connection] | None,
        reception: Reception,
        idle_timeout_seconds: float,
    ) -> None:
        self.identity = identity
        self.pass_on: Callable[[bytes, Any], None] | None = None  # takes strangers that were not invited
        self.berth = berth
        self.local = host_port(sock.raw.getsockname())
        self._socket = sock
        self.gate: Gate[Connection] = Gate() if gate is None else gate  # all datagrams are charged to it
        self._reception = reception
        self._engine = partial(
            QuicEngine, identity, idle_timeout_seconds=idle_timeout_seconds, mark=berth.mark)  # fmt: skip
        self._routes: dict[bytes, Connection] = {}
        self._connections: dict[Connection, set[bytes]] = {}  # each with its routes
        self._half_open: set[Connection] = set()
        self._unaccepted: deque[Connection] = deque()
        self._arrival = trio.lowlevel.ParkingLot()
        self._touched: dict[Connection, None] = {}
        self._timers: Timers[Connection] = Timers()
        self._passes: Passes[Connection] = Passes()
        self._alarm, self.lull, self._is_closed = alarm(sock.raw), Lull(), False
        self._outlet = Outlet(sock, self.gate)
        self.asides = Asides(sock.raw, self.gate, self._outlet, is_alone=berth.berths == 1)
        self._received, self._unwanted, self._astray = [0, 0], 0, 0

    # For tasks

    def set_rate(self, rate: float | None, burst_bytes: float | None = None) -> None:
        """Let at most `rate` bytes/s leave, headers included; None for no bound, 0 to hold all data."""
        now = clock.now()
        self.gate.set_rate(rate, now, burst_bytes)
        self._alarm.hurry(-inf)

    def established(self) -> Iterator[Connection]:
        """Connections whose handshakes are over."""
        return (connection for connection in list(self._connections) if connection.is_established)

    async def connect(
        self,
        node: NodeId,
        at: HostPort,
        *,
        timeout: float = HANDSHAKE_SECONDS,  # noqa: ASYNC109  # also bounds what the handshake leaves behind
        keep_alive_seconds: float | None = None,
    ) -> Connection:
        """A connection to `node` at an address. Raises ConnectionLost if it is not there, or another.

        With `keep_alive_seconds` it is pinged after so long a silence, so that it does not time out.
        """
        with trio.move_on_after(timeout):
            sockaddr = await resolve(at, self._socket.raw)
            connection = self._dial(node, sockaddr, timeout, keep_alive_seconds)
            try:
                await connection.wait_established()
                return connection
            finally:
                if not connection.is_established:
                    connection.close(Reason.CANCELLED, "no longer wanted")
        raise ConnectionLost(Reason.TIMEOUT, f"{at} did not answer in {timeout:g} s")

    async def accept(self) -> Connection:
        """The next connection that somebody made to us; its peer's id is proved."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            while self._unaccepted:
                connection = self._unaccepted.popleft()
                if connection.is_established:
                    return connection
            if self._is_closed:
                raise ConnectionLost(Reason.SHUTDOWN, "the endpoint is closed")
            await self._arrival.park()

    def take(self, datagram: bytes, sender: Any) -> None:
        """A datagram that another process at our port received and passed on."""
        self._take(datagram, sender, clock.now(), self._touched)
        self._alarm.hurry(-inf)

    def statistics(self) -> EndpointStatistics:
        """A frozen view for screens and metrics."""
        return EndpointStatistics(
            connections=sum(connection.is_established for connection in self._connections),
            half_open=len(self._half_open),
            bytes_sent=self._outlet.bytes,
            header_bytes_sent=self._outlet.header_bytes,
            bytes_received=self._received[1],
            datagrams_sent=self._outlet.datagrams,
            datagrams_received=self._received[0],
            unsent_datagrams=self._outlet.refused,
            unwanted_datagrams=self._unwanted,
            astray_datagrams=self._astray,
        )

    # For connections (`shared.connection.Host`)

    def touch(self, connection: Connection) -> None:
        """Something may be sent: build it soon, together with what else is written until then."""
        if not self._is_closed:
            self._touched[connection] = None
            self._alarm.hurry(-inf)

    def add_route(self, connection_id: bytes, connection: Connection) -> None:
        """Datagrams to this id are for the connection."""
        if connection in self._connections:
            self._routes[connection_id] = connection
            self._connections[connection].add(connection_id)

    def drop_route(self, connection_id: bytes) -> None:
        """No longer."""
        connection = self._routes.pop(connection_id, None)
        if connection is not None:
            self._connections[connection].discard(connection_id)

    def settle(self, connection: Connection) -> None:
        """A handshake is over, well or not."""
        self._half_open.discard(connection)
        if connection.is_client or not connection.is_established:
            return
        if len(self._unaccepted) >= MAX_UNACCEPTED:
            connection.close(Reason.BUSY, "too many new connections at once")
            return
        self._unaccepted.append(connection)
        self._arrival.unpark()

    # The task, and the end

    async def run_forever(self) -> None:
        """Task: from the socket to the connections, and back."""
        with closing(self._alarm):
            while True:
                await self._wait()
                self._pass(clock.now())

    async def _wait(self) -> None:
        now, is_full = clock.now(), self._outlet.is_full
        if self._touched and not is_full:
            await trio.lowlevel.checkpoint()  # other tasks have their turn
            return
        turn_at = inf if is_full else self.gate.ready_at(now)
        until, lull_until = min(self._timers.next_at(), turn_at), self.lull.until(turn_at, now)
        reads = lull_until <= now
        await self._alarm.wait(until if reads else min(until, lull_until), reads=reads, writes=is_full)

    def _pass(self, now: float) -> None:
        self._outlet.flush()
        self._drain(now, self._touched)
        while (connection := self._timers.pop_due(now)) is not None:
            if connection.handle_timer(now):
                self._touched[connection] = None
            else:
                self._arm(connection, now)
        self._give_turns(now)  # first: whoever has a turn answers along with it
        for connection in list(self._touched):
            self._transmit(connection, now)
        self._give_turns(now)

    def shut_down(self) -> None:
        """Tell every peer, and stop."""
        for connection in list(self._connections):
            connection.close(Reason.SHUTDOWN, "the node is stopping")
            self._transmit(connection, clock.now())
        self._is_closed = True
        self._arrival.unpark_all()

    # Private

    def _drain(self, now: float, touched: dict[Connection, None]) -> None:
        taken = 0
        for _ in range(READS_PER_WAKE):
            try:
                data, segment_bytes, sender = self._socket.receive()
            except BlockingIOError:
                break
            except OSError:  # an earlier datagram of ours bounced; nothing was received
                continue
            self._take_all(data, segment_bytes, sender, now, touched)
            if (taken := taken + len(data)) >= BYTES_PER_WAKE:
                break
        if taken:
            self.lull.took(taken, now)

    def _take_all(
        self, data: memoryview, segment_bytes: int, sender: Any, now: float, touched: dict[Connection, None]
    ) -> None:
        """Datagrams that came in one read; most often all for one connection."""
        datagrams = -(-len(data) // segment_bytes) if data else 1
        self._received[0] += datagrams
        self._received[1] += len(data) + datagrams * header_bytes(sender)
        connection = self._routes.get(destination(bytes(data[:LONGEST_ID_END])))
        if connection is None:
            left = split(data, segment_bytes)
        else:
            left = connection.receive_batch(data, segment_bytes, sender, now)
            touched[connection] = None
        for datagram in left:
            self._take(datagram, sender, now, touched)

    def _take(self, datagram: bytes, sender: Any, now: float, touched: dict[Connection, None]) -> None:
        connection = self._routes.get(destination(datagram)) or self._meet(datagram, sender, now)
        if connection is not None:
            connection.receive(datagram, sender, now)
            touched[connection] = None

    def _meet(self, datagram: bytes, sender: Any, now: float) -> Connection | None:
        """What a datagram for nobody earns, unless it is the reset of one of ours, or no QUIC at all."""
        if self.asides.take(datagram):
            return None
        if (forgotten := self._routes.get(route_of_reset(datagram))) is not None:
            forgotten.take_reset()
            self.touch(forgotten)
            return None
        verdict = self._reception.judge(
            datagram, sender, now, connections=len(self._connections), half_open=len(self._half_open)
        )
        is_short = datagram[:1] < b"\x80"
        if isinstance(verdict, Welcome) and (self.pass_on is None or verdict.retry_id):
            return self._welcome(verdict, now)
        if self.pass_on is not None and verdict is not None and not is_short:
            self.pass_on(datagram, sender)
            return None
        is_astray = is_short and not self.berth.owns(destination(datagram))
        self._unwanted, self._astray = self._unwanted + 1, self._astray + is_astray  # another may know it
        if isinstance(verdict, bytes) and not is_astray and self.gate.admits(now):  # others may know those
            self._outlet.send(verdict, len(verdict), sender, Pass.AT_ONCE)
        return None

    def _welcome(self, welcome: Welcome, now: float) -> Connection:
        engine = self._engine(
            is_client=False, original_destination_connection_id=welcome.original_id,
            retry_source_connection_id=welcome.retry_id,
        )  # fmt: skip
        connection = Connection(engine, self, expected=None, now=now, handshake_seconds=HANDSHAKE_SECONDS)
        self._add(connection, welcome.retry_id or welcome.original_id, engine.host_cid)
        self._half_open.add(connection)
        return connection

    def _dial(
        self, node: NodeId, sockaddr: Any, handshake_seconds: float, keep_alive_seconds: float | None
    ) -> Connection:
        now = clock.now()
        engine = self._engine(is_client=True)
        connection = Connection(
            engine, self, expected=node, now=now,
            handshake_seconds=handshake_seconds, keep_alive_seconds=keep_alive_seconds,
        )  # fmt: skip
        self._add(connection, engine.host_cid)
        connection.dial(sockaddr, now)
        self.touch(connection)
        return connection

    def _add(self, connection: Connection, *connection_ids: bytes) -> None:
        self._connections[connection] = set()
        for connection_id in connection_ids:
            self.add_route(connection_id, connection)

    def _remove(self, connection: Connection) -> None:
        for connection_id in self._connections.pop(connection, set()):
            self._routes.pop(connection_id, None)
        for owners in (self._half_open, self._timers, self._passes):
            owners.discard(connection)
        self._touched.pop(connection, None)
        self.gate.withdraw(connection)
        connection.take_apart()

    def _transmit(self, connection: Connection, now: float, turn: int | None = None) -> None:
        if self._outlet.is_full and not connection.is_over:
            self._touched[connection] = None  # a later pass comes back to it
            return
        self._touched.pop(connection, None)
        needs = 1 if connection.is_established else HANDSHAKE_DATAGRAMS
        if turn is None and not connection.is_over and not self.gate.admits(now, needs):
            self.gate.ask_at_once(connection, needs)
            self._timers.set(connection, inf)  # set anew after its turn
            return
        how = Pass.TURN if turn else Pass.AT_ONCE
        may_pass = self.gate.is_open and now >= self._passes.next_at(connection, now)

        def out(data: bytes | memoryview, segment_bytes: int, recipient: Any) -> None:
            if self._outlet.send(data, segment_bytes, recipient, how):
                connection.count_sent(-(-len(data) // segment_bytes), len(data))
            elif self._outlet.was_too_large:
                connection.note_refused(segment_bytes)
            if may_pass and len(data) > segment_bytes:
                self._passes.passed(connection, now)

        connection.transmit(now, out, gated=not may_pass, turn=turn or 0)
        if connection.is_over:
            self._remove(connection)
            return
        if connection.wants_turn and not self.gate.is_open:
            self.gate.ask(connection, brief=connection.is_brief)
        if connection.has_more:
            self.touch(connection)
        self._arm(connection, now)

    def _give_turns(self, now: float) -> None:
        while not self._outlet.is_full and (turn := self.gate.next_turn(now)) is not None:
            self._transmit(turn.asker, now, turn.datagrams)

    def _arm(self, connection: Connection, now: float) -> None:
        may_pass_at = self._passes.next_at(connection, now)
        wake_at = max(connection.timer_at(may_pass_at), now + MIN_TIMER_SECONDS)
        if connection.wants_turn and self.gate.is_open:
            wake_at = min(wake_at, max(now, may_pass_at))
        self._timers.set(connection, wake_at)


@asynccontextmanager
async def open_endpoint(
    identity: Identity,
    host: str = "0.0.0.0",
    port: int = 0,
    *,
    gate: Gate[Connection] | None = None,
    setting: str = "listen",
    max_connections: int = 4096,
    max_half_open: int = 1024,
    retry_above: int = 64,
    idle_timeout_seconds: float = 30.0,
    sock: socket.socket | None = None,
    berth: Berth = ALONE,
) -> AsyncIterator[Endpoint]:
    """An endpoint on `host` (an IP address or name; `::` takes IPv4 too) and `port` (0: any free one).

    Leaving closes every connection with SHUTDOWN. Raises LocalError naming the address and
    `setting` if it cannot be bound. A bound `sock` is taken over instead, at this `berth` of its port.
    """
    quieten_engine()
    limits = {"max_connections": max_connections, "max_half_open": max_half_open, "retry_above": retry_above}
    reception = Reception(**limits, mark=berth.mark, reset_key=identity.reset_key)
    failure: Exception | None = None
    with sock or await bind(HostPort(host, port), setting) as raw:
        idle, udp = idle_timeout_seconds, DatagramSocket(raw)
        endpoint = Endpoint(identity, udp, berth, gate=gate, reception=reception, idle_timeout_seconds=idle)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.run_forever)
            try:
                yield endpoint
            except Exception as error:  # the nursery would wrap it in a group
                failure = error
            finally:
                endpoint.shut_down()
                nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
