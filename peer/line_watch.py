"""Reads the line for the upload cap, ten times a second, and sets the gate to what it decides.

The line is the interface of the default route (all interfaces but loopback, where there is none).
What it sent is read from /proc/net/dev. A network is named by its interface and its router's
hardware address, or the router's IP address while that is unknown; the setting `metered` may name it.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from peer.core.household import counters_sum
from peer.core.line import Counters, LineSample, Own, PathSample
from peer.core.upload_cap import UploadCap
from shared import clock
from shared.connection import Connection
from shared.core.gate import HEADER_BYTES_V4, MAX_DATAGRAM_BYTES
from shared.endpoint import Endpoint
from shared.statistics import ConnectionStatistics

SAMPLE_SECONDS = 0.1
ROUTE_SECONDS = 2.0
MAX_TABLE_BYTES = 1 << 20  # of a /proc file
WIRE_BYTES = 1 + HEADER_BYTES_V4 / MAX_DATAGRAM_BYTES  # of a byte of payload

_PROC = Path("/proc/self/net")
_UP, _GATEWAY = 0x1, 0x2
_SIOCGIFHWADDR = 0x8927
_ETHERNET, _ETHERNET_HEADER = 1, 14


@dataclass(frozen=True, slots=True)
class Route:
    """Where the default route leads."""

    interfaces: tuple[str, ...] = ()
    router: str = ""  # IP address


def default_route(proc: Path = _PROC) -> Route:
    """The system's default route; without one, no interface."""
    found = [*_routes_v4(_lines(proc / "route")[1:]), *_routes_v6(_lines(proc / "ipv6_route"))]
    interfaces = tuple(dict.fromkeys(interface for interface, _ in found))
    return Route(interfaces, next((router for _, router in found if router), ""))


def _routes_v4(lines: list[list[str]]) -> Iterator[tuple[str, str]]:
    for fields in lines:
        if len(fields) < 8 or fields[1] != "00000000" or fields[7] != "00000000":
            continue
        if int(fields[3], 16) & _UP:
            router = socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
            yield fields[0], router if int(fields[3], 16) & _GATEWAY else ""


def _routes_v6(lines: list[list[str]]) -> Iterator[tuple[str, str]]:
    for fields in lines:
        if len(fields) < 10 or fields[0] != "0" * 32 or fields[1] != "00" or fields[9] == "lo":
            continue
        if int(fields[8], 16) & _UP:
            yield fields[9], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(fields[4]))


def router_address(router: str, proc: Path = _PROC) -> str:
    """The hardware address of a router, if the system knows it; else empty."""
    for fields in _lines(proc / "arp")[1:]:
        if len(fields) >= 4 and fields[0] == router and fields[3] != "00:00:00:00:00:00":
            return fields[3]
    return ""


def read_counters(interfaces: tuple[str, ...], proc: Path = _PROC) -> Counters | None:
    """What the interfaces sent; all but loopback when none is named. None if it cannot be read."""
    found = []
    for fields in _lines(proc / "dev"):
        name, _, rest = " ".join(fields).partition(":")
        numbers = rest.split()
        if len(numbers) < 10 or name == "lo" or (interfaces and name not in interfaces):
            continue
        found.append(Counters(int(numbers[8]), int(numbers[9]), _link_header_bytes(name)))
    return counters_sum(tuple(found))


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_TABLE_BYTES).decode("ascii", "replace")
    except OSError:
        return []
    return [line.split() for line in text.splitlines()]


def _link_header_bytes(interface: str) -> int:
    """14 on what looks like Ethernet, as wifi does; 0 on tunnels, PPP and what cannot be asked."""
    request = struct.pack("16sH14x", interface.encode()[:15], 0)
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, _SIOCGIFHWADDR, request)
        return _ETHERNET_HEADER if struct.unpack_from("=H", answer, 16)[0] == _ETHERNET else 0
    return 0


class LineWatch:
    """Feeds the cap, and the gate from the cap."""

    def __init__(self, endpoint: Endpoint, cap: UploadCap) -> None:
        self.network = ""
        self._endpoint = endpoint
        self._cap = cap
        self._route = Route()
        self._routed_at = -ROUTE_SECONDS
        self._before: dict[Connection, ConnectionStatistics] = {}

    async def run(self) -> None:
        """Task: for ever."""
        while True:
            self.read()
            await trio.sleep(SAMPLE_SECONDS)

    def sent_bytes(self) -> int:
        """Everything that left since the start, headers counted."""
        return self._endpoint.statistics().bytes_sent

    def read(self) -> None:
        """One sample, and the gate set by it."""
        now = clock.now()
        if now - self._routed_at >= ROUTE_SECONDS:
            self._routed_at = now
            self._find_network()
        wire = self._endpoint.statistics()
        own = Own(wire.bytes_sent, wire.datagrams_sent, wire.header_bytes_sent)
        counters = read_counters(self._route.interfaces)
        self._cap.sample(LineSample(now, own, counters, tuple(self._paths()), self.network))
        self._endpoint.set_rate(self._cap.gate_rate(), self._cap.burst_bytes())

    def _find_network(self) -> None:
        route = default_route()
        address = router_address(route.router)
        # A router's address drops out of the table now and then; that is no other network.
        if route == self._route and not address:
            return
        known = self.network.rpartition(" ")[2] not in ("", self._route.router)
        is_named_now = route == self._route and not known  # the same network, by its better name
        self._route = route
        name = " ".join((*route.interfaces[:1], address or route.router)).strip()
        if is_named_now and self.network and name != self.network:
            self._cap.renamed(name)
        self.network = name

    def _paths(self) -> Iterator[PathSample]:
        before, self._before = self._before, {}
        for connection in self._endpoint.established():
            path = self._before[connection] = connection.statistics()
            last = before.get(connection)
            if last is None:
                continue
            yield PathSample(
                path=connection,
                rtt_seconds=connection.take_shortest_rtt(),
                delivered_bytes=int(WIRE_BYTES * max(0, _delivered(path) - _delivered(last))),
                sent_datagrams=path.datagrams_sent - last.datagrams_sent,
                lost_datagrams=path.lost_datagrams - last.lost_datagrams,
            )


def _delivered(path: ConnectionStatistics) -> int:
    return path.bytes_sent - path.in_flight_bytes - path.lost_datagrams * MAX_DATAGRAM_BYTES
