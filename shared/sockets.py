"""The UDP socket under an endpoint: many datagrams a call where the kernel can, one where it cannot.

Linux takes one buffer and cuts it into datagrams of equal size (UDP_SEGMENT; only the last may be
shorter), and hands over what arrived in a row from one sender as one buffer (UDP_GRO). Either
saves a system call and a walk through the network stack per datagram, which otherwise cost more
than the encryption. Both are tried when the socket is made. A device that refuses a segmented
send (EIO: it cannot do the checksums) makes the socket go on in the plain way for good.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
import sys
from contextlib import suppress
from typing import Any

import trio

from shared.core.errors import ConnectionLost, LocalError, Reason
from shared.core.gate import HEADER_BYTES_V4, HEADER_BYTES_V6
from shared.core.ids import HostPort
from shared.quic_settings import CONNECTION_ID_BYTES

SEND_BUFFER_BYTES = 4 * 1024 * 1024  # as much of both as the system grants
RECEIVE_BUFFER_BYTES = 16 * 1024 * 1024  # what many connections send while we are busy
MODEST_BUFFER_BYTES = 1024 * 1024  # with less, bursts of a single connection are lost
RECEIVE_BYTES = 65536  # the most that UDP_GRO joins
JOINED_BYTES = 60_000  # what we join ourselves
LEAST_JOINED_BYTES = 1000  # shorter datagrams are acknowledgements and the like: rarely in rows

_ID = slice(1, 1 + CONNECTION_ID_BYTES)  # where a short header has the connection's id
_UDP_SEGMENT, _UDP_GRO = 103, 104  # linux/udp.h; not in the socket module
# Datagrams are never fragmented, and the path's size is for us to find (linux/in.h, in6.h).
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_SO_RCVBUFFORCE = 33  # past net.core.rmem_max, for those who may
_ANCILLARY_BYTES = socket.CMSG_SPACE(4) if hasattr(socket, "CMSG_SPACE") else 0
_CANNOT_SEGMENT = {errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP}

_LOG = logging.getLogger(__name__)


class DatagramSocket:
    """A non-blocking UDP socket that sends and receives many datagrams a call where it can."""

    def __init__(self, sock: socket.socket, *, plain: bool = False) -> None:
        """Takes over a bound socket. `plain` does without the kernel's segmentation."""
        self.raw = sock
        self.segments = not plain and _has(sock, _UDP_SEGMENT, 0)
        self.joins = not plain and _has(sock, _UDP_GRO, 1)
        self._buffer = memoryview(bytearray(JOINED_BYTES + RECEIVE_BYTES))
        self._read_ahead: tuple[bytes, int, Any] | None = None
        self._ancillary: dict[int, list[tuple[int, int, bytes]]] = {}

    def send(self, data: bytes | memoryview, segment_bytes: int, recipient: Any) -> int:
        """Send datagrams of `segment_bytes` each (the last may be shorter); the bytes that were taken.

        Fewer than `len(data)`: the system's buffer is full. Raises OSError for what will not leave at all.
        """
        if len(data) <= segment_bytes:
            return self._send_one(data, recipient)
        if self.segments:
            try:
                return self.raw.sendmsg([data], self._cut(segment_bytes), 0, recipient)
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno not in _CANNOT_SEGMENT:
                    raise
            sent = self._send_each(data, segment_bytes, recipient)  # or too large for the device: raises
            self.segments = False
            return sent
        return self._send_each(data, segment_bytes, recipient)

    def receive(self) -> tuple[memoryview, int, Any]:
        """Datagrams in a row from one sender: the bytes, each one's length (the last may be shorter), whose.

        Most often all are for one connection.

        The bytes are valid until the next call. Raises BlockingIOError if there are none. Where the
        kernel hands over a row of datagrams one by one (paced senders, devices that cannot join
        them), they are joined here: what follows costs far more per buffer than per datagram.
        """
        size, segment_bytes, sender = self._read_first()
        while segment_bytes >= LEAST_JOINED_BYTES and size < JOINED_BYTES and size % segment_bytes == 0:
            try:
                more, next_segment_bytes, next_sender = self._read(size)
            except OSError:  # none, or an earlier datagram of ours bounced
                break
            is_row = next_segment_bytes == segment_bytes or 0 < more == next_segment_bytes < segment_bytes
            is_alike = self._buffer[_ID] == self._buffer[size + _ID.start : size + _ID.stop]
            if not is_row or not is_alike or next_sender != sender:
                self._read_ahead = bytes(self._buffer[size : size + more]), next_segment_bytes, next_sender
                break
            size += more
        return self._buffer[:size], segment_bytes, sender

    def _read_first(self) -> tuple[int, int, Any]:
        if self._read_ahead is None:
            return self._read(0)
        data, segment_bytes, sender = self._read_ahead
        self._read_ahead = None
        self._buffer[: len(data)] = data
        return len(data), segment_bytes, sender

    def _read(self, at: int) -> tuple[int, int, Any]:
        room = self._buffer[at : at + RECEIVE_BYTES]
        if not self.joins:
            size, sender = self.raw.recvfrom_into(room)
            return size, size, sender
        size, ancillary, _, sender = self.raw.recvmsg_into([room], _ANCILLARY_BYTES)
        segment_bytes = size
        for level, kind, value in ancillary:
            if level == socket.IPPROTO_UDP and kind == _UDP_GRO:
                segment_bytes = int.from_bytes(value, sys.byteorder)
        return size, segment_bytes, sender

    def _cut(self, segment_bytes: int) -> list[tuple[int, int, bytes]]:
        asked = self._ancillary.get(segment_bytes)
        if asked is None:
            asked = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", segment_bytes))]
            self._ancillary = {segment_bytes: asked}
        return asked

    def _send_one(self, data: bytes | memoryview, recipient: Any) -> int:
        try:
            self.raw.sendto(data, recipient)
        except BlockingIOError:
            return 0
        return len(data)

    def _send_each(self, data: bytes | memoryview, segment_bytes: int, recipient: Any) -> int:
        view, sent = memoryview(data), 0
        while sent < len(view):
            taken = self._send_one(view[sent : sent + segment_bytes], recipient)
            if not taken:
                break
            sent += taken
        return sent


