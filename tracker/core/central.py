"""The central tier: knows which region holds what, and sends a region's miss onward to another.

It serves regional trackers only, those that its operator named. What they hold it hears from them
(`Holds`): all of it after every connect, changes after that; nothing here is kept on disk but who they
are. A region whose tracker is gone stays known, since its edges live on at other trackers.

Whose word counts: a title is that of the first region, in the order of the setting, that says so; a
region that lies about another's titles is not believed, one that lies about its own harms itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from shared.core.actions import Hangup, Remember, Send
from shared.core.errors import LocalError, ProtocolError, Reason, Refused
from shared.core.ids import HostPort, InfoHash, Kind, NodeId, parse_host_port
from shared.core.messages import (
    Browse,
    Catalogue,
    Describe,
    Entry,
    Fellow,
    Fellows,
    Found,
    Hello,
    Holds,
    Message,
    Refusal,
    Seek,
    Source,
    Why,
)  # fmt: skip
from shared.core.tier_messages import MAX_ADMITTED, MAX_FELLOWS
from tracker.core.region_held import RegionHeld

PAGE_ENTRIES = 25
SOURCES = 8
HOLDS_PER_SECOND, HOLDS_BURST = 200.0, 600.0  # a region paces itself at half of that
SPREAD_SECONDS = 1.0  # who the fellows are is told at most this often
TWINS_SECONDS = 60.0
STRANGER = "this is a central tracker and serves the trackers in its `regionals` setting only"
FOREVER = float("inf")


@dataclass(slots=True)
class Region:
    """One regional tracker and what it told."""

    node: NodeId
    name: str
    at: str  # to dial
    seen_at: HostPort
    up: bool = False
    told: RegionHeld = field(default_factory=RegionHeld)
    incoming: RegionHeld | None = None  # a full state that is not complete yet
    sequence: int = 0
    budget: float = HOLDS_BURST
    budget_at: float = 0.0
    before: tuple[HostPort, float] | None = None  # where it was, and until when


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the operator's log."""

    text: str
    is_trouble: bool = True


CentralAction = Send | Hangup | Remember | Note


