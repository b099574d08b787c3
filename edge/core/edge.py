"""An edge's decisions: it holds whole titles, serves whoever shows a ticket, takes uploads from
those who may publish, and registers what became of them with the tracker."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from edge.core.admission import SLOTS, Admission
from edge.core.crew import CaughtUp, EdgeRates, Forget, Hold, Say, TrackerIs
from shared.core import messages, spare
from shared.core.actions import Action, Hangup, Send
from shared.core.bitfield import Bitfield
from shared.core.bulk import PieceRequest
from shared.core.dice import Dice
from shared.core.entries import rendition_of
from shared.core.errors import ProtocolError, Reason
from shared.core.ids import Address, HostPort, InfoHash, NodeId
from shared.core.manifest import Manifest
from shared.core.messages import (
    Hello,
    Join,
    Leave,
    Message,
    Refusal,
    Register,
    Registered,
    Report,
    Schedule,
    Upload,
    UploadState,
)  # fmt: skip
from shared.core.seeding import Seeding, SeedingStatistics
from shared.core.tracker_link import TrackerLink

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class BeginUpload:
    """A publisher who may do so wants to hand in a file, or to go on with it."""

    node: NodeId
    message: Upload


@dataclass(frozen=True, slots=True)
class PublisherLeft:
    """A publisher's connection ended; its uploads wait for it."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class TellWorkers:
    """Each of our workers, or the one of this name, must know."""

    word: Hold | Forget | TrackerIs | CaughtUp | Say
    worker: int | None = None


@dataclass(frozen=True, slots=True)
class EdgeStatistics:
    """A snapshot for screens."""

    tracker_up: bool
    titles: int
    seeding: SeedingStatistics
    rates: EdgeRates


EdgeAction = Action | BeginUpload | PublisherLeft | TellWorkers


