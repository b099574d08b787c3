"""The process that delays and loses packets: `python -m tests.lab.delay`, inside the network.

The kernel hands over each packet's number and devices (NFQUEUE) and keeps the packet until it is
told what to do with it, so that nothing is copied. There is one command, a line of JSON on standard
input: {DEVICE: [delay_seconds, up_loss, down_loss, seed]}; the answer is a line of statistics.
It ends when standard input does. Message layouts are those of linux/netfilter/nfnetlink_queue.h.
"""

from __future__ import annotations

import errno
import heapq
import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.lab.punctual import be_punctual

NETLINK_NETFILTER = 12
SO_RCVBUFFORCE = 33
QUEUE_MESSAGE = 3 << 8
PACKET, VERDICT, CONFIG = 0, 1, 2
NLMSG_ERROR, NLM_F_REQUEST, NLM_F_ACK = 2, 1, 4
DROP, ACCEPT = 0, 1
RECEIVE_BUFFER_BYTES = 32 << 20
MAX_HELD = 200_000
MAX_BATCH = 1000  # packets read before any is let go
# Waking once per packet would cost most of a core at 10,000 packets per second; a packet that
# comes or goes within a tick waits for its end, so the delay is off by about one.
TICK_SECONDS = 0.00025

# Netlink header, nfgenmsg, then attributes: packet (number, protocol, hook), device in, device out.
_PACKET = struct.Struct(">24xI8xI4xI")
_TYPE = struct.Struct("=4xH")


def message(kind: int, flags: int, *attributes: tuple[int, bytes]) -> bytes:
    """A message for queue 0."""
    body = bytes(4) + b"".join(
        struct.pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    return struct.pack("=IHHII", 16 + len(body), QUEUE_MESSAGE | kind, flags, 0, 0) + body


def verdict_prefix(verdict: int) -> bytes:
    """A verdict without its last four bytes, the packet's number."""
    return message(VERDICT, NLM_F_REQUEST, (2, struct.pack(">II", verdict, 0)))[:-4]


_ACCEPT = verdict_prefix(ACCEPT)
_DROP = verdict_prefix(DROP)
_NUMBER = struct.Struct(">I")


@dataclass(slots=True)
class Way:
    """What one line does to packets, with dice of its own for either direction."""

    delay_seconds: float
    up_loss: float
    down_loss: float
    up_dice: random.Random
    down_dice: random.Random

    def takes_up(self) -> bool:
        """Whether the next packet that leaves the line's hosts is lost."""
        return self.up_loss > 0 and self.up_dice.random() < self.up_loss

    def takes_down(self) -> bool:
        """Whether the next packet that goes to the line's hosts is lost."""
        return self.down_loss > 0 and self.down_dice.random() < self.down_loss


def plain_way(seed: str) -> Way:
    """No delay and no loss."""
    return Way(0, 0, 0, random.Random(f"{seed} up"), random.Random(f"{seed} down"))


@dataclass(slots=True)
class Statistics:
    """Overruns are packets that the kernel gave up because this process was too slow."""

    packets: int = 0
    lost: int = 0
    overruns: int = 0
    worst_lateness_seconds: float = 0.0

    def as_json(self) -> str:
        """Without spaces or line breaks inside."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})


@dataclass(slots=True)
class DelayLine:
    """Packets that wait, the earliest first."""

    ways: dict[int, Way] = field(default_factory=dict)  # by the index of a line's device
    waiting: list[tuple[float, int]] = field(default_factory=list)  # release_at, number
    statistics: Statistics = field(default_factory=Statistics)

    def configure(self, lines: dict[str, tuple[float, float, float, str]]) -> None:
        """Takes new figures; dice already thrown are not thrown again."""
        for device, (delay_seconds, up_loss, down_loss, seed) in lines.items():
            way = self.ways.setdefault(socket.if_nametoindex(device), plain_way(seed))
            way.delay_seconds, way.up_loss, way.down_loss = delay_seconds, up_loss, down_loss

    def take(self, number: int, device_in: int, device_out: int, now: float) -> bytes | None:
        """Keeps a packet, or answers with the verdict that ends it."""
        source, target = self.ways[device_in], self.ways[device_out]
        self.statistics.packets += 1
        if source.takes_up() or target.takes_down():
            self.statistics.lost += 1
            return _DROP + _NUMBER.pack(number)
        heapq.heappush(self.waiting, (now + source.delay_seconds + target.delay_seconds, number))
        return None

    def due(self, now: float) -> Iterator[bytes]:
        """Verdicts for all whose time has come, or comes within half a tick."""
        while self.waiting and self.waiting[0][0] <= now + TICK_SECONDS / 2:
            release_at, number = heapq.heappop(self.waiting)
            late_seconds = now - release_at
            if late_seconds > self.statistics.worst_lateness_seconds:
                self.statistics.worst_lateness_seconds = late_seconds
            yield _ACCEPT + _NUMBER.pack(number)

    def wait_seconds(self, now: float) -> float | None:
        """Until the next is due; None if nothing waits."""
        return max(0.0, self.waiting[0][0] - now) if self.waiting else None


def open_queue() -> socket.socket:
    """A socket that is told each packet's number and devices. Raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    except PermissionError:  # in a user namespace
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    sock.bind((0, 0))
    bind = (1, struct.pack(">BBH", 1, 0, socket.AF_UNSPEC))
    headers_only, length = (2, struct.pack(">IB", 0, 1)), (3, struct.pack(">I", MAX_HELD))
    for attributes in ((bind,), (headers_only, length)):
        sock.send(message(CONFIG, NLM_F_REQUEST | NLM_F_ACK, *attributes))
        (code,) = struct.unpack_from("=i", sock.recv(4096), 16)
        if code:
            raise OSError(-code, "no NFQUEUE")
    return sock


def read_packets(sock: socket.socket, statistics: Statistics) -> Iterator[tuple[int, int, int]]:
    """Number and devices (in, out) of the packets that have come."""
    buffer = bytearray(4096)
    for _ in range(MAX_BATCH):
        try:
            sock.recv_into(buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            statistics.overruns += 1
            continue
        if _TYPE.unpack_from(buffer)[0] == QUEUE_MESSAGE | PACKET:
            yield _PACKET.unpack_from(buffer)


def main() -> None:
    """Answers commands and lets packets go until standard input ends."""
    be_punctual()
    sock, line = open_queue(), DelayLine()
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([sock, sys.stdin], [], [], line.wait_seconds(time.monotonic()))
        if sys.stdin in readable:
            command = sys.stdin.readline()
            if not command:
                return
            line.configure(json.loads(command))
            print(line.statistics.as_json(), flush=True)
        now = time.monotonic()
        dropped = [line.take(*packet, now) for packet in read_packets(sock, line.statistics)]
        verdicts = [verdict for verdict in dropped if verdict]
        verdicts += line.due(time.monotonic())
        if verdicts:
            sock.send(b"".join(verdicts))
        time.sleep(TICK_SECONDS)


if __name__ == "__main__":
    main()
