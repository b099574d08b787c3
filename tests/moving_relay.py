"""A way between a client and a server on which the client's address changes as behind a router."""

from __future__ import annotations

import socket
from typing import Any

import trio

from shared.core.ids import HostPort


class MovingRelay:
    """Passes datagrams between a client and `target`, which sees a new port after each `move`."""

    def __init__(self, target: HostPort) -> None:
        self._target = (target.host, target.port)
        self._front, self._back = _bound(), _bound()
        self._client: Any = None
        self._moved = trio.CancelScope()
        self.at = HostPort(*self._front.getsockname())

    def move(self) -> None:
        """From now on the target sees another port."""
        self._moved.cancel()

    async def run(self) -> None:
        """Task: until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._outward)
            while True:
                with self._back, trio.CancelScope() as self._moved:
                    while True:
                        await trio.lowlevel.wait_readable(self._back)
                        self._front.sendto(self._back.recv(65536), self._client)
                self._back = _bound()

    async def _outward(self) -> None:
        with self._front:
            while True:
                await trio.lowlevel.wait_readable(self._front)
                datagram, self._client = self._front.recvfrom(65536)
                self._back.sendto(datagram, self._target)


def _bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock
