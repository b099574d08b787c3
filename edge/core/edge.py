"""An edge's decisions: it holds whole titles, serves whoever shows a ticket, takes uploads from
those who may publish, and registers what became of them with the tracker."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from edge.core.admission import SLOTS, Admission
from edge.core.coming import Coming, Wish
from edge.core.crew import CaughtUp, Expect, Forget, Hold, Issuers, Say, TrackerIs
from edge.core.orders import Orders
from edge.core.outbox import GiveUp, Note
from edge.core.outbox import TellWorkers as TellWorkers
from edge.core.shelf import Shelf
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
    AskOpen,
    Evict,
    Fellow,
    Fellows,
    Gone,
    Have,
    HaveMore,
    Hello,
    IsOpen,
    Join,
    Leave,
    Load,
    Message,
    Place,
    Refusal,
    Register,
    Registered,
    Report,
    Schedule,
    Upload,
    UploadState,
    WebSeed,
)  # fmt: skip
from shared.core.rates import Rates
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
class EdgeSettings:
    """What the core needs of the configuration."""

    node: NodeId = NodeId(bytes(32))  # this edge
    capacity_rate: float = 125_000_000.0
    quota_bytes: int = 0  # 0: it takes no orders


@dataclass(frozen=True, slots=True)
class EdgeStatistics:
    """A snapshot for screens."""

    tracker_up: bool
    titles: int
    orders: int  # under way
    seeding: SeedingStatistics
    rates: Rates


EdgeAction = Action | BeginUpload | PublisherLeft | TellWorkers | GiveUp | Note


class Edge:
    """The core of an edge."""

    def __init__(
        self, tracker: Address, admission: Admission, rng: Dice, settings: EdgeSettings | None = None,
        *, others: Sequence[Address] = (), fellows: Sequence[Fellow] = (),
    ) -> None:  # fmt: skip
        """`others`: more trackers of the setting; `fellows`: that were named before."""
        self._settings = settings or EdgeSettings()
        self.link = TrackerLink(tracker, rng, others=others, fellows=fellows)
        self.link.attend(True)
        self.seeding = Seeding(tracker.node, SLOTS, sharing=True, finds_slots=True)
        self.seeding.heed(tracker.node, self.link.issuers)
        self.coming = Coming(self.seeding)
        shelf = Shelf(self._settings.quota_bytes)
        self.orders = Orders(self._settings.node, tracker.node, shelf, self.coming, self.seeding)
        self._watched: dict[int, set[InfoHash]] = {}  # at each worker
        self._admission = admission
        self._rng = rng
        self._at: dict[NodeId, HostPort] = {}
        self._publishers: set[NodeId] = set()
        self._workers: set[int] = set()
        self._elsewhere: dict[NodeId, int] = {}  # publishers connected to a worker, and to which
        self._web_seed_port = 0
        self._report_seconds = FOREVER
        self._report_at = FOREVER
        self._rates = Rates(0, 0, 0, 0, 0)
        self._actions: deque[EdgeAction] = deque()

    def hold(self, manifest: Manifest, pieces: frozenset[int], now: float) -> None:
        """This rendition is in the store: serve and announce it."""
        if manifest.infohash not in self.seeding.holdings:
            self.seeding.hold(manifest.infohash, Bitfield(manifest.piece_count, pieces), now)
        for piece in pieces:  # of a title that was damaged and is whole again
            self.seeding.gained(manifest.infohash, piece, now)
        self.orders.kept(manifest, len(pieces), now)
        self._tell(Hold(manifest.infohash))

    def forget(self, infohash: InfoHash) -> None:
        """This rendition is in the store no more: serve and announce it no longer."""
        self.seeding.forget(infohash)
        self.orders.shelf.remove(infohash)
        self._tell(Forget(infohash))

    def lost(self, infohash: InfoHash, piece: int, now: float) -> None:
        """The store gave a piece up."""
        self.seeding.lost(infohash, piece, now)
        self.orders.lost(infohash, piece)
        self._tell(Hold(infohash))

    def register(self, manifest: Manifest) -> int:
        """Tells the tracker of a title; an Answer with this number follows."""
        request = self.link.new_request()
        renditions = (rendition_of(manifest),)
        message = Register(request, manifest.title_id, manifest.title, renditions)
        self.link.ask(request, message)
        return request

    def open_web_seed(self, port: int) -> None:
        """There is a door for stock clients; the tracker hears of it, now and whenever it comes back."""
        self._web_seed_port = port
        if self.link.up and port:
            self._actions.append(Send(self.link.tracker.node, WebSeed(port)))

    def ask_open(self, infohash: InfoHash) -> int:
        """Asks whether a rendition is for everybody; an Answer with this number follows."""
        request = self.link.new_request()
        self.link.ask(request, AskOpen(request, infohash))
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
        for infohash in self.coming.titles:
            self._actions.append(TellWorkers(Expect(infohash), worker))
        issuers = Issuers(tuple(sorted(self.link.issuers)))
        for word in (issuers, TrackerIs(self.link.up), CaughtUp()):
            self._actions.append(TellWorkers(word, worker))

    def _tell(self, word: Hold | Forget | TrackerIs | Issuers) -> None:
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
        self._watched.pop(worker, None)
        for node in [node for node, at in self._elsewhere.items() if at == worker]:
            self.left_elsewhere(worker, node)

    def watched(self, worker: int, infohash: InfoHash, now: float, *, is_open: bool) -> None:
        """A worker's first guest of a title came, or its last one went."""
        titles = self._watched.setdefault(worker, set())
        if is_open:
            titles.add(infohash)
        else:
            titles.discard(infohash)
        self._note_watched(now)

    def _note_watched(self, now: float) -> None:
        here = [infohash for infohash, holding in self.seeding.holdings.items() if holding.guests]
        self.orders.watched(here, frozenset().union(*self._watched.values()), now)

    def wished(self, wish: Wish, now: float) -> None:
        """A worker's guest waits for a piece."""
        self.coming.wishes.append(wish)
        self.orders.attend(now)

    # -- connections and messages ---------------------------------------------------------------

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        """A node said Hello."""
        self._at[node] = at
        if self.link.connected(node, hello):
            self._heed(node)
            self.seeding.tracker_connected(now)
            self._tell(TrackerIs(True))
        else:
            self.orders.connected(node, now)

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """A connection ended or never came up."""
        self._at.pop(node, None)
        self._part(node)
        self.coming.disconnected(node)
        self.orders.disconnected(node, reason, now)
        if self.link.disconnected(node, now):
            self.seeding.tracker_lost()
            self.orders.tracker_lost()
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
                self.coming.join(message, sender, now)
            case Leave():
                self.seeding.leave(message, sender)
            case Upload():
                self._upload(message, sender, self._at[sender])
            case Schedule() | Registered() | IsOpen() | Refusal() | Fellows() if (
                sender == self.link.tracker.node
            ):
                self._take_tracker(message, now)
            case Place() | Evict() if sender == self.link.tracker.node:
                self.orders.take(message, now)
            case Have() | HaveMore() | Gone() | Refusal() if self.orders.is_source(sender):
                self.orders.hear(message, sender, now)
            case _:
                raise ProtocolError(Reason.UNEXPECTED, type(message).__name__)

    def _upload(self, message: Upload, sender: NodeId, at: HostPort) -> None:
        if self._admission.may_publish(sender, at):
            self._publishers.add(sender)
            self._actions.append(BeginUpload(sender, message))
        else:
            detail = "your node id is not in the edge's `publishers` setting"
            self.say(sender, Refusal(message.request, Reason.NOT_ALLOWED, detail))

    def _heed(self, tracker: NodeId) -> None:
        self.seeding.heed(tracker, self.link.issuers)
        self.orders.heed(tracker)
        self._tell(Issuers(tuple(sorted(self.link.issuers))))

    def _take_tracker(self, message: Schedule | Registered | IsOpen | Refusal | Fellows, now: float) -> None:
        if isinstance(message, Schedule):
            self.seeding.announce_seconds = float(message.announce_seconds)
            self._report_seconds = float(message.report_seconds)
            self._report_at = now + self._rng.random() * self._report_seconds
            self._say_load(now)
            self.open_web_seed(self._web_seed_port)
        elif isinstance(message, Fellows):
            self.link.learn(message)
            self._heed(self.link.tracker.node)
        elif not self.link.answered(message.request, message):
            raise ProtocolError(Reason.UNEXPECTED, "an answer to nothing")

    def requested(self, number: int, request: PieceRequest, node: NodeId, size: int, now: float) -> None:
        """A piece request arrived; Serve or Decline follows."""
        self.coming.requested(number, request, node, size, now)
        self.orders.attend(now)

    def served(self, number: int) -> None:
        """A request that was to be served ended."""
        self.coming.served(number)

    # -- time and screens -----------------------------------------------------------------------

    def measured(self, rates: Rates) -> None:
        """What the shell measured since the last time."""
        self._rates = rates

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        timers = (self.seeding, self.link, self.coming, self.orders)
        return min(self._report_at, *(part.get_timer() for part in timers))

    def handle_timer(self, now: float) -> None:
        """Dials, announces, reports: whatever is due."""
        self.link.handle_timer(now)
        self.seeding.set_spare(spare.HIGHEST, now)
        self.coming.handle_timer(now)
        self.orders.handle_timer(now)
        self.seeding.handle_timer(now)
        if now >= self._report_at:
            self._report_at = now + self._report_seconds
            self._actions.append(Send(self.link.tracker.node, self._report()))
            self._say_load(now)
            self._note_watched(now)

    def set_draining(self, draining: bool, now: float) -> None:
        """From now on nobody new is to be sent here, or again; the tracker hears at once."""
        if draining != self.orders.draining:
            self.orders.draining = draining
            self._say_load(now)

    def _say_load(self, now: float) -> None:
        if not self.link.up:
            return
        rates, settings = self._rates, self._settings
        load = Load(
            int(settings.capacity_rate), int(rates.up_rate), settings.quota_bytes, rates.held_bytes,
            int(1000 * now), int(self.orders.draining),
        )  # fmt: skip
        self._actions.append(Send(self.link.tracker.node, load))

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
        return self.link.next_action() or self.orders.next_action() or self.seeding.next_action()

    def statistics(self) -> EdgeStatistics:
        """A snapshot for screens."""
        titles = len(self.seeding.holdings)
        orders = len(self.orders.fetches)
        return EdgeStatistics(self.link.up, titles, orders, self.seeding.statistics(), self._rates)
