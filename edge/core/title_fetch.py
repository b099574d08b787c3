"""One rendition on its way from other edges to this one.

Whole pieces are asked, each of one source at a time: in order, but what guests wait for first. Up to
three of the sources named are used at once, the others stand by. One that fails rests and is tried
again, one whose bytes do not match is never asked again; what it owed is asked elsewhere. A
piece that is slow to come is taken over by a source that has nothing else to do.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.core.outbox import Outbox
from shared.core.actions import Ask, AskManifest, Cancel, Dial, Hangup, Send
from shared.core.bitfield import Bitfield
from shared.core.bulk import NO_DEADLINE_MS
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import HostPort, InfoHash, NodeId, parse_host_port
from shared.core.manifest import Manifest
from shared.core.messages import Join, Leave, Place

SOURCES_AT_ONCE = 3
ASKS_PER_SOURCE = 4  # two on the wire, two behind them
WISHED_PER_SOURCE = 8  # what guests wait for may stand behind as much again
JOIN_SECONDS = 5.0  # who has not let us in by then is passed over
SILENT_SECONDS = 5.0  # without a single leaf
RELIEF_SECONDS = 4.0  # after so long an idle source takes a piece over
GIVE_UP_SECONDS = 60.0  # without a piece
FIRST_REST_SECONDS = 1.0
LONGEST_REST_SECONDS = 16.0
LONGEST_SLACK_MS = 3_600_000
LIES = (Reason.BAD_DATA, Reason.MALFORMED, Reason.TOO_LARGE)
FOREVER = float("inf")


@dataclass(slots=True)
class _Source:
    """An edge that is said to hold the title."""

    node: NodeId
    at: HostPort
    called_at: float | None = None  # dialled, or shown our ticket
    joined: bool = False
    raw_held: bytes = b""
    held: Bitfield | None = None
    rests_until: float = 0.0
    rest_seconds: float = FIRST_REST_SECONDS
    failed: Reason = Reason.NONE  # the latest failure
    join: int = 0  # the number of our latest Join

    @property
    def is_liar(self) -> bool:
        return self.failed in LIES

    def is_up(self, now: float) -> bool:
        return not self.is_liar and now >= self.rests_until


@dataclass(slots=True)
class _Asked:
    """A piece under way."""

    source: NodeId
    piece: int
    at: float
    heard_at: float


class TitleFetch:
    """Fetches until `is_whole` or `failure`; `schedule` after every change."""

    def __init__(self, order: Place, outbox: Outbox, now: float) -> None:
        self.order = order
        self.manifest: Manifest | None = None
        self.failure: Reason | None = None
        self.bytes_from: dict[NodeId, int] = {}
        self._outbox = outbox
        self._held = Bitfield(0)
        self._sources: dict[NodeId, _Source] = {}
        self._asked: dict[int, _Asked] = {}
        self._busy: set[int] = set()  # asked for, or being stored
        self._wishes: dict[int, float] = {}  # pieces guests wait for, and until when
        self._next = 0  # all before this are held or busy
        self._manifest_from: NodeId | None = None
        self._moved_at = now
        self.renew(order)

    @property
    def infohash(self) -> InfoHash:
        """What is fetched."""
        return self.order.infohash

    @property
    def is_whole(self) -> bool:
        """Whether every piece is stored."""
        return self.manifest is not None and self._held.complete

    @property
    def permille(self) -> int:
        """How much is held."""
        return 1000 * len(self._held) // self._held.total if self._held.total else 0

    @property
    def under_way(self) -> int:
        """Pieces asked for."""
        return len(self._asked)

    def renew(self, order: Place) -> None:
        """The order came again: its ticket is fresher, and it may name others."""
        self.order = order
        for named in order.sources:
            if named.node not in self._sources:
                try:
                    self._sources[named.node] = _Source(named.node, parse_host_port(named.at))
                except LocalError:
                    continue  # the tracker saw nonsense; the next source may do
        for source in self._sources.values():
            if source.joined:
                self._join(source.node)
            elif source.failed in (Reason.TICKET_EXPIRED, Reason.TICKET_INVALID):
                source.rests_until = 0.0

    def _join(self, node: NodeId) -> None:
        number = self._sources[node].join = next(self._outbox.numbers)
        self._outbox.actions.append(Send(node, Join(number, self.infohash, self.order.ticket)))

    # -- sources ----------------------------------------------------------------------------------

    def connected(self, node: NodeId, now: float) -> None:
        """A connection came up: if it is a source, it is shown the ticket."""
        source = self._sources.get(node)
        if source is not None and source.called_at is not None:
            source.called_at, source.joined = now, False
            self._join(node)

    def have(self, node: NodeId, bitfield: bytes) -> None:
        """A source let us in. Raises ProtocolError if its bitfield is none."""
        source = self._sources.get(node)
        if source is None or source.called_at is None:
            return
        source.raw_held = bitfield
        if self.manifest is not None:
            source.held = Bitfield.parse(bitfield, self.manifest.piece_count)
        source.joined, source.rest_seconds = True, FIRST_REST_SECONDS

    def refused(self, request: int, node: NodeId, reason: Reason, now: float) -> None:
        """A source refused something: perhaps our Join."""
        if node in self._sources and self._sources[node].join == request:
            self.failed(node, reason, now)

    def note(self, node: NodeId, pieces: tuple[int, ...], *, gone: bool = False) -> None:
        """A source gained pieces, or gave them up. Raises ProtocolError for impossible numbers."""
        source = self._sources.get(node)
        if source is not None and source.held is not None:
            for piece in pieces:
                if gone:
                    source.held.discard(piece)
                else:
                    source.held.add(piece)

    def failed(self, node: NodeId, reason: Reason, now: float) -> None:
        """A source is gone, refused us, was silent, or lied."""
        source = self._sources.get(node)
        if source is None or source.called_at is None:
            return
        source.called_at, source.joined, source.held = None, False, None
        source.failed = reason
        source.rests_until = now + source.rest_seconds
        source.rest_seconds = min(LONGEST_REST_SECONDS, 2 * source.rest_seconds)
        if self._manifest_from == node:
            self._manifest_from = None
        for number in [number for number, asked in self._asked.items() if asked.source == node]:
            self._give_up(number)
        if source.is_liar:
            self._outbox.actions.append(Hangup(node, Reason.BAD_DATA, "bytes do not match their hashes"))

    def _call(self, now: float) -> None:
        """As many sources as are used at once, the best first."""
        for source in self._sources.values():
            waits = source.called_at is not None and not source.joined
            if waits and source.called_at is not None and now - source.called_at > JOIN_SECONDS:
                self.failed(source.node, Reason.TIMEOUT, now)
        free = SOURCES_AT_ONCE - sum(s.called_at is not None for s in self._sources.values())
        for source in [s for s in self._sources.values() if s.called_at is None and s.is_up(now)][:free]:
            source.called_at = now
            self._outbox.actions.append(Dial(source.node, source.at))

    # -- the manifest -------------------------------------------------------------------------------

    def _ask_manifest(self) -> None:
        ready = [s for s in self._sources.values() if s.joined]
        if self._manifest_from is None and ready:
            self._manifest_from = ready[0].node
            self._outbox.actions.append(AskManifest(ready[0].node, self.infohash, self.order.signer))

    def learn(self, manifest: Manifest, held: Bitfield, now: float) -> None:
        """The manifest is stored, and `held` of its pieces (shared with the one who announces)."""
        self.manifest, self._held, self._manifest_from = manifest, held, None
        self._moved_at = now
        for source in [s for s in self._sources.values() if s.joined]:
            try:
                source.held = Bitfield.parse(source.raw_held, manifest.piece_count)
            except ProtocolError:
                self.failed(source.node, Reason.MALFORMED, now)

    # -- pieces -------------------------------------------------------------------------------------

    def wish(self, piece: int, deadline: float) -> None:
        """A guest waits for a piece."""
        if self.manifest is not None and piece < self.manifest.piece_count and piece not in self._held:
            self._wishes[piece] = min(deadline, self._wishes.get(piece, FOREVER))

    def schedule(self, now: float, room: int) -> None:
        """Calls sources, and asks for up to `room` pieces more; wishes are asked in any case."""
        self._call(now)
        if self.manifest is None:
            self._ask_manifest()
            return
        for piece in sorted(self._wishes, key=self._wishes.__getitem__):
            if piece not in self._busy:
                self._ask(piece, WISHED_PER_SOURCE, now)
        while room > 0 and (piece_next := self._first_missing()) is not None:
            if not self._ask(piece_next, ASKS_PER_SOURCE, now):
                self._ask_others(now, room)
                return
            room -= 1

    def _first_missing(self) -> int | None:
        while self._next < self._held.total and (self._next in self._held or self._next in self._busy):
            self._next += 1
        return self._next if self._next < self._held.total else None

    def _ask_others(self, now: float, room: int) -> None:
        """The first that is missing can be had of nobody now; perhaps something after it can."""
        if all(s.held is None or s.held.complete for s in self._sources.values()):
            return  # then they all have their hands full
        for piece in range(self._next + 1, self._held.total):
            if room <= 0 or not self._free(ASKS_PER_SOURCE):
                return
            if piece not in self._held and piece not in self._busy:
                room -= self._ask(piece, ASKS_PER_SOURCE, now)

    def _able(self, piece: int, most: int, but: NodeId | None) -> list[_Source]:
        free = self._free(most)
        return [s for s in free if s.held is not None and piece in s.held and s.node != but]

    def _load(self, node: NodeId) -> int:
        return sum(asked.source == node for asked in self._asked.values())

    def _free(self, most: int) -> list[_Source]:
        known = [source for source in self._sources.values() if source.joined and source.held is not None]
        return [source for source in known if self._load(source.node) < most]

    def _ask(self, piece: int, most: int, now: float, but: NodeId | None = None) -> bool:
        able = self._able(piece, most, but)
        if not able or self.manifest is None:
            return False
        source = min(able, key=lambda s: self._load(s.node))
        number = next(self._outbox.numbers)
        self._outbox.owners[number] = self.infohash
        self._asked[number] = _Asked(source.node, piece, now, now)
        self._busy.add(piece)
        deadline = self._wishes.get(piece, FOREVER)
        slack = NO_DEADLINE_MS if deadline == FOREVER else int(1000 * max(0.0, deadline - now))
        slack_ms = slack if slack == NO_DEADLINE_MS else min(LONGEST_SLACK_MS, slack)
        leaves = self.manifest.leaf_count(piece)
        self._outbox.actions.append(Ask(number, source.node, self.infohash, piece, 0, leaves, slack_ms))
        return True

    def leaf_arrived(self, number: int, now: float) -> None:
        """A source is at work."""
        asked = self._asked.get(number)
        if asked is not None:
            asked.heard_at = now

    def chunk_ended(self, number: int, reason: Reason, now: float) -> int | None:
        """A request is over; its piece if all of it arrived: then `stored` or `not_stored` follows."""
        asked = self._asked.get(number)
        if asked is None:
            return None
        source = self._sources[asked.source]
        if reason is Reason.NONE:
            self._forget(number)
            size = self.manifest.piece_size(asked.piece) if self.manifest else 0
            self.bytes_from[source.node] = self.bytes_from.get(source.node, 0) + size
            return asked.piece
        self._give_up(number, cancel=False)
        if reason is Reason.NOT_HELD and source.held is not None:
            source.held.discard(asked.piece)
        elif reason is not Reason.CANCELLED:
            self.failed(source.node, reason, now)
        return None

    def stored(self, piece: int, now: float) -> None:
        """A piece is in the store, and counted in `held`."""
        self._moved_at = now
        self._busy.discard(piece)
        self._wishes.pop(piece, None)

    def lost(self, piece: int) -> None:
        """The store gave a piece up, or could not take it."""
        self._busy.discard(piece)
        self._next = min(self._next, piece)

    def _forget(self, number: int) -> None:
        del self._asked[number]
        self._outbox.owners.pop(number, None)

    def _give_up(self, number: int, *, cancel: bool = True) -> None:
        if cancel:
            self._outbox.actions.append(Cancel(number))
        self.lost(self._asked[number].piece)
        self._forget(number)

    # -- time -----------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Once a second: who is silent, who could help, and whether there is any hope."""
        for number, asked in list(self._asked.items()):
            if number not in self._asked:
                continue  # its source just failed
            if now - asked.heard_at > SILENT_SECONDS:
                self.failed(asked.source, Reason.TIMEOUT, now)
            elif now - asked.at > RELIEF_SECONDS and self._able(asked.piece, 1, asked.source):
                self._give_up(number)
                self._ask(asked.piece, 1, now, but=asked.source)
        for piece in [piece for piece, deadline in self._wishes.items() if now > deadline + RELIEF_SECONDS]:
            del self._wishes[piece]
        if self._sources and all(s.is_liar for s in self._sources.values()):
            self.failure = Reason.BAD_DATA
        elif now - self._moved_at > GIVE_UP_SECONDS or not self._sources:
            reasons = [s.failed for s in self._sources.values() if s.failed is not Reason.NONE]
            self.failure = reasons[0] if reasons else Reason.TIMEOUT

    def leave(self) -> None:
        """It is over: sources may forget us."""
        for number in list(self._asked):
            self._give_up(number)
        for source in self._sources.values():
            if source.joined:
                self._outbox.actions.append(Send(source.node, Leave(self.infohash)))
