"""Two real endpoints on loopback, joined; a relay to stand between them; and bare aioquic strangers."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted

from shared import clock
from shared.connection import Connection
from shared.core.errors import Refused
from shared.core.ids import HostPort
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity

LOOPBACK = "127.0.0.1"
NEAR, FAR = Identity.generate(), Identity.generate()
_SO_TIMESTAMPNS = 35  # Linux; not in the socket module


@dataclass(frozen=True, slots=True)
class Pair:
    """`near` dialled `far`; each connection belongs to the endpoint of its name."""

    near: Connection
    far: Connection
    near_endpoint: Endpoint
    far_endpoint: Endpoint


@asynccontextmanager
async def joined(**settings: Any) -> AsyncIterator[Pair]:
    """A pair with the same settings on both sides."""
    async with (
        open_endpoint(FAR, LOOPBACK, **settings) as far_endpoint,
        open_endpoint(NEAR, LOOPBACK, **settings) as near_endpoint,
    ):
        near = await near_endpoint.connect(FAR.id, far_endpoint.local)
        yield Pair(near, await far_endpoint.accept(), near_endpoint, far_endpoint)


async def echo(connection: Connection) -> None:
    """Send back every stream's bytes until the connection ends."""
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(_echo_stream, await connection.accept_stream())


async def _echo_stream(stream: Any) -> None:
    with stream, suppress(Refused):  # the asker may give up
        while received := await stream.receive_some():
            await stream.send_all(received)
        stream.send_eof()
        await stream.wait_acknowledged()


async def read_all(stream: Any) -> bytes:
    """All bytes up to the peer's end."""
    received = bytearray()
    while some := await stream.receive_some():
        received += some
    return bytes(received)


async def ask(connection: Connection, question: bytes) -> bytes:
    """One stream's question, and the whole answer."""
    with connection.open_stream() as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_say, stream, question)
            answer = await read_all(stream)
    return answer


async def _say(stream: Any, question: bytes) -> None:
    await stream.send_all(question)
    stream.send_eof()


class Relay:
    """Stands between one dialler and `target`: can cut, mangle, and time what passes."""

    def __init__(self, target: HostPort) -> None:
        self._target = (target.host, target.port)
        self._dialler: Any = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((LOOPBACK, 0))
        self.at = HostPort(*self._socket.getsockname())
        self.is_cut = False
        self.mangle: Callable[[bytes], list[bytes]] = lambda datagram: [datagram]
        self.from_target: list[tuple[float, int]] = []  # when the kernel took it, payload bytes

    async def run(self) -> None:
        """Task: pass datagrams on until cancelled."""
        with self._socket:
            while True:
                await trio.lowlevel.wait_readable(self._socket)
                datagram, ancillary, _, sender = self._socket.recvmsg(65536, 64)
                if sender == self._target:
                    seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
                    self.from_target.append((seconds + nanoseconds / 1e9, len(datagram)))
                else:
                    self._dialler = sender
                recipient = self._dialler if sender == self._target else self._target
                for passed in [] if self.is_cut else self.mangle(datagram):
                    self._socket.sendto(passed, recipient)


@dataclass(slots=True)
class Stranger:
    """A bare aioquic client and what it saw."""

    quic: QuicConnection
    has_shaken_hands: bool = False
    ended: ConnectionTerminated | None = None


async def stranger(
    target: HostPort, configuration: QuicConfiguration, act: Callable[[QuicConnection], None] | None = None
) -> Stranger:
    """Let a bare aioquic client shake hands with `target`, then `act`, and go on until it is closed."""
    seen = Stranger(QuicConnection(configuration=configuration))
    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, trio.fail_after(10):
        await sock.bind((LOOPBACK, 0))
        seen.quic.connect((target.host, target.port), clock.now())
        while seen.ended is None:
            for datagram, recipient in seen.quic.datagrams_to_send(clock.now()):
                await sock.sendto(datagram, recipient)
            due = seen.quic.get_timer() or 0.0
            with trio.move_on_after(max(0.0, due - clock.now())) as waiting:
                received, sender = await sock.recvfrom(65536)
                seen.quic.receive_datagram(received, sender, clock.now())
            if waiting.cancelled_caught:
                seen.quic.handle_timer(clock.now())
            while (event := seen.quic.next_event()) is not None:
                if isinstance(event, HandshakeCompleted):
                    seen.has_shaken_hands = True
                    if act is not None:
                        act(seen.quic)
                elif isinstance(event, ConnectionTerminated):
                    seen.ended = event
    return seen