def _has(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(socket.IPPROTO_UDP, option, value)
    except OSError:
        return False
    return _ANCILLARY_BYTES > 0


async def bind(at: HostPort, setting: str, *, share_port: bool = False) -> socket.socket:
    """A non-blocking UDP socket; several have one port if all of them `share_port`.

    Raises LocalError naming the address and `setting`.
    """
    try:
        found = await trio.socket.getaddrinfo(
            at.host, at.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, sockaddr = found[0]
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            prepare(sock)
            if share_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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


def prepare(sock: socket.socket) -> None:
    """Options of every UDP socket of ours, before it is bound."""
    sock.setblocking(False)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
    for option, size in (
        (socket.SO_SNDBUF, SEND_BUFFER_BYTES),
        (socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES),
        (_SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES),
    ):
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, option, size)
    granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # Linux doubles it for its books
    if granted < RECEIVE_BUFFER_BYTES:
        level = logging.WARNING if granted < MODEST_BUFFER_BYTES else logging.INFO
        _LOG.log(
            level,
            "the system grants a receive buffer of %d KiB, so bursts may be lost: "
            "set the sysctl net.core.rmem_max to %d",
            granted // 1024,
            RECEIVE_BUFFER_BYTES,
        )


def split(data: memoryview, segment_bytes: int) -> list[bytes]:
    """The single datagrams of what was received in a row."""
    return [bytes(data[at : at + segment_bytes]) for at in range(0, len(data), max(1, segment_bytes))]


def destination(datagram: bytes) -> bytes:
    """The connection id that a datagram is for; empty if it is too short to have one of ours."""
    if not datagram:
        return b""
    if not is_short(datagram):  # long header: version (4), then the id with its length
        return datagram[6 : 6 + datagram[5]] if len(datagram) > 5 else b""
    return datagram[1 : 1 + CONNECTION_ID_BYTES]


def is_short(datagram: bytes) -> bool:
    """It begins with a packet of an established connection, or seems to."""
    return len(datagram) > 0 and not datagram[0] & 0x80


def header_bytes(sockaddr: Any) -> int:
    """IP and UDP headers of a datagram to or from there; IPv4 on a dual-stack socket is IPv4."""
    return HEADER_BYTES_V4 if "." in sockaddr[0] else HEADER_BYTES_V6


def host_port(sockaddr: Any) -> HostPort:
    """An address in the form people read; IPv4 on a dual-stack socket is IPv4."""
    host = sockaddr[0]
    return HostPort(host.removeprefix("::ffff:") if "." in host else host, sockaddr[1])
