"""The UDP socket under an endpoint: binding it, naming addresses, reading a datagram's first bytes."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import trio

from shared.core.errors import ConnectionLost, LocalError, Reason
from shared.core.gate import HEADER_BYTES_V4, HEADER_BYTES_V6
from shared.core.ids import HostPort
from shared.quic_settings import CONNECTION_ID_BYTES

SOCKET_BUFFER_BYTES = 4 * 1024 * 1024  # as much of it as the system grants


async def bind(at: HostPort, setting: str) -> socket.socket:
    """A non-blocking UDP socket. Raises LocalError naming the address and `setting`."""
    try:
        found = await trio.socket.getaddrinfo(
            at.host, at.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, sockaddr = found[0]
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            _prepare(sock)
            sock.bind(sockaddr)
        except BaseException:
            sock.close()
            raise
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise LocalError(
            f"cannot listen on {at} (UDP): {cause}; set {setting} to an address of "
            "this machine and a free port"
        ) from error
    return sock


async def resolve(at: HostPort, sock: socket.socket) -> Any:
    """A socket address, in the form in which `sock` reports its senders. Raises ConnectionLost."""
    flags = socket.AI_V4MAPPED if sock.family == socket.AF_INET6 else 0
    try:
        found = await trio.socket.getaddrinfo(
            at.host, at.port, family=sock.family, type=socket.SOCK_DGRAM, flags=flags
        )
    except (OSError, UnicodeError) as error:
        raise ConnectionLost(Reason.TIMEOUT, f"{at} cannot be resolved: {error}") from error
    return found[0][4]


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)


def destination(datagram: bytes) -> bytes:
    """The connection id that a datagram is for; empty if it is too short to have one of ours."""
    if not datagram:
        return b""
    if datagram[0] & 0x80:  # long header: version (4), then the id with its length
        return datagram[6 : 6 + datagram[5]] if len(datagram) > 5 else b""
    return datagram[1 : 1 + CONNECTION_ID_BYTES]


def header_bytes(sockaddr: Any) -> int:
    """IP and UDP headers of a datagram to or from there; IPv4 on a dual-stack socket is IPv4."""
    return HEADER_BYTES_V4 if "." in sockaddr[0] else HEADER_BYTES_V6


def host_port(sockaddr: Any) -> HostPort:
    """An address in the form people read; IPv4 on a dual-stack socket is IPv4."""
    host = sockaddr[0]
    return HostPort(host.removeprefix("::ffff:") if "." in host else host, sockaddr[1])
