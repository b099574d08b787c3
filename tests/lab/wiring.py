"""Where everything is and how it is wired, as text for `ip`, `bridge`, `tc` and `iptables-restore`.

    host's namespace           the laboratory's one namespace for everything between hosts

    eth0 ---------------- p1 \\
    eth0 ---------------- p2 - br1 - w1 =(up)=> | <=(down)= s1   router   s2 ...
                              modem           one veth pair      delay and loss, then on to
                                                                 the other line's `down`

A line is a bridge (the modem) and a veth pair with a shaper at either end, so that a queue builds
outside the host: a shaper inside would push back on the host's own sockets. Neighbours and bridge
ports are fixed, so that no ARP or neighbour discovery disturbs the counters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab.line import FRAME_HEADER_BYTES, MAX_HOSTS, LabError, Line

BURST_SECONDS = 0.004  # what a shaper may send at once: short beside any window that is judged
QUEUE_NUMBER = 0


@dataclass(frozen=True, slots=True)
class Host:
    """One host. `number` counts from 1 over the laboratory, `place` over its line."""

    name: str
    line: Line
    line_number: int
    number: int
    place: int
    namespace: str

    @property
    def address(self) -> str:
        """IPv4, of the range for benchmarks (RFC 2544): no program takes it for a local network."""
        return f"198.18.{self.line_number}.{self.place + 1}"

    @property
    def address6(self) -> str:
        """IPv6, of the range for documentation (RFC 3849)."""
        return f"2001:db8:0:{self.line_number:x}::{self.place + 1:x}"

    @property
    def hardware(self) -> str:
        """Its Ethernet address."""
        return f"02:00:00:00:{self.number >> 8:02x}:{self.number & 255:02x}"

    @property
    def port(self) -> str:
        """The modem's device that faces it."""
        return f"p{self.number}"


@dataclass(frozen=True, slots=True)
class Wiring:
    """A laboratory's hosts and lines, by name; lines are numbered from 1 in their order."""

    namespace: str
    lines: dict[str, Line]
    hosts: dict[str, Host]


def plan(prefix: str, lines: tuple[Line, ...]) -> Wiring:
    """Gives everything its place; namespaces start with `prefix`. Raises LabError."""
    if not 0 < len(lines) <= MAX_HOSTS:
        raise LabError(f"a laboratory has 1 to {MAX_HOSTS} lines")
    hosts: dict[str, Host] = {}
    for line_number, line in enumerate(lines, 1):
        for place, name in enumerate(line.all_hosts, 1):
            if name in hosts:
                raise LabError(f"two hosts are named {name!r}")
            hosts[name] = Host(name, line, line_number, len(hosts) + 1, place, f"{prefix}host-{name}")
    by_name = {line.name: line for line in lines}
    if len(by_name) < len(lines):
        raise LabError("two lines have the same name")
    return Wiring(f"{prefix}net", by_name, hosts)


def numbered(wiring: Wiring) -> Iterator[tuple[int, Line]]:
    """Each line with its number, which is also that of its devices."""
    return enumerate(wiring.lines.values(), 1)


def network_links(wiring: Wiring) -> Iterator[str]:
    """`ip -batch` lines for the namespace between the hosts; host ends of cables come to be as well."""
    for number, line in numbered(wiring):
        yield f"link add br{number} type bridge"
        yield (
            f"link add s{number} mtu {line.mtu} address {_router_hardware(number)} "
            f"type veth peer name w{number} mtu {line.mtu}"
        )
        for device in (f"br{number}", f"w{number}", f"s{number}"):
            yield f"link set {device} addrgenmode none"
        yield f"link set w{number} master br{number}"
        yield f"addr add {_router_address(number)}/24 dev s{number}"
        yield f"addr add {_router_address6(number)}/64 dev s{number} nodad"
        yield from (f"link set {device} up" for device in (f"br{number}", f"w{number}", f"s{number}"))
    for host in wiring.hosts.values():
        yield (
            f"link add {host.port} mtu {host.line.mtu} type veth peer name eth0 mtu {host.line.mtu} "
            f"address {host.hardware} netns {host.namespace}"
        )
        yield f"link set {host.port} addrgenmode none"
        yield f"link set {host.port} master br{host.line_number}"
        yield f"link set {host.port} up"
        for address in (host.address, host.address6):
            yield f"neigh add {address} lladdr {host.hardware} dev s{host.line_number} nud permanent"


def network_ports(wiring: Wiring) -> Iterator[str]:
    """`bridge -batch` lines: who is behind which port of a modem."""
    for number, _ in numbered(wiring):
        yield f"fdb replace {_router_hardware(number)} dev w{number} master static"
    for host in wiring.hosts.values():
        yield f"fdb replace {host.hardware} dev {host.port} master static"


def host_links(wiring: Wiring, host: Host) -> Iterator[str]:
    """`ip -batch` lines for the namespace of a host, whose end of the cable is there already."""
    number = host.line_number
    yield "link set lo up"
    # One segment per packet: shapers, losses and counters must see what a real wire would carry.
    yield "link set eth0 gso_max_segs 1 addrgenmode none"
    yield f"addr add {host.address}/24 dev eth0"
    yield f"addr add {host.address6}/64 dev eth0 nodad"
    yield "link set eth0 up"
    for address in (_router_address(number), _router_address6(number)):
        yield f"neigh add {address} lladdr {_router_hardware(number)} dev eth0 nud permanent"
        yield f"route add default via {address}"
    for other in wiring.hosts.values():
        if other.line_number == number and other != host:
            for address in (other.address, other.address6):
                yield f"neigh add {address} lladdr {other.hardware} dev eth0 nud permanent"


def shapers(number: int, line: Line) -> Iterator[str]:
    """`tc -batch` lines that set, or change, both rates of a line."""
    frame_bytes = line.mtu + FRAME_HEADER_BYTES
    for device, rate in ((f"w{number}", line.up_rate), (f"s{number}", line.down_rate)):
        burst = max(2 * frame_bytes, round(rate * BURST_SECONDS))
        queue = max(2 * frame_bytes, round(rate * line.queue_seconds))
        yield f"qdisc replace dev {device} root tbf rate {round(rate * 8)}bit burst {burst} limit {queue}"


def detour(wiring: Wiring) -> str:
    """`iptables-restore` text, for both IP versions: what goes through the delaying process."""
    rules = [
        f"-A FORWARD {side} s{number} -j NFQUEUE --queue-num {QUEUE_NUMBER}\n"
        for number, line in numbered(wiring)
        if not line.is_plain
        for side in ("-i", "-o")
    ]
    return f"*mangle\n{''.join(rules)}COMMIT\n"


def _router_address(line_number: int) -> str:
    return f"198.18.{line_number}.1"


def _router_address6(line_number: int) -> str:
    return f"2001:db8:0:{line_number:x}::1"


def _router_hardware(line_number: int) -> str:
    return f"02:01:00:00:00:{line_number:02x}"
