"""A UDP relay between receivers and the sender, for paths that loopback is not.

A kernel may lack netem, and a relay needs no rights. It uses segmentation offload in both
directions where the kernel has it, so as not to be the bottleneck itself; loss and queue still
judge each datagram alone. It answers a line on its standard input with its counts.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.data.orders import Order, Ready, play, say
from benchmarks.data.path import Path

SOL_UDP = 17
UDP_SEGMENT = 103  # Linux include/uapi/linux/udp.h, since 4.18
UDP_GRO = 104  # since 5.0
MAX_SEGMENTS = 44  # of one sendmsg; with 1452 bytes each just under the limit of 64 KiB
SOCKET_BUFFER_BYTES = 4 << 20
READS_PER_WAKE = 32
TICK_SECONDS = 0.0005  # waking for each datagram would cost a core
MAX_CLIENTS = 256

Way = tuple[socket.socket, Any]  # from which socket to which address


@dataclass(frozen=True, slots=True)
class Drops:
    """What became of the datagrams from the sender."""

    passed: int
    lost: int
    dropped: int


class Relay:
    """Receivers talk to `port`; each has a socket of its own towards the sender. All share one path."""

    def __init__(self, order: Order) -> None:
        self._target = (order.host, order.port)
        self._front = _udp_socket()
        self.port: int = self._front.getsockname()[1]
        self._backs: dict[Any, socket.socket] = {}  # by receiver
        self._receivers: dict[socket.socket, Any] = {}
        self._up, self._down = (
            Path[Way](
                rate=order.path_rate,
                delay_seconds=order.rtt_seconds / 2,
                loss=order.loss,
                queue_bytes=order.queue_bytes,
                seed=order.seed + way,
            )
            for way in (0, 1)
        )

    def run(self) -> None:
        """Move datagrams until the standard input ends."""
        inbox = sys.stdin.fileno()
        while True:
            readable, _, _ = select.select([self._front, *self._receivers, inbox], [], [], self._wait())
            for source in readable:
                if isinstance(source, socket.socket):
                    self._drain(source)
                elif os.read(inbox, 256):
                    say(Drops(self._down.passed, self._down.lost, self._down.dropped))
                else:
                    return
            for path in (self._up, self._down):
                self._deliver(path)

    def _wait(self) -> float | None:
        due = [at for path in (self._up, self._down) if (at := path.next_at()) is not None]
        return max(TICK_SECONDS, min(due) - time.monotonic()) if due else None

    def _drain(self, source: socket.socket) -> None:
        for _ in range(READS_PER_WAKE):
            try:
                payload, ancillary, _, sender = source.recvmsg(65536, 64)
            except (BlockingIOError, ConnectionError):
                return
            if not payload:
                continue
            now = time.monotonic()
            size = _segment_bytes(ancillary) or len(payload)
            if source is self._front:
                back = self._back(sender)
                if back is not None:
                    self._up.take((back, self._target), payload, size, now)
            else:
                self._down.take((self._front, self._receivers[source]), payload, size, now)

    def _back(self, receiver: Any) -> socket.socket | None:
        if receiver not in self._backs and len(self._backs) < MAX_CLIENTS:
            back = _udp_socket()
            self._backs[receiver] = back
            self._receivers[back] = receiver
        return self._backs.get(receiver)

    def _deliver(self, path: Path[Way]) -> None:
        now = time.monotonic()
        while (clump := path.pop_due(now)) is not None:
            sock, to = clump.way
            step = clump.segment_bytes * MAX_SEGMENTS
            for start in range(0, len(clump.payload), step):
                _send(sock, clump.payload[start : start + step], clump.segment_bytes, to)


def _udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    with suppress(OSError):  # an older kernel: one datagram a call
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


def _segment_bytes(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in ancillary:
        if (level, kind) == (SOL_UDP, UDP_GRO):
            return int(struct.unpack_from("i", value)[0])
    return 0


def _send(sock: socket.socket, payload: bytes, segment_bytes: int, to: Any) -> None:
    if len(payload) > segment_bytes:
        with suppress(OSError):
            sock.sendmsg([payload], [(SOL_UDP, UDP_SEGMENT, struct.pack("H", segment_bytes))], 0, to)
            return
    for start in range(0, len(payload), segment_bytes):
        with suppress(OSError):  # a full buffer is a lost datagram
            sock.sendto(payload[start : start + segment_bytes], to)


def relay(order: Order) -> None:
    """Say the port, then relay."""
    running = Relay(order)
    say(Ready(running.port, os.getpid()))
    running.run()


if __name__ == "__main__":
    play({"relay": relay})
