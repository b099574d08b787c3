"""The tracker's decisions: messages in, orders out.

Swarms are soft state in memory; titles are durable: a Register is answered only after the
shell says that the database has it (`stored`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.core import tickets
from shared.core.actions import Hangup, Send
from shared.core.dice import Dice
from shared.core.errors import Reason, Refused
from shared.core.ids import HostPort, InfoHash, Kind, NodeId, TitleId
from shared.core.messages import (
    Announce,
    AskOpen,
    Browse,
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
    WantSeal,
    WebSeed,
)  # fmt: skip
from tracker.core import nodes
from tracker.core.answers import Answer
from tracker.core.asks import Asks, Located, Wanted
from tracker.core.content import Content
from tracker.core.edges import Edges
from tracker.core.groups import Groups
from tracker.core.nodes import Node, Totals
from tracker.core.open_titles import OpenTitles
from tracker.core.placement import Hint, Order, PlacementStatistics
from tracker.core.regions import RegionTable
from tracker.core.sealed import Sealed
from tracker.core.swarm import Swarms
from tracker.core.titles import Titles
from tracker.core.usage import Usage

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
    bittorrent: bool = False  # stock clients may have what is for everybody


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
        self.nodes: dict[NodeId, Node] = {}
        self.swarms = Swarms(settings.announce_seconds)
        self.edges = Edges(settings.report_seconds)
        self.titles = Titles(entries)
        self.groups = Groups()
        self.usage = Usage(self.titles)
        self.open_titles = OpenTitles(self.titles, self.groups, settings.bittorrent)
        self.content = Content(self.edges, self.titles, self.swarms)
        self.answers: deque[Answer] = deque(maxlen=ANSWERS_KEPT)
        self._guests: frozenset[NodeId] = frozenset()  # edges that other regions admit
        self._regions = RegionTable()
        self.asks = Asks(self.titles, self.swarms, self.edges, self.groups, self.content, rng)
        self.sealed = Sealed(self, self.swarms)
        self._actions: deque[TrackerAction] = deque()
        self._expire_at = 0.0
        self._refusals = 0

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
        if node in self.nodes:
            self.sealed.end(self.nodes[node])
        self.swarms.forget(node)
        self.content.placement.left(node, now)  # what it was ordered it has forgotten, too
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
        known = self.nodes.pop(node, None)
        if known is not None:
            self.sealed.end(known)
        self.swarms.forget(node)
        self.edges.left(node)
        self.content.placement.left(node, now)

    def use_regions(self, table: RegionTable) -> None:
        """Another table of regions; a node that is here hears of it with its next message."""
        self._regions = table

    # -- messages -----------------------------------------------------------------------------

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """Takes one message of a connected node."""
        node = self.hear(sender, now)
        if node is None:
            return
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
                self.announce(message, node, now)
            case Report():
                self.report(message, node, now)
            case Load():
                self._load(message, node, now)
            case Locate():
                self._locate(message, node, now)
            case WantSeal():
                self._send(node.id, self.sealed.make(node, message.request, now))
            case Browse():
                self._send(node.id, self.titles.browse(message))
            case Describe():
                self._send(node.id, self.titles.describe(message))
            case Register():
                self._register(message, node)
            case WebSeed():
                node.web_seed_port = message.port
            case AskOpen():
                self._send(node.id, self.open_titles.answer(message))
            case Placed():
                if not self.content.placement.placed(node.id, message, now):
                    raise Refused(Reason.UNEXPECTED, f"there is no order {message.order} for this edge")
                self._carry(self.content.placement.renewed(message.order, now), now)
            case _:
                raise Refused(Reason.UNEXPECTED, type(message).__name__)

    def _place_on_map(self, node: Node) -> None:
        if node.regions is not self._regions:
            node.regions = self._regions
            node.region = self._regions.region_of(node.at.host) or node.stated_region
            self.swarms.move(node.id, node.region)
            self.edges.moved(node.id, node.region)

    def hear(self, sender: NodeId, now: float) -> Node | None:
        """The node that something came from; None if we hung up on it, and that was under way."""
        node = self.nodes.get(sender)
        if node is not None:
            node.heard_at = now
            self._place_on_map(node)
        return node

    def announce(self, message: Announce, node: Node, now: float) -> None:
        """Takes in what a node holds. Raises Refused."""
        if node.kind is Kind.EDGE and not self._may_serve(node):
            return  # anybody can say that it is an edge: nobody is sent to one we do not know
        self.asks.announce(message, node, now)

    def report(self, message: Report, node: Node, now: float) -> None:
        """Takes in how a node does."""
        node.report = message
        self.usage.reported(node, message, now)
        self.edges.sends(node.id, message.up_rate)

    def locate(self, asked: Sequence[Wanted], now: float) -> list[Located | Refused]:
        """Answers for all of them in order; logs them, and orders what they make necessary."""
        answers = self.asks.locate(asked, now)
        for located in answers:
            if isinstance(located, Located):
                self.usage.redirected(located.wanted.node, located.entry.title_id, now)
                self.answers.append(located.answer)
                if self._settings.log_redirects:
                    self._actions.append(LogRedirect(located.answer))
                self._carry(self.content.fetched_by(located.answer, located.wanted.infohash, now), now)
            else:
                self._refusals += 1
        return answers

    def _load(self, message: Load, node: Node, now: float) -> None:
        if node.id in self.edges.states:  # as above: others are passed over
            self.edges.loaded(node.id, message, now)

    def _locate(self, message: Locate, node: Node, now: float) -> None:
        (found,) = self.locate([Wanted(node, message.infohash, message.stretch)], now)
        if isinstance(found, Refused):
            self._send(node.id, Refusal(message.request, found.reason, found.detail))
            return
        sources = self.sources(found.answer)
        ticket = self.ticket(node.id, message.infohash, now)
        connections = found.answer.connections
        self._send(
            node.id,
            Redirect(message.request, message.infohash, found.entry.signer, ticket, connections, sources),
        )

    def sources(self, answer: Answer) -> tuple[Source, ...]:
        """The chosen that are still connected, and edges of other regions."""
        here = tuple(
            Source(n.id, str(n.at), n.kind, n.region, choice.spare, choice.why)
            for choice in answer.choices
            if (n := self.nodes.get(choice.node)) is not None
        )
        return here + answer.abroad

    def ticket(self, node: NodeId, infohash: InfoHash, now: float) -> bytes:
        """Opens a swarm to a viewer from now on."""
        expires_at = int(now) + tickets.TICKET_SECONDS
        return tickets.issue(self._key, tickets.Ticket(node, infohash, expires_at, tickets.UNLIMITED))

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
        return min(self._expire_at, self.content.get_timer())

    def handle_timer(self, now: float) -> None:
        """Lets silent holders expire, and takes the next step of placement."""
        if now >= self._expire_at:
            more = self.swarms.expire(now)
            self._expire_at = now if more else now + EXPIRE_EVERY_SECONDS
        self._carry(self.content.step(now), now)

    def _carry(self, decisions: Sequence[Order | Hint], now: float) -> None:
        for decision in decisions:
            message = self.content.say(decision, self.ticket(decision.edge, decision.infohash, now))
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

    def edges_with(self, infohash: InfoHash) -> frozenset[NodeId]:
        """The edges here that hold all of a rendition and may be asked."""
        return self.content.whole_on(infohash)

    def web_seeds(self, infohash: InfoHash) -> list[HostPort]:
        """The HTTP doors of edges that hold a rendition."""
        known = map(self.nodes.get, sorted(self.edges_with(infohash)))
        return [HostPort(node.at.host, node.web_seed_port) for node in known if node and node.web_seed_port]

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
            announces=self.asks.announces,
            redirects=self.asks.redirects,
            refusals=self._refusals,
            totals=nodes.totals(everyone),
            records=self.swarms.records.count,
            record_bytes=self.swarms.bytes,
            prefixes=self._regions.prefixes,
            placement=self.content.placement.statistics(),
        )
