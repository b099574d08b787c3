"""The tracker's orders: which are taken, how far they are, and what goes to make room for them.

An order is one title to hold. The tracker is told of every change of stage and at most twice a second
how far it is. The same order again, or another for the same title, is the same work: it goes on, and
is answered how far it is. Work goes on while the tracker is away; back again, it hears what is held
from the announces, and how far the rest is when it orders that again. After a kill the pieces on
the disk count, and the rest is fetched when the title is ordered again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from edge.core.coming import Coming
from edge.core.crew import Expect, Gained, Hold
from edge.core.outbox import GiveUp, Note, Outbox, TellWorkers
from edge.core.shelf import Kept, Shelf, room_of
from edge.core.title_fetch import TitleFetch
from shared.core.actions import Action, Send
from shared.core.bitfield import Bitfield
from shared.core.errors import Reason
from shared.core.ids import InfoHash, NodeId
from shared.core.manifest import Manifest
from shared.core.messages import Evict, Gone, Have, HaveMore, Place, Placed, PlaceStage, Refusal
from shared.core.seeding import Seeding

MAX_ORDERS = 64  # at once; the tracker gives four, and one for each title that viewers wait for
ASKS_AT_ONCE = 24  # pieces in memory, 256 KiB each; what guests wait for comes on top
SAY_SECONDS = 0.5  # between two words of progress
SAY_ANYWAY_SECONDS = 60.0  # or the tracker would take the order for lost
LOOK_SECONDS = 1.0
FOREVER = float("inf")


@dataclass(slots=True)
class _Said:
    """What the tracker heard of an order last."""

    order: int
    stage: PlaceStage
    permille: int
    at: float


class Orders:
    """What is being fetched for the tracker."""

    def __init__(self, me: NodeId, tracker: NodeId, shelf: Shelf, coming: Coming, seeding: Seeding) -> None:
        self.draining = False
        self.fetches: dict[InfoHash, TitleFetch] = {}
        self.shelf = shelf
        self._me = me
        self._tracker = tracker
        self._coming = coming
        self._seeding = seeding
        self._outbox = Outbox()
        self._before: dict[InfoHash, Kept | None] = {}  # how what is being fetched stood there
        self._current: set[InfoHash] = set()  # what was ordered since the tracker is connected
        self._said: dict[InfoHash, _Said] = {}
        self._watched: frozenset[InfoHash] = frozenset()  # at our workers
        self._look_at = FOREVER
        self._sources: set[NodeId] = set()

    # -- the tracker ------------------------------------------------------------------------------

    def take(self, message: Place | Evict, now: float) -> None:
        """What the tracker says."""
        if isinstance(message, Evict):
            self.shelf.hint(message.infohash)
            return
        fetch = self.fetches.get(message.infohash)
        holding = self._seeding.holdings.get(message.infohash)
        self.shelf.order(message.infohash, now)
        self._current.add(message.infohash)
        self._said.pop(message.infohash, None)
        message = replace(message, sources=tuple(s for s in message.sources if s.node != self._me))
        self._sources.update(source.node for source in message.sources)
        if fetch is not None:
            fetch.renew(message)
            stage = PlaceStage.FETCHING if fetch.manifest else PlaceStage.ACCEPTED
            self._say(message, stage, now, permille=fetch.permille)
        elif holding is not None and holding.held.complete:
            self._say(message, PlaceStage.HELD, now, permille=1000)
        else:
            self._begin(message, now)
        self._schedule(now)

    def heed(self, tracker: NodeId) -> None:
        """This is the tracker from now on; another than before knows nothing of what that one ordered."""
        if tracker != self._tracker:
            self._tracker = tracker
            self.tracker_lost()

    def tracker_lost(self) -> None:
        """It forgets its orders with the connection; the work goes on."""
        self._current.clear()
        self._said.clear()

    def _begin(self, order: Place, now: float) -> None:
        reason, detail, going = self._judge(order, now)
        if reason is not Reason.NONE:
            self._note(f"an order is declined: {detail}", is_warning=True)
            self._say(order, PlaceStage.DECLINED, now, reason=reason, detail=detail)
            return
        for infohash in going:
            self.give_up(infohash)
        self._before[order.infohash] = self.shelf.titles.get(order.infohash)
        self.shelf.put(order.infohash, Kept(room_of(order.length), now))
        self._coming.expect(order.infohash)
        self._tell(Expect(order.infohash))
        self.fetches[order.infohash] = TitleFetch(order, self._outbox, now)
        self._look_at = min(self._look_at, now + LOOK_SECONDS)
        self._note(f"ordered to hold {_short(order.infohash)}, {order.length} bytes")
        self._say(order, PlaceStage.ACCEPTED, now)

    def _judge(self, order: Place, now: float) -> tuple[Reason, str, list[InfoHash]]:
        if self.draining:
            return Reason.SHUTDOWN, "this edge is draining", []
        if len(self.fetches) >= MAX_ORDERS:
            return Reason.BUSY, f"{MAX_ORDERS} orders are under way", []
        known = self.shelf.titles.get(order.infohash)
        missing = room_of(order.length) - (known.size_bytes if known else 0)
        going = self.shelf.make_room(missing, self._busy(order.infohash), now)
        if going is None:
            return Reason.NO_SPACE, "all that is here is worth more; raise the edge's quota", []
        return Reason.NONE, "", going

    def _busy(self, *more: InfoHash) -> set[InfoHash]:
        watched = {infohash for infohash, holding in self._seeding.holdings.items() if holding.guests}
        return watched | self._watched | self.fetches.keys() | set(more)

    def room_for(self, size_bytes: int, now: float) -> list[InfoHash]:
        """What goes to make room for an upload, as far as that is possible."""
        going = self.shelf.make_room(size_bytes, self._busy(), now) or []
        for infohash in going:
            self.give_up(infohash)
        return going

    def give_up(self, infohash: InfoHash) -> None:
        """This title goes."""
        self._note(f"{_short(infohash)} is given up for others")
        self.shelf.remove(infohash)
        self._outbox.actions.append(GiveUp(infohash))

    # -- what is here -------------------------------------------------------------------------------

    def watched(self, here: Iterable[InfoHash], at_workers: frozenset[InfoHash], now: float) -> None:
        """Guests have these titles open."""
        self._watched = at_workers
        for infohash in (*here, *at_workers):
            self.shelf.use(infohash, now)

    def kept(self, manifest: Manifest, held: int, now: float) -> None:
        """The store holds so many pieces of this title."""
        if manifest.infohash in self.fetches:
            return
        whole = held == manifest.piece_count
        size = room_of(manifest.length)
        part = size if whole else size * held // manifest.piece_count
        before = self.shelf.titles.get(manifest.infohash)
        used_at = before.used_at if before else now
        self.shelf.put(manifest.infohash, Kept(part, used_at, manifest.signer_id == self._me, whole))

    def manifest_of(self, infohash: InfoHash) -> Manifest | None:
        """The manifest of what is being fetched, once it is here."""
        fetch = self.fetches.get(infohash)
        return fetch.manifest if fetch is not None else None

    # -- sources ------------------------------------------------------------------------------------

    def connected(self, node: NodeId, now: float) -> None:
        """A connection came up."""
        for fetch in self.fetches.values():
            fetch.connected(node, now)
        self._schedule(now)

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """A connection ended or never came up."""
        for fetch in self.fetches.values():
            fetch.failed(node, Reason.TIMEOUT if reason is Reason.NONE else reason, now)
        self._schedule(now)

    def is_source(self, node: NodeId) -> bool:
        """Whether an order named this node, and it may still answer what we asked."""
        return node in self._sources

    def hear(self, message: Have | HaveMore | Gone | Refusal, sender: NodeId, now: float) -> None:
        """What a source says. Raises ProtocolError for a bitfield or pieces that cannot be."""
        match message:
            case Have() | HaveMore() | Gone():
                fetch = self.fetches.get(message.infohash)
                if fetch is not None and isinstance(message, Have):
                    fetch.have(sender, message.bitfield)
                elif fetch is not None and isinstance(message, HaveMore | Gone):
                    fetch.note(sender, message.pieces, gone=isinstance(message, Gone))
            case Refusal():
                for fetch in self.fetches.values():
                    fetch.refused(message.request, sender, message.reason, now)
        self._schedule(now)

    # -- what arrives -------------------------------------------------------------------------------

    def learned(self, manifest: Manifest, held: frozenset[int], now: float) -> None:
        """A manifest is in the store, with `held` of its pieces."""
        fetch = self.fetches.get(manifest.infohash)
        if fetch is None:
            return
        if manifest.length != fetch.order.length:
            self._fail(fetch, Reason.BAD_DATA, now)
            return
        self._coming.hold(manifest.infohash, Bitfield(manifest.piece_count, held), now)
        self._tell(Hold(manifest.infohash))
        fetch.learn(manifest, self._seeding.holdings[manifest.infohash].held, now)
        self._progress(fetch, now)
        self._schedule(now)

    def manifest_failed(self, infohash: InfoHash, node: NodeId, reason: Reason, now: float) -> None:
        """A source could not give the manifest, or gave a wrong one."""
        if infohash in self.fetches:
            self.fetches[infohash].failed(node, reason, now)
            self._schedule(now)

    def leaf_arrived(self, number: int, now: float) -> None:
        """A source is at work."""
        infohash = self._outbox.owners.get(number)
        if infohash in self.fetches:
            self.fetches[infohash].leaf_arrived(number, now)

    def chunk_ended(self, number: int, reason: Reason, now: float) -> bool:
        """A request is over; whether its piece is wanted: then `stored` or `not_stored` follows."""
        infohash = self._outbox.owners.get(number)
        if infohash not in self.fetches:
            return False
        piece = self.fetches[infohash].chunk_ended(number, reason, now)
        self._schedule(now)
        return piece is not None

    def stored(self, infohash: InfoHash, piece: int, now: float) -> None:
        """A piece is in the store: guests may have it."""
        fetch = self.fetches.get(infohash)
        if infohash in self._seeding.holdings:
            self._coming.gained(infohash, piece, now)
            self._tell(Gained(infohash, piece))
        if fetch is not None:
            fetch.stored(piece, now)
            self._progress(fetch, now)
            self._schedule(now)

    def not_stored(self, infohash: InfoHash, now: float) -> None:
        """The disk would not take a piece."""
        if infohash in self.fetches:
            self._fail(self.fetches[infohash], Reason.NO_SPACE, now)

    def lost(self, infohash: InfoHash, piece: int) -> None:
        """The store gave a piece up."""
        if infohash in self.fetches:
            self.fetches[infohash].lost(piece)

    # -- time ---------------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return self._look_at

    def handle_timer(self, now: float) -> None:
        """Looks after all that is under way."""
        if now < self._look_at:
            return
        for fetch in list(self.fetches.values()):
            fetch.look(now)
            if fetch.failure is not None:
                self._fail(fetch, fetch.failure, now)
            else:
                self._progress(fetch, now)
        self._look_at = now + LOOK_SECONDS if self.fetches else FOREVER
        self._schedule(now)

    def attend(self, now: float) -> None:
        """Guests may wait for pieces: these come first."""
        if self._coming.wishes:
            self._schedule(now)

    def _schedule(self, now: float) -> None:
        while self._coming.wishes:
            wish = self._coming.wishes.popleft()
            if wish.infohash in self.fetches:
                self.fetches[wish.infohash].wish(wish.piece, wish.deadline)
        for fetch in sorted(self.fetches.values(), key=lambda f: (f.order.before, f.order.order)):
            room = ASKS_AT_ONCE - sum(one.under_way for one in self.fetches.values())
            fetch.schedule(now, room)

    # -- ends and words -----------------------------------------------------------------------------

    def _progress(self, fetch: TitleFetch, now: float) -> None:
        if fetch.manifest is None:
            self._say(fetch.order, PlaceStage.ACCEPTED, now)
        elif not fetch.is_whole:
            self._say(fetch.order, PlaceStage.FETCHING, now, permille=fetch.permille)
        else:
            self._end(fetch, now)
            del self._before[fetch.infohash]
            self.kept(fetch.manifest, fetch.manifest.piece_count, now)
            self._say(fetch.order, PlaceStage.HELD, now, permille=1000)
            self._note(f"{_short(fetch.infohash)} is held: {_shares(fetch.bytes_from)}")

    def _fail(self, fetch: TitleFetch, reason: Reason, now: float) -> None:
        self._end(fetch, now)
        holding, before = self._seeding.holdings.get(fetch.infohash), self._before.pop(fetch.infohash)
        if holding is not None and fetch.manifest is not None:
            self.kept(fetch.manifest, len(holding.held), now)
        elif holding is not None and before is not None:
            self.shelf.put(fetch.infohash, before)
        else:
            self.shelf.remove(fetch.infohash)
        why = reason.name.lower().replace("_", " ")
        self._note(f"{_short(fetch.infohash)} is not held: {why}", is_warning=True)
        self._say(fetch.order, PlaceStage.DECLINED, now, permille=fetch.permille, reason=reason)

    def _end(self, fetch: TitleFetch, now: float) -> None:
        fetch.leave()
        del self.fetches[fetch.infohash]
        self._coming.ended(fetch.infohash, now)
        self._tell(Expect(fetch.infohash, ended=True))

    def _say(
        self,
        order: Place,
        stage: PlaceStage,
        now: float,
        *,
        permille: int = 0,
        reason: Reason = Reason.NONE,
        detail: str = "",
    ) -> None:
        if order.infohash not in self._current:
            return  # the tracker knows nothing of this order: it has begun anew
        said = self._said.get(order.infohash)
        if said is not None and (said.order, said.stage) == (order.order, stage):
            pause = SAY_SECONDS if permille != said.permille else SAY_ANYWAY_SECONDS
            if now - said.at < pause:
                return
        self._said[order.infohash] = _Said(order.order, stage, permille, now)
        if stage in (PlaceStage.HELD, PlaceStage.DECLINED):
            self._current.discard(order.infohash)
            del self._said[order.infohash]
        self._outbox.actions.append(Send(self._tracker, Placed(order.order, stage, permille, reason, detail)))

    def _tell(self, word: Expect | Gained | Hold) -> None:
        self._outbox.actions.append(TellWorkers(word))

    def _note(self, text: str, *, is_warning: bool = False) -> None:
        self._outbox.actions.append(Note(text, is_warning))

    def next_action(self) -> Action | GiveUp | Note | TellWorkers | None:
        """The next order for the shell, or None."""
        return self._outbox.actions.popleft() if self._outbox.actions else None


def _short(infohash: InfoHash) -> str:
    return infohash.hex()[:8]


def _shares(bytes_from: dict[NodeId, int]) -> str:
    shares = [f"{size} bytes from {node.hex()[:8]}" for node, size in bytes_from.items()]
    return ", ".join(shares) or "it was here"
