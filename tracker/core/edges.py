"""The edges that may serve, how loaded they are, and in which order a title meets them.

The order is rendezvous hashing weighted by capacity (Schindelhauer and Schomaker, 2005): each edge
draws a number from the hash of title and edge, stretched by its capacity, and the highest come
first. So a title keeps meeting the same edges' caches, an edge gets titles in proportion to what
it can send, and an edge that comes or goes moves only its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from math import inf, log

from shared.core.ids import HostPort, InfoHash, NodeId
from shared.core.messages import Load
from shared.core.tickets import CLOCK_SKEW_SECONDS, TICKET_SECONDS

ASSUMED_CAPACITY_RATE = 125_000_000.0  # of an edge that says nothing of its line: 1 Gbit/s
SILENT_REPORTS = 3  # load reports missed before an edge is passed over
MAX_CLOCK_SKEW_SECONDS = TICKET_SECONDS - CLOCK_SKEW_SECONDS  # from here on it would refuse every ticket
TWINS_SECONDS = 60.0  # within so long an address that comes back is not one machine moving about
REMEMBERED = 1000  # entries of each small memory: it is emptied when there are more
SUMMED_SECONDS = 0.25  # as long the sums over all edges are good, but for our own promises
ORDERS_KEPT = 20_000  # titles whose order is remembered


@dataclass(slots=True)
class EdgeState:
    """One edge as far as the tracker knows."""

    node: NodeId
    region: str
    at: HostPort
    capacity_rate: float = ASSUMED_CAPACITY_RATE
    load_rate: float = 0.0  # as last reported
    promised_rate: float = 0.0  # by our redirects since then
    quota_bytes: int = 0
    held_bytes: int = 0
    fault: str = ""  # why nobody new is sent there, as far as its last report says
    silent_at: float = inf  # from then on its next report is late; inf: it never spoke of load
    name: str = field(init=False)  # the id in hexadecimal

    def __post_init__(self) -> None:
        self.name = self.node.hex()

    @property
    def takes_orders(self) -> bool:
        """Whether it fetches what it is told to."""
        return self.quota_bytes > 0

    @property
    def expected_rate(self) -> float:
        """What it sends, counting what a report does not show yet."""
        return self.load_rate + self.promised_rate

    @property
    def use(self) -> float:
        """The expected load as a share of capacity."""
        return self.expected_rate / self.capacity_rate

    def trouble(self, now: float) -> str:
        """Why nobody new is sent there, for people; empty if all is well."""
        return self.fault or ("has not reported its load lately" if now > self.silent_at else "")


class Edges:
    """All admitted edges that are connected."""

    def __init__(self, report_seconds: float) -> None:
        self._report_seconds = report_seconds
        self.states: dict[NodeId, EdgeState] = {}
        self._orders: dict[tuple[InfoHash, str | None], tuple[EdgeState, ...]] = {}
        self._sums: dict[str | None, _Sum] = {}
        self._declined: dict[tuple[NodeId, InfoHash], float] = {}
        self._before: dict[NodeId, tuple[HostPort, float]] = {}  # where edges were before, and until when

    def joined(self, node: NodeId, region: str, at: HostPort, now: float) -> str:
        """An edge connected. Returns what is wrong with that, if anything: then it has no part here."""
        before = self.states.get(node)
        if before is not None and before.at.host != at.host:
            old, until = self._before.get(node, (before.at, float("-inf")))
            if len(self._before) >= REMEMBERED:
                self._before.clear()
            self._before[node] = (before.at, now)
            if old.host == at.host and now - until < TWINS_SECONDS:
                self.left(node)
                return f"two edges with one id, at {before.at} and {at}: give one of them a key of its own"
        self.states[node] = EdgeState(node, region, at)
        self._changed()
        return ""

    def left(self, node: NodeId) -> None:
        """An edge's connection ended."""
        state = self.states.pop(node, None)
        if state is not None:
            self._changed()

    def moved(self, node: NodeId, region: str) -> None:
        """An edge turned out to be in another region."""
        if node in self.states:
            self.states[node].region = region
            self._changed()

    def loaded(self, node: NodeId, message: Load, now: float) -> None:
        """An edge said how loaded it is."""
        state = self.states[node]
        if message.capacity_rate != state.capacity_rate:
            state.capacity_rate = float(message.capacity_rate)
            self._changed()
        state.load_rate, state.promised_rate = float(message.load_rate), 0.0
        state.quota_bytes, state.held_bytes = message.quota_bytes, message.held_bytes
        state.fault = _fault(message, now)
        state.silent_at = now + SILENT_REPORTS * self._report_seconds

    def sends(self, node: NodeId, rate: float) -> None:
        """The upload rate of an edge's plain report, for one that never speaks of load."""
        state = self.states.get(node)
        if state is not None and state.silent_at == inf:
            state.load_rate, state.promised_rate = rate, 0.0

    def decline(self, node: NodeId, infohash: InfoHash, until: float) -> None:
        """An edge will not fetch this title: nobody is sent there for it until then, unless it holds it."""
        if len(self._declined) >= REMEMBERED:
            self._declined.clear()
        self._declined[node, infohash] = until

    def fetches(self, state: EdgeState, infohash: InfoHash, now: float) -> bool:
        """Whether an edge would fetch this title if it were told to."""
        return state.takes_orders and now >= self._declined.get((state.node, infohash), 0.0)

    def _changed(self) -> None:
        self._orders.clear()
        self._sums.clear()

    def order(self, infohash: InfoHash, region: str | None = None) -> tuple[EdgeState, ...]:
        """Every edge in the order of this title; with a region, those in it first."""
        known = self._orders.get((infohash, region))
        if known is None:
            if len(self._orders) >= ORDERS_KEPT:
                self._orders.clear()
            ranked = sorted(
                self.states.values(),
                key=lambda state: (region is not None and state.region != region, _draw(infohash, state)),
            )
            known = self._orders[infohash, region] = tuple(ranked)
        return known

    def promise(self, state: EdgeState, rate: float) -> None:
        """A viewer was sent to this edge and may take `rate` bytes per second."""
        state.promised_rate += rate
        for sums in (self._sums.get(state.region), self._sums.get(None)):
            if sums is not None:
                sums.load_rate += rate

    def mean_use(self, region: str, now: float) -> float:
        """Load as a share of capacity over the edges of a region, or over all if it has none."""
        near = self._sum(region, now)
        sums = near if near.capacity_rate else self._sum(None, now)
        return sums.load_rate / sums.capacity_rate if sums.capacity_rate else 0.0

    def _sum(self, region: str | None, now: float) -> _Sum:
        sums = self._sums.get(region)
        if sums is None or now - sums.at > SUMMED_SECONDS:
            if len(self._sums) >= REMEMBERED:  # viewers name regions, too
                self._sums.clear()
            able = [
                edge
                for edge in self.states.values()
                if region in (None, edge.region) and not edge.trouble(now)
            ]
            load, capacity = sum(e.expected_rate for e in able), sum(e.capacity_rate for e in able)
            sums = self._sums[region] = _Sum(now, load, capacity)
        return sums


@dataclass(slots=True)
class _Sum:
    """Load and capacity of a region's edges, or of all, as of a moment ago."""

    at: float
    load_rate: float
    capacity_rate: float


def _fault(message: Load, now: float) -> str:
    skew_seconds = message.clock_ms / 1000 - now
    if message.draining:
        return "draining"
    is_off = abs(skew_seconds) > MAX_CLOCK_SKEW_SECONDS
    return f"its clock is {skew_seconds:+.0f} s off ours: set it" if is_off else ""


def _draw(infohash: InfoHash, state: EdgeState) -> float:
    """An exponential variate at the rate of the capacity: whoever's is least comes first."""
    number = int.from_bytes(sha256(infohash + state.node).digest()[:8], "big")
    return -log((number + 1) / (1 << 64)) / state.capacity_rate
