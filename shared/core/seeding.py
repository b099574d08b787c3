"""Holding and serving, the same for edges and peers: who joined, who is told what we hold,
which requests are answered next, and what the tracker is announced.

Guests join a swarm with a ticket; they get our bitfield once and changes batched at 250 ms.
Requests wait in one queue, earliest deadline first, for one of `slots` places; a guest over
its fair part of the queue is told BUSY, so that it asks somebody else instead of waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from shared.core import tickets
from shared.core.actions import Action, Decline, Send, Serve
from shared.core.bitfield import Bitfield
from shared.core.bulk import NO_DEADLINE_MS, PieceRequest
from shared.core.errors import ProtocolError, Reason, Refused
from shared.core.guests import FOREVER, MAX_GUESTS, Guest, Holding
from shared.core.ids import InfoHash, NodeId
from shared.core.messages import Announce, Event, Gone, Have, HaveMore, Join, Leave, Refusal
from shared.core.slots import Slots

HAVE_BATCH_SECONDS = 0.25
HAVE_BATCH_PIECES = 1024
QUEUE_PER_GUEST = 16
SERVING_PER_GUEST = 2  # one on the wire, one behind it: the most urgent piece is whole first


@dataclass(slots=True)
class Waiting:
    """A piece request that was not answered yet, or is being answered."""

    node: NodeId
    request: PieceRequest
    deadline: float
    size: int
    serving: bool = False


@dataclass(frozen=True, slots=True)
class SeedingStatistics:
    """Counters since start; `spare` is the class announced."""

    guests: int
    waiting: int
    serving: int
    served: int
    declined: int
    spare: int


class Seeding:
    """The serving half of an edge or a peer."""

    def __init__(
        self,
        tracker: NodeId,
        slots: int,
        *,
        sharing: bool,
        announce_seconds: float = 60.0,
        announces: bool = True,
        finds_slots: bool = False,
    ):
        """`slots`: pieces sent at once; at most, where as many are to be found as the line needs."""
        self.tracker = tracker
        self.fellows: frozenset[NodeId] = frozenset()  # trackers whose tickets count, too
        self._announces = announces  # else another process of this node does
        self._slots = Slots(slots)
        if not finds_slots:
            self._slots.count = slots
        self.sharing = sharing
        self.announce_seconds = announce_seconds
        self.tracker_reachable = False
        self.holdings: dict[InfoHash, Holding] = {}
        self.given: dict[InfoHash, int] = {}  # bytes that arrived whole at others
        self._requests: dict[int, Waiting] = {}
        self._actions: deque[Action] = deque()
        self._served = 0
        self._declined = 0
        self._spare = 7
        self._numbers = count(1)
        self._turns: dict[NodeId, int] = {}  # when each guest had its last one
        self._is_short = False  # of slots: somebody waits for nothing else

    # -- what we hold ---------------------------------------------------------------------

    def hold(self, infohash: InfoHash, held: Bitfield, now: float) -> None:
        """A swarm is known (its manifest is here); announced at once."""
        if infohash not in self.holdings:
            self.holdings[infohash] = Holding(held, announce_at=now, completed=held.complete)

    def forget(self, infohash: InfoHash) -> None:
        """The swarm is held no more."""
        if self.holdings.pop(infohash, None) is not None:
            self._announce(infohash, Event.STOPPED, 0, 0)

    def gained(self, infohash: InfoHash, piece: int, now: float) -> None:
        """A verified piece is in the store."""
        holding = self.holdings[infohash]
        if piece in holding.held:
            return
        holding.held.add(piece)
        holding.news.append(piece)
        holding.tell_at = min(holding.tell_at, now + HAVE_BATCH_SECONDS)
        first = len(holding.held) == 1
        if first or (holding.held.complete and not holding.completed):
            holding.announce_at = now  # becoming a source, or a seeder, is news to the tracker

    def lost(self, infohash: InfoHash, piece: int, now: float) -> None:
        """The store gave a piece up."""
        holding = self.holdings.get(infohash)
        if holding is not None and piece in holding.held:
            holding.held.discard(piece)
            holding.completed = False
            holding.losses.append(piece)
            holding.tell_at = min(holding.tell_at, now + HAVE_BATCH_SECONDS)

    def unpromise(self, infohash: InfoHash, now: float) -> None:
        """What is missing of a promised swarm will not come after all, if anything is."""
        holding = self.holdings.get(infohash)
        if holding is not None and holding.promised:
            holding.promised = False
            if not holding.held.complete:
                holding.losses += [piece for piece in range(holding.held.total) if piece not in holding.held]
                holding.tell_at = min(holding.tell_at, now + HAVE_BATCH_SECONDS)

    # -- guests -----------------------------------------------------------------------------

    def join(self, message: Join, sender: NodeId, now: float) -> bool:
        """A node shows its ticket; it gets our bitfield or a refusal. Whether it is a guest now."""
        try:
            guest, holding = self._admit(message, sender, now)
        except Refused as refusal:
            self._send(sender, Refusal(message.request, refusal.reason, refusal.detail))
            return False
        before = holding.guests.get(sender) or holding.gone_guests.pop(sender, None)
        guest.taken_bytes = before.taken_bytes if before else 0
        holding.guests[sender] = guest
        offered = Bitfield.full(holding.held.total) if holding.promised else holding.held
        self._send(sender, Have(message.request, message.infohash, offered.to_wire()))
        return True

    def _admit(self, message: Join, sender: NodeId, now: float) -> tuple[Guest, Holding]:
        ticket = tickets.check(
            message.ticket, tracker=self.tracker, fellows=self.fellows,
            viewer=sender, infohash=message.infohash, now=now,
        )  # fmt: skip
        holding = self.holdings.get(message.infohash)
        if holding is None:
            raise Refused(Reason.UNKNOWN_TITLE)
        if not self.sharing:
            raise Refused(Reason.NOT_SHARING)
        if len(holding.guests) >= MAX_GUESTS and sender not in holding.guests:
            raise Refused(Reason.BUSY, "too many guests")
        return Guest(ticket.expires_at, ticket.quota_bytes), holding

    def leave(self, message: Leave, sender: NodeId) -> None:
        """A guest wants no more of a swarm."""
        holding = self.holdings.get(message.infohash)
        if holding is not None:
            holding.part(sender)

    def disconnected(self, node: NodeId) -> None:
        """A connection is gone, and its requests with it."""
        self._turns.pop(node, None)
        for holding in self.holdings.values():
            holding.part(node)
        for number in [n for n, waiting in self._requests.items() if waiting.node == node]:
            self._served += self._requests.pop(number).serving
        self._serve_next()

    # -- requests ---------------------------------------------------------------------------

    def may_read_manifest(self, infohash: InfoHash, node: NodeId) -> Reason:
        """Manifests go to guests, and to the tracker, which lets guests in. NONE is yes."""
        holding = self.holdings.get(infohash)
        if holding is None:
            return Reason.UNKNOWN_TITLE
        if not self.sharing:
            return Reason.NOT_SHARING
        welcome = node in holding.guests or node == self.tracker
        return Reason.NONE if welcome else Reason.TICKET_INVALID

    def requested(self, number: int, request: PieceRequest, node: NodeId, size: int, now: float) -> None:
        """A piece request of `size` bytes arrived; Serve or Decline follows for `number`."""
        reason = self._judge(request, node, size, now)
        if reason is not Reason.NONE:
            self.decline(number, reason)
            return
        self.holdings[request.infohash].guests[node].taken_bytes += size
        slack = FOREVER if request.slack_ms == NO_DEADLINE_MS else request.slack_ms / 1000
        self._requests[number] = Waiting(node, request, now + slack, size)
        self._serve_next()
        self._slots.look(is_short=self._is_short, now=now)

    def _judge(self, request: PieceRequest, node: NodeId, size: int, now: float) -> Reason:
        holding = self.holdings.get(request.infohash)
        if holding is None:
            return Reason.UNKNOWN_TITLE
        if not self.sharing:
            return Reason.NOT_SHARING
        guest = holding.guests.get(node)
        if guest is None:
            return Reason.TICKET_INVALID
        # While the tracker cannot be reached nobody can renew a ticket: a dead tracker
        # must not stop playback, so those who came in with a good one stay.
        if now > guest.expires_at + tickets.CLOCK_SKEW_SECONDS and self.tracker_reachable:
            return Reason.TICKET_EXPIRED
        if guest.taken_bytes + size > guest.quota_bytes:
            return Reason.NOT_ALLOWED
        if request.piece not in holding.held:
            return Reason.NOT_HELD
        mine = sum(1 for waiting in self._requests.values() if waiting.node == node)
        return Reason.BUSY if mine >= QUEUE_PER_GUEST else Reason.NONE

    def _serve_next(self) -> None:
        serving = [waiting.node for waiting in self._requests.values() if waiting.serving]
        self._is_short = False
        for number in self._in_order():
            waiting = self._requests[number]
            self._is_short = len(serving) >= self._slots.count
            if self._is_short:
                return
            if serving.count(waiting.node) < SERVING_PER_GUEST:
                waiting.serving = True
                serving.append(waiting.node)
                self._turns[waiting.node] = next(self._numbers)
                self._actions.append(Serve(number))

    def _in_order(self) -> list[int]:
        """Requests that wait: earliest deadline first; of those without, whose guest had the last turn
        longest ago, or whoever asks most would get most."""
        idle = [
            (w.deadline, self._turns.get(w.node, 0), n) for n, w in self._requests.items() if not w.serving
        ]
        return [number for _, _, number in sorted(idle)]

    def served(self, number: int) -> None:
        """A request ended: answered, declined by the shell, or given up by the asker."""
        waiting = self._requests.pop(number, None)
        if waiting is not None:
            self._served += waiting.serving
            if waiting.serving:
                self._slots.ended(waiting.size)
            self._serve_next()

    def gave(self, infohash: InfoHash, size: int) -> None:
        """So many bytes of a piece have arrived at somebody."""
        self.given[infohash] = self.given.get(infohash, 0) + size

    def stop_sharing(self, now: float) -> None:
        """Direct mode, pause or an empty budget: what waits is declined, what runs is the shell's."""
        self._set_sharing(False, now)
        for number in [n for n, waiting in self._requests.items() if not waiting.serving]:
            del self._requests[number]
            self.decline(number, Reason.NOT_SHARING)

    def decline(self, number: int, reason: Reason) -> None:
        """A request is answered with a reason."""
        self._declined += 1
        self._actions.append(Decline(number, reason))

    def resume_sharing(self, now: float) -> None:
        """Uploads are welcome again, and the tracker hears of it."""
        self._set_sharing(True, now)

    def _set_sharing(self, sharing: bool, now: float) -> None:
        if sharing != self.sharing:
            self.sharing = sharing
            for holding in self.holdings.values():
                holding.announce_at = min(holding.announce_at, now)

    # -- announcing --------------------------------------------------------------------------

    def tracker_connected(self, now: float) -> None:
        """The tracker may have forgotten us: announce everything as new."""
        self.tracker_reachable = True
        for holding in self.holdings.values():
            holding.started = False
            holding.announce_at = now

    def heed(self, tracker: NodeId, issuers: frozenset[NodeId]) -> None:
        """Whom to announce to, and whose tickets count from now on."""
        self.tracker, self.fellows = tracker, issuers

    def tracker_lost(self) -> None:
        """Nothing to announce to."""
        self.tracker_reachable = False

    @property
    def _can_announce(self) -> bool:
        return self.tracker_reachable and self._announces

    def set_spare(self, spare: int, now: float) -> None:
        """The class of spare upload changed: the tracker hears at once."""
        if spare != self._spare:
            self._spare = spare
            for holding in self.holdings.values():
                holding.announce_at = min(holding.announce_at, now)

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called; infinity for never."""
        timer = FOREVER
        for holding in self.holdings.values():
            timer = min(timer, holding.tell_at)
            if self._can_announce:
                timer = min(timer, holding.announce_at)
        return timer

    def handle_timer(self, now: float) -> None:
        """Sends what is due: batched changes to guests, announces to the tracker."""
        for infohash, holding in self.holdings.items():
            if holding.tell_at <= now:
                self._tell_guests(infohash, holding)
            if self._can_announce and holding.announce_at <= now:
                self._announce_holding(infohash, holding, now)

    def _tell_guests(self, infohash: InfoHash, holding: Holding) -> None:
        news = [piece for piece in holding.news if piece in holding.held]
        gone = [piece for piece in holding.losses if piece not in holding.held]
        holding.news, holding.losses, holding.tell_at = [], [], FOREVER
        for node in holding.guests:
            for batch in _batches(news):
                self._send(node, HaveMore(infohash, batch))
            for batch in _batches(gone):
                self._send(node, Gone(infohash, batch))

    def _announce_holding(self, infohash: InfoHash, holding: Holding, now: float) -> None:
        holding.announce_at = now + self.announce_seconds
        event = Event.UPDATE
        if not holding.started:
            event = Event.STARTED
        elif holding.held.complete and not holding.completed:
            event = Event.COMPLETED
        holding.started = True
        holding.completed = holding.held.complete
        held = holding.held
        self._announce(infohash, event, len(held), held.total, held.summary())

    def _announce(self, infohash: InfoHash, event: Event, held: int, total: int, summary: int = 0) -> None:
        spare = self._spare if self.sharing else 0
        if self._can_announce:
            self._send(self.tracker, Announce(infohash, event, held, total, spare, summary))

    def _send(self, to: NodeId, message: Have | HaveMore | Gone | Refusal | Announce) -> None:
        self._actions.append(Send(to, message))

    def next_action(self) -> Action | None:
        """The next order for the shell, or None."""
        return self._actions.popleft() if self._actions else None

    @property
    def guests_served(self) -> int:
        """How many guests have requests here at present."""
        return len({waiting.node for waiting in self._requests.values()})

    def statistics(self) -> SeedingStatistics:
        """A snapshot for screens and metrics."""
        serving = sum(1 for waiting in self._requests.values() if waiting.serving)
        guests = {node for holding in self.holdings.values() for node in holding.guests}
        waiting = len(self._requests) - serving
        return SeedingStatistics(len(guests), waiting, serving, self._served, self._declined, self._spare)


def _batches(pieces: list[int]) -> Iterator[tuple[int, ...]]:
    for start in range(0, len(pieces), HAVE_BATCH_PIECES):
        yield tuple(pieces[start : start + HAVE_BATCH_PIECES])


def check_request(request: PieceRequest, leaf_count: int) -> None:
    """Raises ProtocolError if the request asks for leaves the piece has not."""
    if request.first_leaf + request.leaf_count > leaf_count:
        raise ProtocolError(Reason.MALFORMED, f"leaves beyond the {leaf_count} of piece {request.piece}")
