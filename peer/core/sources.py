"""The sources of one rendition: named by the tracker, dialled, joined, banned."""

from __future__ import annotations

from peer.core.company import Company
from peer.core.source import Source
from shared.core.actions import Dial, Hangup, Send
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import InfoHash, Kind, NodeId, parse_host_port
from shared.core.messages import Join, Leave, Redirect, Why
from shared.core.messages import Source as Named

MOST_PEERS = 10  # of those named and those who came
MET_SPARE = 3  # the class of spare upload believed of who was not named: a slow line's
GIVING = (Kind.PC, Kind.STB)


class Sources:
    """Who may be asked, and who gave something before it went."""

    def __init__(self, infohash: InfoHash, company: Company) -> None:
        self.by_node: dict[NodeId, Source] = {}
        self.former: dict[NodeId, Source] = {}
        self.signer: NodeId | None = None
        self._infohash = infohash
        self._company = company
        self._actions = company.actions
        self._ticket = b""
        self._joins: dict[NodeId, int] = {}

    @property
    def all(self) -> list[Source]:
        """Every source, joined or not."""
        return list(self.by_node.values())

    @property
    def anybody_joined(self) -> bool:
        """Whether at least one source let us in."""
        return any(source.joined for source in self.by_node.values())

    def redirected(self, message: Redirect, now: float) -> bool:
        """Dials new sources and shows everybody the new ticket; whether there is any source."""
        self.signer = message.signer
        self._ticket = message.ticket
        for source in self.all:
            if source.connected:  # joined or not: the ticket may be what was missing
                self._join(source.node)
        places = message.connections - sum(s.is_named and not s.is_edge for s in self.all)
        for named in message.sources:
            if named.node in self.by_node:
                self.by_node[named.node].is_second = named.why is Why.EDGE_SPARE
            new = self._new(named, now)
            if new is not None and (new.is_edge or places > 0):
                places -= not new.is_edge
                self._add(new)
        return bool(self.by_node)

    def met(self, node: NodeId) -> None:
        """A neighbour that fetches the same: it is asked, too, without the tracker having named it."""
        near = self._company.connected.get(node)
        peers = sum(not source.is_edge for source in self.all)
        if (
            near is None
            or not near.shares
            or near.kind not in GIVING
            or not self._ticket
            or peers >= MOST_PEERS
        ):
            return
        if node not in self._company.banned and node not in self.by_node:
            self._add(Source(node, near.at, near.kind, MET_SPARE, is_named=False))

    def _add(self, new: Source) -> None:
        before = self.former.pop(new.node, None)
        new.taken_bytes = before.taken_bytes if before else 0
        self.by_node[new.node] = new
        if new.node in self._company.connected:
            self.connected(new.node)  # for another title, or it dialled us
        else:
            self._actions.append(Dial(new.node, new.at))

    def _new(self, named: Named, now: float) -> Source | None:
        if named.node in self._company.banned or named.node in self.by_node:
            return None
        try:
            at, second = parse_host_port(named.at), named.why is Why.EDGE_SPARE
            return Source(named.node, at, named.kind, named.spare, second, now)
        except LocalError:
            return None  # the tracker saw nonsense; the next source may do

    def connected(self, node: NodeId) -> None:
        """A connection came up, perhaps of a node that forgot us: join there if it is a source."""
        source = self.by_node.get(node)
        if source is not None:
            source.connected, source.joined = True, False
            self._join(node)

    def _join(self, node: NodeId) -> None:
        number = self._joins[node] = next(self._company.numbers)
        self._actions.append(Send(node, Join(number, self._infohash, self._ticket)))

    def is_join(self, request: int, node: NodeId) -> bool:
        """Whether this is the number of our last Join there."""
        return self._joins.get(node) == request

    def have(self, node: NodeId, bitfield: bytes, total: int | None) -> None:
        """A source let us in. Raises ProtocolError if its bitfield is none."""
        source = self.by_node.get(node)
        if source is not None:
            source.raw_held = bitfield
            if total is not None:
                source.learn_total(total)
            source.joined = True

    def learn_total(self, total: int) -> list[NodeId]:
        """The manifest is here; those whose bitfields cannot be."""
        liars: list[NodeId] = []
        for source in self.all:
            if source.joined:
                try:
                    source.learn_total(total)
                except ProtocolError:
                    liars.append(source.node)
        return liars

    def note(self, node: NodeId, pieces: tuple[int, ...], *, gone: bool = False) -> None:
        """A source gained pieces, or gave them up. Raises ProtocolError for impossible ones."""
        source = self.by_node.get(node)
        if source is not None:
            source.note(pieces, gone=gone)

    def remove(self, node: NodeId) -> bool:
        """Whether it was one of ours; it is forgotten, but may be named again."""
        self._joins.pop(node, None)
        source = self.by_node.pop(node, None)
        if source is not None:
            self._retire(source)
        return source is not None

    def _retire(self, source: Source) -> None:
        if source.taken_bytes:
            source.connected = source.joined = False
            source.raw_held, source.held, source.rate = b"", None, 0.0
            self.former[source.node] = source

    def ban(self, node: NodeId) -> None:
        """It sent bytes that do not match their hashes: never again."""
        self._company.banned.add(node)
        self._actions.append(Hangup(node, Reason.BAD_DATA, "bytes do not match their hashes"))

    def leave_all(self) -> None:
        """Nothing more is wanted: sources may forget us."""
        for source in self.all:
            if source.joined:
                self._actions.append(Send(source.node, Leave(self._infohash)))
            self._retire(source)
        self.by_node.clear()
        self._joins.clear()
