"""Small programs inside hosts that make and measure traffic: `python -m tests.lab.probe VERB ...`.

echo ADDRESS                                 UDP; says its port, answers until its input ends
ask ADDRESS PORT COUNT INTERVAL PAYLOAD      says `ready`, then round-trip times as JSON
sink ADDRESS                                 TCP; says its port, then what one sender sent, as JSON
source ADDRESS PORT SECONDS RATE CONTROL     TCP; says `ready`, sends until then or its input's end
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections.abc import Callable

from tests.lab.punctual import be_punctual

LINGER_SECONDS = 1.0  # how long a late answer is waited for
CONNECT_SECONDS = 10.0
WRITE_BYTES = 1 << 16
UNSENT_BYTES = 1 << 17  # kept in the socket beyond the window, so that a flow ends soon after its time
SO_MAX_PACING_RATE = 47
_STAMP = struct.Struct("=Id")


def family(address: str) -> socket.AddressFamily:
    """IPv6 if there is a colon."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def echo(address: str) -> None:
    """Answers every datagram with itself."""
    with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        print(sock.getsockname()[1], flush=True)
        while sys.stdin not in select.select([sock, sys.stdin], [], [])[0]:
            sock.sendto(*sock.recvfrom(65536))


def ask(address: str, port: str, count: str, interval: str, payload: str) -> None:
    """Sends datagrams at a steady pace and reports each one's round-trip time, or null."""
    rtts: list[float | None] = [None] * int(count)
    filling = bytes(max(0, int(payload) - _STAMP.size))
    with socket.socket(family(address), socket.SOCK_DGRAM) as sock:
        sock.connect((address, int(port)))
        print("ready", flush=True)
        start_at, sent = time.monotonic(), 0
        end_at = start_at + float(interval) * (len(rtts) - 1) + LINGER_SECONDS
        while None in rtts and (now := time.monotonic()) < end_at:
            next_at = start_at + sent * float(interval) if sent < len(rtts) else end_at
            if sent < len(rtts) and now >= next_at:
                sock.send(_STAMP.pack(sent, time.monotonic()) + filling)
                sent += 1
            elif select.select([sock], [], [], next_at - now)[0]:
                number, sent_at = _STAMP.unpack_from(sock.recv(65536))
                rtts[number] = time.monotonic() - sent_at
    print(json.dumps(rtts))


def sink(address: str) -> None:
    """Counts what one connection brings, from its first bytes on."""
    with socket.create_server((address, 0), family=family(address)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
    with connection:
        received = len(connection.recv(1 << 20))
        first_at = last_at = time.monotonic()
        while part := len(connection.recv(1 << 20)):
            received, last_at = received + part, time.monotonic()
    print(json.dumps({"payload_bytes": received, "seconds": last_at - first_at}))


def source(address: str, port: str, seconds: str, rate: str, control: str) -> None:
    """Sends as much as the congestion control allows, or `rate` bytes per second if that is not 0."""
    with socket.socket(family(address), socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        if float(rate):
            sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, round(float(rate)))
        sock.settimeout(CONNECT_SECONDS)
        sock.connect((address, int(port)))
        sock.setblocking(False)
        print("ready", flush=True)
        part, end_at = bytes(WRITE_BYTES), time.monotonic() + float(seconds)
        while (left_seconds := end_at - time.monotonic()) > 0:
            asked, writable, _ = select.select([sys.stdin], [sock], [], left_seconds)
            if asked:
                break
            if writable:
                sock.send(part)


if __name__ == "__main__":
    be_punctual()
    verbs: dict[str, Callable[..., None]] = {"echo": echo, "ask": ask, "sink": sink, "source": source}
    verbs[sys.argv[1]](*sys.argv[2:])