class Central:
    """The core of the central tier."""

    def __init__(self, regionals: Sequence[NodeId], fellows: Sequence[Fellow] = ()) -> None:
        """`fellows`: the regional trackers as remembered from before, where they are to be dialled."""
        self._allowed = {node: place for place, node in enumerate(regionals)}
        self.regions: dict[NodeId, Region] = {}
        for known in sorted(fellows, key=lambda known: self._allowed.get(known.node, 0)):
            if known.node in self._allowed:
                region = Region(known.node, known.region, known.at, parse_host_port(known.at))
                self.regions[known.node] = region
        self.seeks = self.misses = 0
        self._spread_at = FOREVER
        self._actions: deque[CentralAction] = deque()

    # -- connections ----------------------------------------------------------------------------

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        """A node said Hello."""
        if hello.kind is not Kind.TRACKER or node not in self._allowed:
            self._actions.append(Hangup(node, Reason.NOT_ALLOWED, STRANGER))
            return
        region = self.regions.get(node)
        if region is None:
            region = Region(node, hello.region, str(at), at)
            self.regions[node] = region
            ordered = sorted(self.regions.items(), key=lambda item: self._allowed[item[0]])
            self.regions = dict(ordered)
        elif self._are_twins(region, at, now):
            detail = f"two trackers with one id, at {region.seen_at} and {at}: give one of them its own key"
            self._actions += [Hangup(node, Reason.NOT_ALLOWED, detail), Note(detail)]
            region.up = False
            return
        region.name, region.seen_at, region.at, region.up = hello.region, at, str(at), True
        region.sequence, region.incoming = 0, None
        region.budget, region.budget_at = HOLDS_BURST, now
        self._spread_at = min(self._spread_at, now)

    def _are_twins(self, region: Region, at: HostPort, now: float) -> bool:
        if not region.up or region.seen_at.host == at.host:
            return False
        before, region.before = region.before, (region.seen_at, now)
        return before is not None and before[0].host == at.host and now - before[1] < TWINS_SECONDS

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """A regional tracker is gone; what it told stays known, since its edges are not gone with it."""
        region = self.regions.get(node)
        if region is not None and region.up:
            region.up, region.incoming = False, None
            self._actions.append(Note(f"the tracker of region {region.name!r} at {region.at} is gone"))

    # -- messages -------------------------------------------------------------------------------

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """Takes one message of a connected node."""
        region = self.regions.get(sender)
        if region is None or not region.up:
            return  # hung up on, and what it had under way still arrives
        try:
            self._take(message, region, now)
        except Refused as refusal:
            request = getattr(message, "request", 1)
            self._actions.append(Send(sender, Refusal(request, refusal.reason, refusal.detail)))
        except ProtocolError as error:
            region.up, region.incoming = False, None  # what is under way is not listened to
            self._actions.append(Hangup(sender, error.reason, error.detail))
            self._actions.append(Note(f"hung up on the tracker of region {region.name!r}: {error}"))

    def _take(self, message: Message, region: Region, now: float) -> None:
        match message:
            case Holds():
                self._hold(message, region, now)
            case Seek():
                self._actions.append(Send(region.node, self._seek(message, region)))
            case Browse():
                page = tuple(islice(self._others(region), message.skip, message.skip + PAGE_ENTRIES))
                total = sum(len(one.told.entries) for one in self.regions.values() if one is not region)
                self._actions.append(Send(region.node, Catalogue(message.request, total, page)))
            case Describe():
                told = (one.told.entries.get(message.title_id) for one in self.regions.values())
                entry = next((entry for entry in told if entry is not None), None)
                if entry is None:
                    raise Refused(Reason.UNKNOWN_TITLE, "in no region's catalogue")
                self._actions.append(Send(region.node, Catalogue(message.request, 1, (entry,))))
            case _:
                raise ProtocolError(Reason.UNEXPECTED, type(message).__name__)

    def _hold(self, message: Holds, region: Region, now: float) -> None:
        self._charge(region, now)
        if message.sequence != region.sequence + 1:
            detail = f"Holds {message.sequence} after {region.sequence}: begin anew"
            raise ProtocolError(Reason.UNEXPECTED, detail)
        region.sequence = message.sequence
        if message.sequence == 1:
            region.incoming = RegionHeld()
            self._learn_address(message, region, now)
        before = len(region.told.edges)
        (region.incoming or region.told).apply(message)
        if region.incoming is not None and not message.more:
            region.told, region.incoming = region.incoming, None
        if len(region.told.edges) != before:
            self._spread_at = min(self._spread_at, now + SPREAD_SECONDS)

    def _charge(self, region: Region, now: float) -> None:
        earned = (now - region.budget_at) * HOLDS_PER_SECOND
        region.budget, region.budget_at = min(HOLDS_BURST, region.budget + earned) - 1, now
        if region.budget < 0:
            raise ProtocolError(Reason.BUSY, f"over {HOLDS_PER_SECOND:.0f} Holds a second")

    def _learn_address(self, message: Holds, region: Region, now: float) -> None:
        if message.at:
            try:
                parse_host_port(message.at)
            except LocalError as error:
                raise ProtocolError(Reason.MALFORMED, str(error)) from None
            region.at = message.at
            self._spread_at = min(self._spread_at, now)

    def _others(self, region: Region) -> Iterator[Entry]:
        """Titles of all regions but one, each once."""
        seen = set(region.told.entries)
        for other in self.regions.values():
            for title_id, entry in reversed(other.told.entries.items()) if other is not region else ():
                if title_id not in seen:
                    seen.add(title_id)
                    yield entry

    def _seek(self, message: Seek, asker: Region) -> Found:
        self.seeks += 1
        told = (region.told.entry_of(message.infohash) for region in self.regions.values())
        entry = next((entry for entry in told if entry is not None), None)
        if entry is None:
            self.misses += 1
            raise Refused(Reason.UNKNOWN_TITLE, "in no region's catalogue")
        return Found(message.request, (entry,), tuple(islice(self._edges(message.infohash, asker), SOURCES)))

    def _edges(self, infohash: InfoHash, asker: Region) -> Iterator[Source]:
        """Edges of others that hold it: of the same region, then of those whose trackers are here."""
        others = [region for region in self.regions.values() if region is not asker]
        named: set[NodeId] = set()
        for region in sorted(others, key=lambda region: (region.name != asker.name, not region.up)):
            for edge in region.told.edges_with(infohash):
                if edge.node not in named:
                    named.add(edge.node)
                    yield replace(edge, why=Why.CENTRAL_EDGE)

    # -- time -----------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return self._spread_at

    def handle_timer(self, now: float) -> None:
        """Tells everybody who the fellows are, if that changed."""
        if now < self._spread_at:
            return
        self._spread_at = FOREVER
        fellows = [Fellow(one.node, one.at, one.name) for one in self.regions.values()][: MAX_FELLOWS + 1]
        self._actions.append(Remember(tuple(fellows[:MAX_FELLOWS])))
        for region in self.regions.values():
            if region.up:
                trackers = tuple(f for f in fellows if f.node != region.node)[:MAX_FELLOWS]
                others = (one.told.edges for one in self.regions.values() if one is not region)
                edges = list(dict.fromkeys(node for edges in others for node in edges))[:MAX_ADMITTED]
                self._actions.append(Send(region.node, Fellows(trackers, b"".join(edges))))

    def next_action(self) -> CentralAction | None:
        """The next order for the shell, or None."""
        return self._actions.popleft() if self._actions else None
