"""The tracker's decisions: messages in, orders out.

Swarms are soft state in memory; titles are durable: a Register is answered only after the
shell says that the database has it (`stored`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.core import tickets
from shared.core.actions import Hangup, Send
from shared.core.dice import Dice
from shared.core.errors import Reason, Refused
from shared.core.ids import HostPort, InfoHash, Kind, Mode, NodeId, TitleId
from shared.core.messages import (
    Announce,
    Browse,
    Catalogue,
    Describe,
    Entry,
    Hello,
    Load,
    Locate,
    Message,
    Placed,
    Redirect,
    Refusal,
    Register,
    Registered,
    Report,
    Schedule,
    Source,
)  # fmt: skip
from tracker.core import nodes, redirect
from tracker.core.content import Content
from tracker.core.edges import Edges
from tracker.core.groups import Groups
from tracker.core.nodes import Node, Totals
from tracker.core.placement import Hint, Order, PlacementStatistics
from tracker.core.redirect import Answer, Question, Viewer
from tracker.core.regions import RegionTable
from tracker.core.swarm import Swarms
from tracker.core.titles import Titles

PAGE_ENTRIES = 25  # of the longest entries 27 fit a message
MAX_SWARMS_PER_NODE = 10_000  # bounds what one node can make us remember
NOT_ADMITTED = "this edge is not in the tracker's `edges` setting"
EXPIRE_EVERY_SECONDS = 1.0
ANSWERS_KEPT = 256  # the latest redirects, for whoever wants to know why


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """What the core needs of the configuration."""

    announce_seconds: int = 60
    report_seconds: int = 5
    edges: frozenset[NodeId] = frozenset()
    open_to_edges: bool = False  # any edge may register titles
    log_redirects: bool = False


@dataclass(frozen=True, slots=True)
class StoreTitle:
    """Write this title to the database, then call `stored`."""

    entry: Entry
    node: NodeId
    request: int


@dataclass(frozen=True, slots=True)
class StoreNode:
    """Remember this node in the database."""

    node: Node


@dataclass(frozen=True, slots=True)
class LogRedirect:
    """A redirect was answered, on these grounds."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class TrackerStatistics:
    """A snapshot for the API."""

    nodes: int
    viewers: int
    edges: int
    swarms: int
    titles: int
    announces: int
    redirects: int
    refusals: int
    totals: Totals
    records: int
    record_bytes: int
    prefixes: int  # of the region table
    placement: PlacementStatistics


TrackerAction = Send | Hangup | StoreTitle | StoreNode | LogRedirect


