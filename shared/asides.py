"""Datagrams that are not QUIC, through an endpoint's socket: sealed asks and their answers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from typing import Any

from shared import clock
from shared.connection import Connection
from shared.core.gate import Gate, Pass
from shared.core.ids import HostPort
from shared.outlet import Outlet

_QUIC_BITS = 0xC0  # one of them is set in the first byte of every QUIC packet (RFC 9443)


class Asides:
    """Counted, and charged to the gate, as all that leaves."""

    def __init__(
        self, sock: socket.socket, gate: Gate[Connection], outlet: Outlet, *, is_alone: bool
    ) -> None:
        self.is_alone = is_alone  # no other process has this port, and could get what is for us
        self.listeners: list[Callable[[bytes], None]] = []
        self._is_v6 = sock.family == socket.AF_INET6
        self._gate = gate
        self._outlet = outlet

    def take(self, datagram: bytes) -> bool:
        """Whether it is none of QUIC's, and somebody listens."""
        if not self.listeners or not datagram or datagram[0] & _QUIC_BITS:
            return False
        for listener in list(self.listeners):
            listener(datagram)
        return True

    def send(self, datagram: bytes, at: HostPort) -> bool:
        """Sends it now; False if there is no room for it at the moment, or no way to that IP address."""
        if self._outlet.is_full or not self._gate.admits(clock.now()):
            return False
        recipient = self._sockaddr(at)
        return recipient is not None and self._outlet.send(datagram, len(datagram), recipient, Pass.AT_ONCE)

    def _sockaddr(self, at: HostPort) -> Any:
        try:
            is_four = isinstance(ip_address(at.host), IPv4Address)
        except ValueError:
            return None  # a name: looking it up would keep everybody waiting
        if not self._is_v6:
            return (at.host, at.port) if is_four else None
        return (f"::ffff:{at.host}" if is_four else at.host, at.port)
