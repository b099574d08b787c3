"""A worker's decisions: it serves whoever shows a ticket, and passes publishers' words to the lead."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from edge.core.admission import SLOTS
from edge.core.coming import Coming
from edge.core.crew import Asked, Lost, PublisherGone, Wanted, Watched
from shared.core import messages
from shared.core.actions import Action, Hangup, Send
from shared.core.bitfield import Bitfield
from shared.core.bulk import PieceRequest
from shared.core.errors import ProtocolError, Reason
from shared.core.ids import HostPort, InfoHash, NodeId
from shared.core.manifest import Manifest
from shared.core.messages import Hello, Join, Leave, Message, Upload
from shared.core.seeding import Seeding


@dataclass(frozen=True, slots=True)
class TellLead:
    """The lead must know."""

    word: Lost | Wanted | Watched | Asked | PublisherGone


WorkerAction = Action | TellLead


class Worker:
    """The core of a worker. The lead alone speaks to the tracker."""

    def __init__(self, tracker: NodeId) -> None:
        self.seeding = Seeding(tracker, SLOTS, sharing=True, announces=False)
        self.coming = Coming(self.seeding)
        self._watched: set[InfoHash] = set()  # as the lead knows it
        self._at: dict[NodeId, HostPort] = {}
        self._publishers: set[NodeId] = set()
        self._has_lead = False
        self._actions: deque[WorkerAction] = deque()

    # -- the lead -------------------------------------------------------------------------------

    def lead_came(self) -> None:
        """There is a lead, perhaps a new one."""
        self._lose_publishers()
        self._has_lead = True
        self._watched.clear()

    def lead_gone(self) -> None:
        """Nobody takes uploads, and nobody hears the tracker, until there is another."""
        self._has_lead = False
        self._lose_publishers()
        self.tracker_is(up=False, now=0.0)
        for infohash in self.coming.titles:
            self.coming.ended(infohash, 0.0)

    def _lose_publishers(self) -> None:
        # They come back by themselves, and are told how far they are.
        for node in self._publishers:
            self._actions.append(Hangup(node, Reason.SHUTDOWN, "the edge begins anew; come back"))
        self._publishers.clear()

    def tracker_is(self, *, up: bool, now: float) -> None:
        """Whether tickets can be renewed."""
        if up:
            self.seeding.tracker_connected(now)
        else:
            self.seeding.tracker_lost()

    def heed(self, issuers: frozenset[NodeId]) -> None:
        """Whose tickets count from now on."""
        self.seeding.heed(self.seeding.tracker, issuers)

    def hold(self, manifest: Manifest, pieces: frozenset[int], now: float) -> None:
        """This title is in the store."""
        if manifest.infohash not in self.seeding.holdings:
            self.coming.hold(manifest.infohash, Bitfield(manifest.piece_count, pieces), now)
        before = self.seeding.holdings[manifest.infohash].held
        for piece in range(manifest.piece_count):
            if piece in pieces:
                self.gained(manifest.infohash, piece, now)
            elif piece in before:
                self.seeding.lost(manifest.infohash, piece, now)

    def expect(self, infohash: InfoHash, now: float, *, ended: bool) -> None:
        """This title is on its way here, or no more."""
        if ended:
            self.coming.ended(infohash, now)
        else:
            self.coming.expect(infohash)

    def gained(self, infohash: InfoHash, piece: int, now: float) -> None:
        """A piece came into the store."""
        holding = self.seeding.holdings.get(infohash)
        if holding is not None and piece not in holding.held:
            self.coming.gained(infohash, piece, now)

    def forget(self, infohash: InfoHash) -> None:
        """It is there no more."""
        self.seeding.forget(infohash)

    def lost(self, infohash: InfoHash, piece: int, now: float) -> None:
        """The store gave a piece up."""
        self.seeding.lost(infohash, piece, now)
        self._actions.append(TellLead(Lost(infohash, piece)))

    def say(self, node: NodeId, message: Message) -> None:
        """The lead's answer to a publisher."""
        if node in self._publishers:
            self._actions.append(Send(node, message))

    # -- connections and messages ---------------------------------------------------------------

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        """A node said Hello."""
        self._at[node] = at

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """A connection ended."""
        self._at.pop(node, None)
        self.coming.disconnected(node)
        if node in self._publishers:
            self._publishers.discard(node)
            self._actions.append(TellLead(PublisherGone(node)))

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """Takes one message of a connected node."""
        try:
            self._take(message, sender, now)
        except ProtocolError as error:
            self._actions.append(Hangup(sender, error.reason, error.detail))

    def _take(self, message: Message, sender: NodeId, now: float) -> None:
        match message:
            case Join():
                self.coming.join(message, sender, now)
            case Leave():
                self.seeding.leave(message, sender)
            case Upload():
                self._upload(message, sender)
            case _:
                raise ProtocolError(Reason.UNEXPECTED, type(message).__name__)

    def _upload(self, message: Upload, sender: NodeId) -> None:
        if not self._has_lead:
            self._actions.append(Hangup(sender, Reason.SHUTDOWN, "the edge begins anew; come back"))
            return
        self._publishers.add(sender)
        at = self._at[sender]
        self._actions.append(TellLead(Asked(sender, at.host, at.port, messages.encode(message))))

    def requested(self, number: int, request: PieceRequest, node: NodeId, size: int, now: float) -> None:
        """A piece request arrived; Serve or Decline follows."""
        self.coming.requested(number, request, node, size, now)
        while self.coming.wishes:
            wish = self.coming.wishes.popleft()
            self._actions.append(TellLead(Wanted(wish.infohash, wish.piece, wish.deadline)))

    def served(self, number: int) -> None:
        """A request that was to be served ended."""
        self.coming.served(number)

    def look_around(self) -> None:
        """Tells the lead which titles have guests, where that changed."""
        open_now = {infohash for infohash, holding in self.seeding.holdings.items() if holding.guests}
        for infohash in open_now ^ self._watched:
            self._actions.append(TellLead(Watched(infohash, infohash in open_now)))
        self._watched = open_now

    # -- time -----------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return min(self.seeding.get_timer(), self.coming.get_timer())

    def handle_timer(self, now: float) -> None:
        """Tells guests what changed, and those who waited long enough."""
        self.coming.handle_timer(now)
        self.seeding.handle_timer(now)

    def next_action(self) -> WorkerAction | None:
        """The next order for the shell, or None."""
        return self._actions.popleft() if self._actions else self.seeding.next_action()
