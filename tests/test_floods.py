"""Floods of forged datagrams, from one address and from many, counted by those who sent them."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.lowlevel
from aioquic.quic.connection import QuicConnection

from shared.core.ids import HostPort
from shared.endpoint import Endpoint, open_endpoint
from shared.quic_settings import configure
from tests.quic_pair import FAR, LOOPBACK, NEAR, ask, echo
from tests.test_endpoint_hostile import first_datagram, settled

FORGED = 1500  # datagrams of each flood
RETRY_ABOVE = 16  # unfinished handshakes


class Forgers:
    """Sockets that send what they like, and count what comes back."""

    def __init__(self, addresses: list[str], target: HostPort) -> None:
        self._sockets = [self._socket(address) for address in addresses]
        self._target = (target.host, target.port)
        self.sent_bytes = self.got_bytes = self.longer = 0
        self._longest_sent = 0

    def _socket(self, address: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setblocking(False)
        sock.bind((address, 0))
        return sock

    async def flood(self, count: int, make: Callable[[], bytes]) -> None:
        """Send so many, over all sockets in turn, and hear what is answered."""
        for number in range(count):
            datagram = make()
            self._longest_sent = max(self._longest_sent, len(datagram))
            self._sockets[number % len(self._sockets)].sendto(datagram, self._target)
            self.sent_bytes += len(datagram)
            if number % 20 == 0:
                await trio.lowlevel.checkpoint()
                self.hear()

    def hear(self) -> None:
        """Count what has come back."""
        for sock in self._sockets:
            while True:
                try:
                    size = len(sock.recv(65536))
                except BlockingIOError:
                    break
                self.got_bytes += size
                self.longer += size > self._longest_sent

    def close(self) -> None:
        """Done."""
        for sock in self._sockets:
            sock.close()


@contextmanager
def forgers(endpoint: Endpoint, addresses: int) -> Iterator[Forgers]:
    """From so many addresses of 127.0.0.0/8."""
    some = Forgers([f"127.0.{n // 200 + 1}.{n % 200 + 1}" for n in range(addresses)], endpoint.local)
    try:
        yield some
    finally:
        some.close()


def _initials() -> Callable[[], bytes]:
    """Well-formed first datagrams of clients that do not exist."""
    made = [first_datagram() for _ in range(80)]
    dice = random.Random(7)
    return lambda: dice.choice(made)


def _initials_with_tokens() -> Callable[[], bytes]:
    client = QuicConnection(configuration=configure(NEAR, True, 5.0))
    client._peer_token = os.urandom(120)
    client.connect(("far", 1), 0.0)
    datagram = client.datagrams_to_send(0.0)[0][0]
    dice = random.Random(8)

    def make() -> bytes:
        at = 30 + dice.randrange(100)  # inside the token
        return datagram[:at] + bytes([dice.randrange(256)]) + datagram[at + 1 :]

    return make


def _garbage() -> Callable[[], bytes]:
    dice = random.Random(9)
    return lambda: dice.randbytes(dice.choice([1, 20, 21, 22, 43, 400, 1200, 1400]))


def _short_headers() -> Callable[[], bytes]:
    dice = random.Random(10)
    return lambda: b"\x41" + dice.randbytes(dice.choice([8, 15, 20, 21, 40, 100, 1300]))


def _unknown_versions() -> Callable[[], bytes]:
    dice = random.Random(11)
    return lambda: b"\xc0\x0a\x1a\x2a\x3a\x08" + dice.randbytes(8) + b"\x08" + dice.randbytes(1200)


FLOODS = [_initials, _initials_with_tokens, _garbage, _short_headers, _unknown_versions]


@pytest.mark.parametrize("addresses", [1, 100])
@pytest.mark.parametrize("kind", FLOODS, ids=lambda kind: kind.__name__.strip("_"))
async def test_floods(kind: Callable[[], Callable[[], bytes]], addresses: int) -> None:
    """A flood leaves no state beyond the bound, no answer is longer than its datagrams, clients get in."""
    async with (
        open_endpoint(FAR, LOOPBACK, retry_above=RETRY_ABOVE) as far,
        open_endpoint(NEAR, LOOPBACK) as near,
        trio.open_nursery() as nursery,
    ):

        async def serve() -> None:
            await echo(await far.accept())

        nursery.start_soon(serve)
        with forgers(far, addresses) as some:
            nursery.start_soon(some.flood, FORGED, kind())
            with trio.fail_after(10):
                connection = await near.connect(FAR.id, far.local)  # through a Retry, if need be
                assert await ask(connection, b"still here") == b"still here"
            await settled(far, FORGED)
            some.hear()
            assert far.statistics().connections == 1
            assert far.statistics().half_open <= RETRY_ABOVE
            assert some.got_bytes <= some.sent_bytes  # QUIC would allow three times as much
            assert some.longer == 0
            assert len(far._routes) <= 2 * far.statistics().half_open + 8
        nursery.cancel_scope.cancel()
