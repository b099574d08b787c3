"""Where an endpoint's datagrams leave: counted, charged to the gate, kept back when the system is full."""

from __future__ import annotations

import errno
from collections import deque
from contextlib import suppress
from typing import Any

from shared import clock
from shared.connection import Connection
from shared.core.gate import Gate, Pass
from shared.sockets import DatagramSocket, header_bytes


class Outlet:
    """Sends for all connections of an endpoint. Bytes count IP and UDP headers."""

    def __init__(self, sock: DatagramSocket, gate: Gate[Connection]) -> None:
        self.datagrams = 0  # that left
        self.bytes = 0
        self.header_bytes = 0  # of these
        self.refused = 0  # datagrams that the system would not send at all,
        self.was_too_large = False  # and why, the last time: larger than the network device takes
        self._socket = sock
        self._gate = gate
        self._backlog: deque[tuple[bytes, int, Any]] = deque()

    @property
    def is_full(self) -> bool:
        """The system has no room: build nothing until `flush` has emptied it."""
        return bool(self._backlog)

    def send(self, data: bytes | memoryview, segment_bytes: int, recipient: Any, how: Pass) -> bool:
        """Datagrams of `segment_bytes` (the last may be shorter) leave, now or as soon as there is room.

        False if they never will: no route, a network that is down. To QUIC they are lost.
        """
        datagrams = -(-len(data) // segment_bytes)
        try:
            sent = 0 if self._backlog else self._socket.send(data, segment_bytes, recipient)
        except OSError as error:
            self.refused += datagrams
            self.was_too_large = error.errno == errno.EMSGSIZE
            return False
        if sent < len(data):
            self._backlog.append((bytes(data[sent:]), segment_bytes, recipient))
        headers = datagrams * header_bytes(recipient)
        size = len(data) + headers
        self.datagrams += datagrams
        self.header_bytes += headers
        self.bytes += size
        # Read anew: however long the system kept us waiting, no byte counts as gone before it was.
        self._gate.charge(size, how, clock.now())
        return True

    def flush(self) -> None:
        """Send what was kept back, as far as there is room for it now."""
        while self._backlog:
            data, segment_bytes, recipient = self._backlog.popleft()
            with suppress(OSError):  # lost
                sent = self._socket.send(data, segment_bytes, recipient)
                if sent < len(data):
                    self._backlog.appendleft((data[sent:], segment_bytes, recipient))
                    return