class Tracker:
    """One tier, one region or many: decides every answer this tracker gives."""

    def __init__(
        self, key: Ed25519PrivateKey, settings: TrackerSettings, entries: list[Entry], rng: Dice
    ) -> None:
        self._key = key
        self._settings = settings
        self._rng = rng
        self.nodes: dict[NodeId, Node] = {}
        self.swarms = Swarms(settings.announce_seconds)
        self.edges = Edges(settings.report_seconds)
        self.titles = Titles(entries)
        self.groups = Groups()
        self.content = Content(self.edges, self.titles, self.swarms)
        self.answers: deque[Answer] = deque(maxlen=ANSWERS_KEPT)
        self._guests: frozenset[NodeId] = frozenset()  # edges that other regions admit
        self._regions = RegionTable()
        self._field = redirect.Field(self.swarms, self.edges)
        self._actions: deque[TrackerAction] = deque()
        self._expire_at = 0.0
        self._announces = self._redirects = self._refusals = 0

    @property
    def entries(self) -> dict[TitleId, Entry]:
        """Every title, in the order it was registered."""
        return self.titles.entries

    # -- connections --------------------------------------------------------------------------

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        """A node said Hello; if we knew it, it has started anew."""
        if hello.kind is Kind.TRACKER:
            self._actions.append(Hangup(node, Reason.NOT_ALLOWED, "this tracker serves no other trackers"))
            return
        self.swarms.forget(node)
        known = nodes.of_hello(node, at, hello, now)
        known.regions = self._regions
        known.region = self._regions.region_of(at.host) or hello.region
        if known.kind is Kind.EDGE and self._may_serve(known):
            twins = self.edges.joined(node, known.region, at, now)
            if twins:
                self._refusals += 1
                self.nodes.pop(node, None)
                self._actions.append(Hangup(node, Reason.NOT_ALLOWED, twins))
                return
        self.nodes[node] = known
        self._actions.append(StoreNode(known))
        schedule = Schedule(self._settings.announce_seconds, self._settings.report_seconds)
        self._actions.append(Send(node, schedule))

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """A connection ended: what it held cannot be asked for through us any more."""
        self.nodes.pop(node, None)
        self.swarms.forget(node)
        self.edges.left(node)
        self.content.placement.left(node)

    def use_regions(self, table: RegionTable) -> None:
        """Another table of regions; a node that is here hears of it with its next message."""
        self._regions = table

    # -- messages -----------------------------------------------------------------------------

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """Takes one message of a connected node."""
        node = self.nodes.get(sender)
        if node is None:
            return  # hung up on, and what it had under way still arrives
        node.heard_at = now
        self._place_on_map(node)
        try:
            self._answer(message, node, now)
        except Refused as refusal:
            self._refusals += 1
            request = getattr(message, "request", None)
            if request is None:
                self._actions.append(Hangup(sender, refusal.reason, refusal.detail))
            else:
                self._send(sender, Refusal(request, refusal.reason, refusal.detail))

    def _answer(self, message: Message, node: Node, now: float) -> None:
        match message:
            case Announce():
                self._announce(message, node, now)
            case Report():
                node.report = message
                self.edges.sends(node.id, message.up_rate)
            case Load():
                self._load(message, node, now)
            case Locate():
                self._locate(message, node, now)
            case Browse():
                self._browse(message, node)
            case Describe():
                self._describe(message, node)
            case Register():
                self._register(message, node)
            case Placed():
                if not self.content.placement.placed(node.id, message, now):
                    raise Refused(Reason.UNEXPECTED, f"there is no order {message.order} for this edge")
            case _:
                raise Refused(Reason.UNEXPECTED, type(message).__name__)

    def _place_on_map(self, node: Node) -> None:
        if node.regions is not self._regions:
            node.regions = self._regions
            node.region = self._regions.region_of(node.at.host) or node.stated_region
            self.swarms.move(node.id, node.region)
            self.edges.moved(node.id, node.region)

    def _announce(self, message: Announce, node: Node, now: float) -> None:
        if message.infohash not in self.titles:
            # Refusing would cost the connection; an edge may announce before it registers.
            return
        if node.kind is Kind.EDGE and not self._may_serve(node):
            return  # anybody can say that it is an edge: nobody is sent to one we do not know
        full = self.swarms.count_of(node.id) >= MAX_SWARMS_PER_NODE
        if full and not self.swarms.has(message.infohash, node.id):
            raise Refused(Reason.TOO_LARGE, f"more than {MAX_SWARMS_PER_NODE} swarms")
        most = self.titles.most_pieces_of(message.infohash)
        if message.held > message.total or message.total > most > 0:
            raise Refused(Reason.MALFORMED, f"{message.held} of {message.total} pieces, of at most {most}")
        if node.mode is Mode.DIRECT and node.kind is not Kind.EDGE and message.spare:
            raise Refused(Reason.MALFORMED, "direct mode has nothing to spare")
        self._announces += 1
        self.swarms.announce(message, node.id, node.kind, node.region, now)

    def _load(self, message: Load, node: Node, now: float) -> None:
        if node.id in self.edges.states:  # as above: others are passed over
            self.edges.loaded(node.id, message, now)

    def _locate(self, message: Locate, node: Node, now: float) -> None:
        entry = self.titles.title_of(message.infohash)
        if entry is None:
            raise Refused(Reason.UNKNOWN_TITLE, "not in the catalogue")
        if not self.groups.may_watch(entry.title_id, entry.signer, node.id):
            raise Refused(Reason.NOT_ALLOWED, "this title is kept to groups; ask its publisher to add you")
        self._redirects += 1
        question = Question(
            infohash=message.infohash,
            viewer=Viewer(node.id, node.kind, node.region, message.stretch),
            rate=self.titles.rate_of(message.infohash),
            share=self.content.share(message.infohash, now),
            origin=entry.signer,
            number=self._redirects,
            elsewhere=bool(self.content.abroad.sources(message.infohash)),
        )
        answer = redirect.choose(self._field, question, self._rng, now)
        answer = self.content.abroad.widen(answer, self.edges_with(message.infohash), self._rng)
        self.content.asked(message.infohash, now)
        self.answers.append(answer)
        if self._settings.log_redirects:
            self._actions.append(LogRedirect(answer))
        self._send(node.id, self._redirect(message, entry, node, answer, now))
        self._carry(self.content.fetched_by(answer, message.infohash, now), now)

    def _redirect(self, message: Locate, entry: Entry, node: Node, answer: Answer, now: float) -> Redirect:
        sources = tuple(
            Source(n.id, str(n.at), n.kind, n.region, choice.spare, choice.why)
            for choice in answer.choices
            if (n := self.nodes.get(choice.node)) is not None
        )
        ticket = self._ticket(node.id, message.infohash, now)
        return Redirect(
            message.request, message.infohash, entry.signer, ticket, answer.connections,
            sources + answer.abroad,
        )  # fmt: skip

    def _ticket(self, node: NodeId, infohash: InfoHash, now: float) -> bytes:
        expires_at = int(now) + tickets.TICKET_SECONDS
        return tickets.issue(self._key, tickets.Ticket(node, infohash, expires_at, tickets.UNLIMITED))

    def _browse(self, message: Browse, node: Node) -> None:
        newest = list(self.entries.values())[::-1]
        page = tuple(newest[message.skip : message.skip + PAGE_ENTRIES])
        self._send(node.id, Catalogue(message.request, len(newest), page))

    def _describe(self, message: Describe, node: Node) -> None:
        entry = self.entries.get(message.title_id)
        if entry is None:
            raise Refused(Reason.UNKNOWN_TITLE, "not in the catalogue")
        self._send(node.id, Catalogue(message.request, 1, (entry,)))

    # -- titles -------------------------------------------------------------------------------

    def _register(self, message: Register, node: Node) -> None:
        if not self._may_register(node):
            raise Refused(Reason.NOT_ALLOWED, NOT_ADMITTED)
        self._actions.append(StoreTitle(self.titles.check(message, node.id), node.id, message.request))

    def _may_register(self, node: Node) -> bool:
        return self._settings.open_to_edges or node.id in self._settings.edges

    def _may_serve(self, node: Node) -> bool:
        return self._may_register(node) or node.id in self._guests

    def admit(self, guests: frozenset[NodeId], now: float) -> None:
        """Edges of other regions may serve here, too, when their own tracker is gone."""
        for node in [self.nodes[edge] for edge in guests - self._guests if edge in self.nodes]:
            if node.kind is Kind.EDGE and not self._may_serve(node):
                self.edges.joined(node.id, node.region, node.at, now)
        self._guests = guests

    def edges_with(self, infohash: InfoHash) -> frozenset[NodeId]:
        """The edges here that hold all of a rendition and may be asked."""
        swarm = self.swarms.swarms.get(infohash)
        return self.swarms.edges_with(swarm) & self.edges.states.keys() if swarm else frozenset()

    def stored(self, order: StoreTitle) -> None:
        """The database has the title."""
        self.titles.put(order.entry)
        self._send(order.node, Registered(order.request))

    def not_stored(self, order: StoreTitle, reason: Reason, detail: str) -> None:
        """The database has not got the title; the edge is told why and may try again."""
        self._refusals += 1
        self._send(order.node, Refusal(order.request, reason, detail))

    # -- time and screens ---------------------------------------------------------------------

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return min(self._expire_at, self.content.placement.get_timer())

    def handle_timer(self, now: float) -> None:
        """Lets silent holders expire, and takes the next step of placement."""
        if now >= self._expire_at:
            more = self.swarms.expire(now)
            self._expire_at = now if more else now + EXPIRE_EVERY_SECONDS
        self._carry(self.content.placement.step(now), now)

    def _carry(self, decisions: list[Order | Hint], now: float) -> None:
        for decision in decisions:
            message = self.content.say(decision, self._ticket(decision.edge, decision.infohash, now))
            if message is not None:
                self._send(decision.edge, message)

    def _send(self, to: NodeId, message: Message) -> None:
        self._actions.append(Send(to, message))

    def next_action(self) -> TrackerAction | None:
        """The next order for the shell, or None."""
        return self._actions.popleft() if self._actions else None

    def title_of(self, infohash: InfoHash) -> Entry | None:
        """The title a swarm belongs to."""
        return self.titles.title_of(infohash)

    def open_torrents(self) -> Iterator[bytes]:
        """What BitTorrent calls the renditions that everybody may have: 20 bytes of each infohash."""
        for entry in self.entries.values():
            if self.groups.is_open(entry.title_id):
                for rendition in entry.renditions:
                    yield rendition.infohash[:20]

    def statistics(self) -> TrackerStatistics:
        """A snapshot for the API."""
        everyone = list(self.nodes.values())
        edges = sum(1 for node in everyone if node.kind is Kind.EDGE)
        tools = sum(1 for node in everyone if node.kind is Kind.TOOL)
        return TrackerStatistics(
            nodes=len(everyone),
            viewers=len(everyone) - edges - tools,
            edges=edges,
            swarms=len(self.swarms.swarms),
            titles=len(self.entries),
            announces=self._announces,
            redirects=self._redirects,
            refusals=self._refusals,
            totals=nodes.totals(everyone),
            records=self.swarms.records.count,
            record_bytes=self.swarms.bytes,
            prefixes=self._regions.prefixes,
            placement=self.content.placement.statistics(),
        )