class Edge:
    """The core of an edge."""

    def __init__(self, tracker: Address, admission: Admission, rng: Dice) -> None:
        self.link = TrackerLink(tracker, rng)
        self.seeding = Seeding(tracker.node, SLOTS, sharing=True, finds_slots=True)
        self._admission = admission
        self._rng = rng
        self._at: dict[NodeId, HostPort] = {}
        self._publishers: set[NodeId] = set()
        self._workers: set[int] = set()
        self._elsewhere: dict[NodeId, int] = {}  # publishers connected to a worker, and to which
        self._report_seconds = FOREVER
        self._report_at = FOREVER
        self._rates = EdgeRates(0, 0, 0, 0, 0)
        self._actions: deque[EdgeAction] = deque()

    def hold(self, manifest: Manifest, pieces: frozenset[int], now: float) -> None:
        """This rendition is in the store: serve and announce it."""
        if manifest.infohash not in self.seeding.holdings:
            self.seeding.hold(manifest.infohash, Bitfield(manifest.piece_count, pieces), now)
        for piece in pieces:  # of a title that was damaged and is whole again
            self.seeding.gained(manifest.infohash, piece, now)
        self._tell(Hold(manifest.infohash))

    def forget(self, infohash: InfoHash) -> None:
        """This rendition is in the store no more: serve and announce it no longer."""
        self.seeding.forget(infohash)
        self._tell(Forget(infohash))

    def lost(self, infohash: InfoHash, piece: int, now: float) -> None:
        """The store gave a piece up."""
        self.seeding.lost(infohash, piece, now)
        self._tell(Hold(infohash))

    def register(self, manifest: Manifest) -> int:
        """Tells the tracker of a title; an Answer with this number follows."""
        request = self.link.new_request()
        renditions = (rendition_of(manifest),)
        message = Register(request, manifest.title_id, manifest.title, renditions)
        self.link.ask(request, message)
        return request

    def say(self, node: NodeId, message: UploadState | Refusal) -> None:
        """Answers a publisher."""
        worker = self._elsewhere.get(node)
        if worker is None:
            self._actions.append(Send(node, message))
        else:
            self._actions.append(TellWorkers(Say(node, messages.encode(message)), worker))

    # -- workers, and publishers who are connected to one ------------------------------------------

    def worker_came(self, worker: int) -> None:
        """It is told what all the others know."""
        self._workers.add(worker)
        for infohash in self.seeding.holdings:
            self._actions.append(TellWorkers(Hold(infohash), worker))
        for word in (TrackerIs(self.link.up), CaughtUp()):
            self._actions.append(TellWorkers(word, worker))

    def _tell(self, word: Hold | Forget | TrackerIs) -> None:
        if self._workers:
            self._actions.append(TellWorkers(word))

    def asked_elsewhere(self, worker: int, node: NodeId, at: HostPort, message: Upload) -> None:
        """A publisher said this to a worker."""
        self._elsewhere[node] = worker
        self._upload(message, node, at)

    def left_elsewhere(self, worker: int, node: NodeId) -> None:
        """A worker's publisher is gone, unless it is back at another."""
        if self._elsewhere.get(node) == worker:
            del self._elsewhere[node]
            self._part(node)

    def worker_gone(self, worker: int) -> None:
        """All its publishers are gone with it."""
        self._workers.discard(worker)
        for node in [node for node, at in self._elsewhere.items() if at == worker]:
            self.left_elsewhere(worker, node)

    # -- connections and messages ---------------------------------------------------------------

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        """A node said Hello."""
        self._at[node] = at
        if self.link.connected(node, hello):
            self.seeding.tracker_connected(now)
            self._tell(TrackerIs(True))

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """A connection ended or never came up."""
        self._at.pop(node, None)
        self._part(node)
        self.seeding.disconnected(node)
        if self.link.disconnected(node, now):
            self.seeding.tracker_lost()
            self._report_at = FOREVER
            self._tell(TrackerIs(False))

    def _part(self, node: NodeId) -> None:
        if node in self._publishers:
            self._publishers.discard(node)
            self._actions.append(PublisherLeft(node))

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """Takes one message of a connected node."""
        try:
            self._take(message, sender, now)
        except ProtocolError as error:
            self._actions.append(Hangup(sender, error.reason, error.detail))

    def _take(self, message: Message, sender: NodeId, now: float) -> None:
        match message:
            case Join():
                self.seeding.join(message, sender, now)
            case Leave():
                self.seeding.leave(message, sender)
            case Upload():
                self._upload(message, sender, self._at[sender])
            case Schedule() | Registered() | Refusal() if sender == self.link.tracker.node:
                self._take_tracker(message, now)
            case _:
                raise ProtocolError(Reason.UNEXPECTED, type(message).__name__)

    def _upload(self, message: Upload, sender: NodeId, at: HostPort) -> None:
        if self._admission.may_publish(sender, at):
            self._publishers.add(sender)
            self._actions.append(BeginUpload(sender, message))
        else:
            detail = "your node id is not in the edge's `publishers` setting"
            self.say(sender, Refusal(message.request, Reason.NOT_ALLOWED, detail))

    def _take_tracker(self, message: Schedule | Registered | Refusal, now: float) -> None:
        if isinstance(message, Schedule):
            self.seeding.announce_seconds = float(message.announce_seconds)
            self._report_seconds = float(message.report_seconds)
            self._report_at = now + self._rng.random() * self._report_seconds
        elif not self.link.answered(message.request, message):
            raise ProtocolError(Reason.UNEXPECTED, "an answer to nothing")

    def requested(self, number: int, request: PieceRequest, node: NodeId, size: int, now: float) -> None:
        """A piece request arrived; Serve or Decline follows."""
        self.seeding.requested(number, request, node, size, now)

    def served(self, number: int) -> None:
        """A request that was to be served ended."""
        self.seeding.served(number)

    # -- time and screens -----------------------------------------------------------------------

    def measured(self, rates: EdgeRates) -> None:
        """What the shell measured since the last time."""
        self._rates = rates

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return min(self.seeding.get_timer(), self.link.get_timer(), self._report_at)

    def handle_timer(self, now: float) -> None:
        """Dials, announces, reports: whatever is due."""
        self.link.handle_timer(now)
        self.seeding.set_spare(spare.HIGHEST, now)
        self.seeding.handle_timer(now)
        if now >= self._report_at:
            self._report_at = now + self._report_seconds
            self._actions.append(Send(self.link.tracker.node, self._report()))

    def _report(self) -> Report:
        rates = self._rates
        return Report(
            int(rates.up_rate), int(rates.down_rate), 0, 0, 0,
            rates.uploaded_bytes, rates.held_bytes, rates.connections, 0,
        )  # fmt: skip

    def next_action(self) -> EdgeAction | None:
        """The next order for the shell, or None."""
        if self._actions:
            return self._actions.popleft()
        return self.link.next_action() or self.seeding.next_action()

    def statistics(self) -> EdgeStatistics:
        """A snapshot for screens."""
        titles = len(self.seeding.holdings)
        return EdgeStatistics(self.link.up, titles, self.seeding.statistics(), self._rates)
