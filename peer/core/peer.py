"""A peer's decisions: it fetches what is watched, serves what it holds, and tells the tracker.

The serving half is `shared.core.seeding`, each rendition's fetching half is `peer.core.fetch`;
here they meet: messages are handed to whom they concern, pieces that arrived are held and
announced, and the upload cap sets the class of spare upload.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from peer.core.company import Company, Neighbour
from peer.core.fetch import Fetch
from peer.core.tally import Tally
from peer.core.upload_cap import CapStatistics, UploadCap
from shared.core.actions import Action, Hangup, Send
from shared.core.bitfield import Bitfield
from shared.core.bulk import PieceRequest
from shared.core.dice import Dice
from shared.core.errors import ProtocolError, Reason
from shared.core.ids import Address, HostPort, InfoHash, Kind, Mode, NodeId, TitleId
from shared.core.manifest import Manifest
from shared.core.messages import (
    Browse,
    Catalogue,
    Describe,
    Fellow,
    Fellows,
    Gone,
    Have,
    HaveMore,
    Hello,
    Join,
    Leave,
    Locate,
    Message,
    Redirect,
    Refusal,
    Report,
    Schedule,
    Share,
)  # fmt: skip
from shared.core.questions import Questions
from shared.core.rates import Rates
from shared.core.seeding import Seeding, SeedingStatistics
from shared.core.tracker_link import TrackerLink

REPORT_SHARES = 8
SPARE_EVERY_SECONDS = 1.0
ATTENTIVE_SECONDS = 60.0  # after something was wanted, a tracker that dies is missed at once
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """What the core needs of the configuration."""

    tracker: Address
    mode: Mode
    uplink_rate: float  # bytes per second
    upload_slots: int = 8
    other_trackers: tuple[Address, ...] = ()  # of the setting, too
    fellows: tuple[Fellow, ...] = ()  # that the tracker named before


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """A snapshot for screens; byte counts are of verified film, not of the wire."""

    tracker_up: bool
    edge_bytes: int
    peer_bytes: int
    wasted_bytes: int
    stalls: int
    cap: CapStatistics
    seeding: SeedingStatistics
    taken: tuple[Share, ...]


class Peer:
    """The core of a desktop peer or set-top box."""

    def __init__(self, settings: PeerSettings, rng: Dice) -> None:
        self._settings = settings
        self._rng = rng
        self._company = Company()
        self.link = TrackerLink(
            settings.tracker, rng, others=settings.other_trackers, fellows=settings.fellows
        )
        sharing = settings.mode is Mode.SHARED
        self.cap = UploadCap(settings.uplink_rate)
        slots = self.cap.slots(settings.upload_slots)
        self.seeding = Seeding(settings.tracker.node, slots, sharing=sharing)
        self.seeding.heed(self.link.tracker.node, self.link.issuers)
        self.fetches: dict[InfoHash, Fetch] = {}
        self._tally = Tally()
        self._kinds: dict[NodeId, Kind] = {}
        self._taken: dict[NodeId, int] = {}
        self._wasted_bytes = 0
        self._locates: Questions[InfoHash] = Questions()
        self._report_seconds = FOREVER
        self._report_at = FOREVER
        self._spare_at = 0.0
        self._wanted_at = -FOREVER
        self._rates = Rates(0, 0, 0, 0, 0)
        self._actions: deque[Action] = deque()

    # -- what the user wants --------------------------------------------------------------------

    def fetch(self, infohash: InfoHash, now: float) -> Fetch:
        """Begins, or goes on, with one rendition; held pieces come with `hold` before."""
        fetch = self._fetch_of(infohash)
        fetch.look_again(now)
        return fetch

    def _fetch_of(self, infohash: InfoHash) -> Fetch:
        if infohash not in self.fetches:
            self.fetches[infohash] = Fetch(infohash, self._rng, self._company)
        return self.fetches[infohash]

    def _awake(self) -> list[Fetch]:
        return [self.fetches[infohash] for infohash in self._company.awake]

    def hold(self, manifest: Manifest, pieces: frozenset[int], now: float) -> None:
        """Pieces of this rendition are in the store: serve them, announce them."""
        held = Bitfield(manifest.piece_count, pieces)
        self.seeding.hold(manifest.infohash, held, now)
        held = self.seeding.holdings[manifest.infohash].held
        self._fetch_of(manifest.infohash).learn(manifest, held, now)

    def browse(self, skip: int) -> int:
        """Asks for a page of the catalogue; an Answer with this number follows."""
        request = self.link.new_request()
        self.link.ask(request, Browse(request, skip))
        return request

    def describe(self, title: TitleId) -> int:
        """Asks what a title is; an Answer with this number follows."""
        request = self.link.new_request()
        self.link.ask(request, Describe(request, title))
        return request

    # -- connections ------------------------------------------------------------------------------

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        """A node said Hello."""
        self._kinds[node] = hello.kind
        self._company.connected[node] = Neighbour(at, hello.kind, hello.mode is Mode.SHARED)
        if self.link.connected(node, hello):
            self._locates.forget()
            self._tally.forget()
            self.seeding.heed(node, self.link.issuers)
            self.seeding.tracker_connected(now)
            for fetch in self._awake():
                fetch.locate_at = min(fetch.locate_at, now)
        for fetch in self.fetches.values():
            fetch.connected(node)

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """A connection ended or never came up."""
        if self.link.disconnected(node, now):
            self.seeding.tracker_lost()
            self._report_at = FOREVER
        self._company.connected.pop(node, None)
        if node not in self._taken:
            self._kinds.pop(node, None)  # strangers come and go without end
        self.seeding.disconnected(node)
        for fetch in self.fetches.values():
            fetch.drop(node, now)

    # -- messages ---------------------------------------------------------------------------------

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """Takes one message of a connected node."""
        try:
            self._take(message, sender, now)
        except ProtocolError as error:
            self._actions.append(Hangup(sender, error.reason, error.detail))

    def _take(self, message: Message, sender: NodeId, now: float) -> None:
        match message:
            case Join():
                self._joined(message, sender, now)
            case Leave():
                self.seeding.leave(message, sender)
            case Have() | HaveMore() | Gone():
                self._take_holdings(message, sender, now)
            case Refusal():
                self._refused(message, sender, now)
            case Schedule() | Redirect() | Catalogue() | Fellows() if sender == self.link.tracker.node:
                self._take_tracker(message, now)
            case _:
                raise ProtocolError(Reason.UNEXPECTED, type(message).__name__)

    def _joined(self, message: Join, sender: NodeId, now: float) -> None:
        """Whoever comes to us with a ticket fetches the same: it will soon have something for us, too."""
        fetch = self.fetches.get(message.infohash)
        if self.seeding.join(message, sender, now) and fetch is not None and fetch.wanted(now):
            fetch.sources.met(sender)

    def _take_holdings(self, message: Have | HaveMore | Gone, sender: NodeId, now: float) -> None:
        fetch = self.fetches.get(message.infohash)
        if fetch is None:
            return  # we left while it was on its way
        match message:
            case Have():
                fetch.have(sender, message.bitfield, now)
            case HaveMore():
                fetch.gained(sender, message.pieces, now)
            case Gone():
                fetch.gave_up(sender, message.pieces)

    def _take_tracker(self, message: Schedule | Redirect | Catalogue | Fellows, now: float) -> None:
        match message:
            case Fellows():
                self.link.learn(message)
                self.seeding.heed(self.link.tracker.node, self.link.issuers)
            case Schedule():
                self.seeding.announce_seconds = float(message.announce_seconds)
                self._report_seconds = float(message.report_seconds)
                self._report_at = now + self._rng.random() * self._report_seconds
            case Redirect():
                infohash = self._located(message.request)
                if infohash != message.infohash or infohash not in self.fetches:
                    raise ProtocolError(Reason.UNEXPECTED, "a redirect nobody asked for")
                self.fetches[infohash].redirected(message, now)
            case Catalogue():
                if not self.link.answered(message.request, message):
                    raise ProtocolError(Reason.UNEXPECTED, "a page nobody asked for")

    def _located(self, request: int) -> InfoHash | None:
        """What an answer is about, however late; None if it is none."""
        return self._locates.answered(request) or self._locates.answered_late(request)

    def _refused(self, message: Refusal, sender: NodeId, now: float) -> None:
        if sender == self.link.tracker.node:
            infohash = self._located(message.request)
            if infohash is not None:
                self.fetches[infohash].refuse(message.reason)
            elif not self.link.answered(message.request, message):
                raise ProtocolError(Reason.UNEXPECTED, "a refusal of nothing")
            return
        for fetch in self.fetches.values():
            if fetch.join_refused(message.request, sender, message.reason, now):
                return

    # -- bulk -------------------------------------------------------------------------------------

    def requested(self, number: int, request: PieceRequest, node: NodeId, size: int, now: float) -> None:
        """A piece request arrived; Serve or Decline follows."""
        self.seeding.requested(number, request, node, size, now)

    def leaf_arrived(self, number: int, node: NodeId, size: int, now: float) -> bool:
        """A checked leaf of one of our requests; whether it is still wanted."""
        fetch = self._owner(number)
        if fetch is None:
            self._wasted_bytes += size  # given up; it was on its way
            return False
        self._taken[node] = self._taken.get(node, 0) + size
        return fetch.leaf_arrived(number, size, now)

    def chunk_ended(self, number: int, reason: Reason, now: float) -> None:
        """One of our requests is over."""
        fetch = self._owner(number)
        if fetch is not None:
            fetch.chunk_ended(number, reason, now)

    def served(self, number: int) -> None:
        """A request that was to be served ended."""
        self.seeding.served(number)

    def request_place(self, number: int) -> tuple[InfoHash, int] | None:
        """Swarm and piece of one of our running requests."""
        fetch = self._owner(number)
        return (fetch.infohash, fetch.piece_of(number)) if fetch is not None else None

    def _owner(self, number: int) -> Fetch | None:
        infohash = self._company.owners.get(number)
        return self.fetches[infohash] if infohash is not None else None

    def stored(self, infohash: InfoHash, piece: int, held: bool, now: float) -> None:
        """The store took a piece, or could not."""
        if held:
            self.seeding.gained(infohash, piece, now)
        self.fetches[infohash].stored(piece, held, now)

    def lost(self, infohash: InfoHash, piece: int, now: float) -> None:
        """The store gave a piece up."""
        self.seeding.lost(infohash, piece, now)
        fetch = self.fetches.get(infohash)
        if fetch is not None and fetch.wishes is not None:
            fetch.faded(piece)

    # -- time -------------------------------------------------------------------------------------

    def measured(self, rates: Rates) -> None:
        """What the shell measured since the last time; goes into the next Report."""
        self._rates = rates
        self.cap.used(rates.up_rate)

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        timer = min(self.seeding.get_timer(), self.link.get_timer(), self._report_at, self._spare_at)
        for fetch in self._awake():
            timer = min(timer, fetch.get_timer())
            if self.link.up:
                timer = min(timer, fetch.locate_at)
        return timer

    def handle_timer(self, now: float) -> None:
        """Dials, announces, reports, locates, rescues: whatever is due."""
        if any(fetch.wanted(now) for fetch in self._awake()):
            self._wanted_at = now
        self.link.attend(now - self._wanted_at < ATTENTIVE_SECONDS)
        self.link.handle_timer(now)
        self._locates.give_up(now)  # the fetch asks again by itself
        if now >= self._spare_at:
            self._spare_at = now + SPARE_EVERY_SECONDS
            self.seeding.set_spare(self.cap.spare_class(self.seeding.guests_served), now)
        self.seeding.handle_timer(now)
        for fetch in self._awake():
            fetch.handle_timer(now)
            if now >= fetch.locate_at:
                self._locate(fetch, now)
            if fetch.asleep():
                del self._company.awake[fetch.infohash]
        if now >= self._report_at:
            self._report_at = now + self._report_seconds
            self._actions.append(Send(self.link.tracker.node, self._report(now)))

    def _locate(self, fetch: Fetch, now: float) -> None:
        if not fetch.wanted(now):
            fetch.locate_at = FOREVER
            return
        if not self.link.up:
            return
        fetch.located(now)
        request = self.link.new_request()
        self._locates.ask(request, fetch.infohash, now)
        stretch = fetch.wishes.stretch(now) if fetch.wishes else 0
        self._actions.append(Send(self.link.tracker.node, Locate(request, fetch.infohash, stretch)))

    def _report(self, now: float) -> Report:
        statistics = self.statistics()
        rates = self._rates
        return Report(
            up_rate=int(rates.up_rate),
            down_rate=int(rates.down_rate),
            cap_rate=int(statistics.cap.cap_rate) if self.seeding.sharing else 0,
            edge_bytes=statistics.edge_bytes,
            peer_bytes=statistics.peer_bytes,
            uploaded_bytes=rates.uploaded_bytes,
            held_bytes=rates.held_bytes,
            connections=rates.connections,
            stalls=statistics.stalls,
            shares=statistics.taken[:REPORT_SHARES],
            run=self._tally.run(now),
            uses=self._tally.news(self.fetches.values(), self.seeding.given),
        )

    def next_action(self) -> Action | None:
        """The next order for the shell, or None."""
        if self._actions:
            return self._actions.popleft()
        order = self.link.next_action() or self.seeding.next_action()
        if order is None and self._company.actions:
            return self._company.actions.popleft()
        return order

    def statistics(self) -> PeerStatistics:
        """A snapshot for screens and reports."""
        fetches = self.fetches.values()
        taken = sorted(self._taken.items(), key=lambda item: -item[1])
        return PeerStatistics(
            tracker_up=self.link.up,
            edge_bytes=sum(f.edge_bytes for f in fetches),
            peer_bytes=sum(f.peer_bytes for f in fetches),
            wasted_bytes=self._wasted_bytes + sum(f.wasted_bytes for f in fetches),
            stalls=sum(f.wishes.playhead.stalls for f in fetches if f.wishes is not None),
            cap=self.cap.statistics(),
            seeding=self.seeding.statistics(),
            taken=tuple(Share(node, size) for node, size in taken),
        )

    def kind_of(self, node: NodeId) -> Kind | None:
        """What a node said it is, once it was connected."""
        return self._kinds.get(node)

    def an_edge(self) -> NodeId | None:
        """An edge that is connected, if there is one."""
        connected = self._company.connected
        return next((node for node in connected if self._kinds.get(node) is Kind.EDGE), None)
