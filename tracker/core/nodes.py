"""The nodes connected to this tracker, what they said of themselves, and how they do."""

from __future__ import annotations

from dataclasses import dataclass

from shared.core.ids import HostPort, Kind, Mode, NodeId
from shared.core.messages import Hello, Report


@dataclass(slots=True)
class Node:
    """One connected node."""

    id: NodeId
    at: HostPort
    kind: Kind
    mode: Mode
    region: str
    software: str
    since: float
    heard_at: float
    report: Report | None = None
    stated_region: str = ""  # what it says itself; the tracker believes its own table first
    web_seed_port: int = 0  # of an edge that serves stock clients
    regions: object = None  # the table that `region` was looked up in
    seal: int | None = None  # its place among the seals
    card: bytes | None = None  # of an edge in sealed answers, once it was wanted


def of_hello(node: NodeId, at: HostPort, hello: Hello, now: float) -> Node:
    """A node as its Hello presents it, at the address it is seen at."""
    return Node(node, at, hello.kind, hello.mode, hello.region, hello.software, now, now, None, hello.region)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the reports of all connected terminals."""

    edge_bytes: int
    peer_bytes: int
    uploaded_bytes: int
    up_rate: int
    down_rate: int
    stalls: int

    @property
    def offload(self) -> float:
        """The share of delivered bytes that came from peers, 0 to 1."""
        delivered = self.edge_bytes + self.peer_bytes
        return self.peer_bytes / delivered if delivered else 0.0


def totals(nodes: list[Node]) -> Totals:
    """Adds up what terminals took; edges are sources, not viewers."""
    reports = [n.report for n in nodes if n.report is not None and n.kind is not Kind.EDGE]
    return Totals(
        edge_bytes=sum(r.edge_bytes for r in reports),
        peer_bytes=sum(r.peer_bytes for r in reports),
        uploaded_bytes=sum(r.uploaded_bytes for r in reports),
        up_rate=sum(r.up_rate for r in reports),
        down_rate=sum(r.down_rate for r in reports),
        stalls=sum(r.stalls for r in reports),
    )
