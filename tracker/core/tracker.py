"""The tracker's decisions: messages in, orders out.

Swarms are soft state in memory; titles are durable: a Register is answered only after the
shell says that the database has it (`stored`).
"""

from __future__ import annotations

from collections import deque
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
    Locate,
    Message,
    Redirect,
    Refusal,
    Register,
    Registered,
    Report,
    Schedule,
    Source,
)  # fmt: skip
from tracker.core import nodes, redirect
from tracker.core.nodes import Node, Totals
from tracker.core.redirect import Answer, Viewer
from tracker.core.swarm import Swarm, Swarms

PAGE_ENTRIES = 25  # of the longest entries 27 fit a message
MAX_SWARMS_PER_NODE = 10_000  # bounds what one node can make us remember
EXPIRE_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class TrackerSettings:
    """What the core needs of the configuration."""

    announce_seconds: int = 60
    report_seconds: int = 5
    edges: frozenset[NodeId] = frozenset()
    open_to_edges: bool = False  # any edge may register titles


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


TrackerAction = Send | Hangup | StoreTitle | StoreNode


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
        self.entries: dict[TitleId, Entry] = {entry.title_id: entry for entry in entries}
        self._of_swarm: dict[InfoHash, Entry] = {
            rendition.infohash: entry for entry in entries for rendition in entry.renditions
        }
        self._actions: deque[TrackerAction] = deque()
        self._expire_at = 0.0
        self._announces = self._redirects = self._refusals = 0

    # -- connections --------------------------------------------------------------------------

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        """A node said Hello; if we knew it, it has started anew."""
        self.swarms.forget(node)
        self.nodes[node] = nodes.of_hello(node, at, hello, now)
        self._actions.append(StoreNode(self.nodes[node]))
        schedule = Schedule(self._settings.announce_seconds, self._settings.report_seconds)
        self._actions.append(Send(node, schedule))

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """A connection ended: what it held cannot be asked for through us any more."""
        self.nodes.pop(node, None)
        self.swarms.forget(node)

    # -- messages -----------------------------------------------------------------------------

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """Takes one message of a connected node."""
        node = self.nodes[sender]
        node.heard_at = now
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
            case Locate():
                self._locate(message, node, now)
            case Browse():
                self._browse(message, node)
            case Describe():
                self._describe(message, node)
            case Register():
                self._register(message, node)
            case _:
                raise Refused(Reason.UNEXPECTED, type(message).__name__)

    def _announce(self, message: Announce, node: Node, now: float) -> None:
        if message.infohash not in self._of_swarm:
            # Refusing would cost the connection; an edge may announce before it registers.
            return
        if node.kind is Kind.EDGE and not self._may_register(node):
            return  # anybody can say that it is an edge: nobody is sent to one we do not know
        full = self.swarms.count_of(node.id) >= MAX_SWARMS_PER_NODE
        if full and not self.swarms.has(message.infohash, node.id):
            raise Refused(Reason.TOO_LARGE, f"more than {MAX_SWARMS_PER_NODE} swarms")
        if message.held > message.total:
            raise Refused(Reason.MALFORMED, f"{message.held} of {message.total} pieces")
        self._announces += 1
        if node.mode is Mode.DIRECT and node.kind is not Kind.EDGE and message.spare:
            raise Refused(Reason.MALFORMED, "direct mode has nothing to spare")
        self.swarms.announce(message, node.id, node.kind, node.region, now)

    def _locate(self, message: Locate, node: Node, now: float) -> None:
        entry = self._of_swarm.get(message.infohash)
        if entry is None:
            raise Refused(Reason.UNKNOWN_TITLE, "not in the catalogue")
        self._redirects += 1
        answer = redirect.choose(
            self.swarms.swarms.get(message.infohash, Swarm()),
            message.infohash,
            Viewer(node.id, node.kind, node.region),
            _rate(entry, message.infohash),
            self._rng,
            now,
        )
        self._send(node.id, self._redirect(message, entry, node, answer, now))

    def _redirect(self, message: Locate, entry: Entry, node: Node, answer: Answer, now: float) -> Redirect:
        expires_at = int(now) + tickets.TICKET_SECONDS
        ticket = tickets.Ticket(node.id, message.infohash, expires_at, tickets.UNLIMITED)
        sources = tuple(
            Source(n.id, str(n.at), n.kind, n.region, choice.holder.spare, choice.why)
            for choice in answer.choices
            if (n := self.nodes.get(choice.holder.node)) is not None
        )
        return Redirect(
            message.request,
            message.infohash,
            entry.signer,
            tickets.issue(self._key, ticket),
            answer.connections,
            sources,
        )

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
            raise Refused(Reason.NOT_ALLOWED, "this edge is not in the tracker's `edges` setting")
        known = self.entries.get(message.title_id)
        if known is not None and known.signer != node.id:
            raise Refused(Reason.NOT_ALLOWED, "the title belongs to another edge")
        entry = Entry(message.title_id, message.title, node.id, message.rendition_list)
        for rendition in entry.renditions:
            owner = self._of_swarm.get(rendition.infohash)
            if owner is not None and owner.title_id != entry.title_id:
                raise Refused(Reason.NOT_ALLOWED, "the rendition belongs to another title")
        self._actions.append(StoreTitle(entry, node.id, message.request))

    def _may_register(self, node: Node) -> bool:
        return self._settings.open_to_edges or node.id in self._settings.edges

    def stored(self, order: StoreTitle) -> None:
        """The database has the title."""
        before = self.entries.get(order.entry.title_id)
        for rendition in before.renditions if before else ():
            self._of_swarm.pop(rendition.infohash, None)
        self.entries[order.entry.title_id] = order.entry
        for rendition in order.entry.renditions:
            self._of_swarm[rendition.infohash] = order.entry
        self._send(order.node, Registered(order.request))

    def not_stored(self, order: StoreTitle, reason: Reason, detail: str) -> None:
        """The database has not got the title; the edge is told why and may try again."""
        self._refusals += 1
        self._send(order.node, Refusal(order.request, reason, detail))

    # -- time and screens ---------------------------------------------------------------------

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return self._expire_at

    def handle_timer(self, now: float) -> None:
        """Lets silent holders expire."""
        if now >= self._expire_at:
            self._expire_at = now + EXPIRE_EVERY_SECONDS
            self.swarms.expire(now)

    def _send(self, to: NodeId, message: Message) -> None:
        self._actions.append(Send(to, message))

    def next_action(self) -> TrackerAction | None:
        """The next order for the shell, or None."""
        return self._actions.popleft() if self._actions else None

    def title_of(self, infohash: InfoHash) -> Entry | None:
        """The title a swarm belongs to."""
        return self._of_swarm.get(infohash)

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
        )


def _rate(entry: Entry, infohash: InfoHash) -> float:
    """Bytes per second that playing this rendition needs; 0 for a plain file."""
    return next(r.bandwidth for r in entry.renditions if r.infohash == infohash) / 8
