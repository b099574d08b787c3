"""A peer as a process: endpoint, core, store, and the player's door over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from random import Random, SystemRandom
from typing import Any

import trio

from peer.asking import FROM_BEFORE, MISSING, Asking
from peer.config import PeerConfig
from peer.core.peer import Peer, PeerSettings
from peer.core.trains import Trains
from peer.core.upload_cap import CapStatistics
from peer.ledger import Ledger
from peer.line_watch import LineWatch
from peer.player import serve_player
from peer.probing import Probing
from peer.reader import DownloadReader, PieceReader
from peer.sharing import Line, Sharing
from peer.titles import JSON
from shared import SOFTWARE, clock, fellows_file
from shared.answers import Answers
from shared.core.actions import Answer, Ask, AskManifest, Cancel, Decline, Remember, Serve
from shared.core.bulk import ManifestRequest, PieceRequest
from shared.core.entries import entry_of
from shared.core.errors import ConfigError, ProtocolError, Reason, Refused
from shared.core.gate import Gate
from shared.core.ids import (
    Address,
    HostPort,
    InfoHash,
    Kind,
    Mode,
    NodeId,
    TitleId,
    parse_addresses,
    parse_host_port,
)
from shared.core.manifest import Manifest
from shared.core.messages import Catalogue, Entry, Message, Refusal
from shared.core.rates import Rates
from shared.data_folder import locked
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.line_meter import LineMeter
from shared.node import IDLE_SECONDS, Introduction, Node, open_node
from shared.piece_store import PieceStore
from shared.serving import Serving, read_request
from shared.stream import Stream

MEASURE_SECONDS = 0.5
MAX_CATALOGUE = 1000  # titles shown on this peer's page
TRACKER_SECONDS = 10.0


class Daemon:
    """A running peer: what the player's door asks of it (`peer.titles.Titles`)."""

    def __init__(
        self, config: PeerConfig, trackers: Sequence[Address], identity: Identity, store: PieceStore,
        ledger: Ledger,
    ) -> None:  # fmt: skip
        mode = Mode(config.mode.value)
        self.tracker, *others = trackers
        settings = PeerSettings(
            self.tracker, mode, float(config.uplink), config.upload_slots, tuple(others),
            fellows_file.load(config.data),
        )  # fmt: skip
        self.identity = identity
        self.core = Peer(settings, Random(SystemRandom().getrandbits(256)))
        self.store = store
        self._arrivals = trio.lowlevel.ParkingLot()
        self._asking = Asking(self.core, store, self._arrived)
        self._serving = Serving(self.core, store, self._pump)
        self._answers = Answers(self._pump)
        self._introduction = Introduction(Kind(config.kind.value), mode, config.region, SOFTWARE)
        self._watched: dict[InfoHash, float] = {}
        self._started_at = trio.current_time()
        self._line: LineMeter
        self._config, self._ledger = config, ledger
        self._watch: LineWatch
        self._sharing: Sharing
        self.node: Node

    def _pump(self) -> None:
        self.node.pump()

    def _arrived(self) -> None:
        self._arrivals.unpark_all()

    # -- running ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def run(self, endpoint: Endpoint) -> AsyncIterator[None]:
        """Takes part in the swarms until the context is left."""
        self._line = LineMeter(endpoint)
        self._watch = LineWatch(endpoint, self.core.cap)
        async with open_node(endpoint, self.core, self._introduction, self._act, self._on_stream) as node:
            self.node = self._asking.node = node
            self._watch.read()
            self._sharing = Sharing(
                self._config, self._ledger, self.core, self._serving, self._line_now, self._pump
            )
            await self._resume()
            node.nursery.start_soon(self._measure)
            node.nursery.start_soon(self._watch.run)
            node.nursery.start_soon(self._sharing.run)
            if self._config.uplink.is_measured:
                trains = Trains(self._config.day_budget)
                probing = Probing(
                    self.core, node, self._watch, trains, lambda: self._sharing.verdict.may_upload
                )
                node.nursery.start_soon(probing.run)
            node.pump()
            try:
                yield
            finally:
                await self._sharing.keep()

    async def _resume(self) -> None:
        """What was held before is served again at once."""
        for infohash in self.store.infohashes():
            manifest = await trio.to_thread.run_sync(self.store.manifest, infohash)
            if manifest is not None:
                held = self.store.held(infohash)
                origins = bytearray([MISSING]) * manifest.piece_count
                for piece in held:
                    origins[piece] = FROM_BEFORE
                self._asking.origins[infohash] = origins
                self.core.hold(manifest, held, clock.now())

    def _act(self, action: Any) -> None:
        match action:
            case Serve() | Decline():
                self._serving.act(action)
            case Ask() | Cancel() | AskManifest():
                self._asking.act(action)
            case Answer():
                self._answers.take(action)
            case Remember():
                fellows_file.save(self._config.data, action.fellows)

    async def _on_stream(self, node: NodeId, stream: Stream) -> None:
        request = await read_request(stream)
        if not isinstance(request, PieceRequest | ManifestRequest):
            raise ProtocolError(Reason.UNEXPECTED, "uploads and probes go to edges")
        await self._serving.answer(node, stream, request)

    async def _measure(self) -> None:
        while True:
            self._line.read()
            self.core.measured(self._rates())
            await trio.sleep(MEASURE_SECONDS)

    def _line_now(self) -> Line:
        return Line(self._watch.sent_bytes(), self.core.cap.belief.rate, self._watch.network)

    async def choose(self, mode: Mode | None, pause_seconds: float | None, metered_here: bool | None) -> None:
        """What the user wants of uploads; see `peer.titles.Titles`."""
        await self._sharing.choose(mode=mode, pause_seconds=pause_seconds, metered_here=metered_here)

    def _rates(self) -> Rates:
        return Rates(
            self._line.up_rate(),
            self._line.down_rate(),
            self._serving.served_bytes,
            self.store.statistics().used_bytes,
            self._line.connections,
        )

    # -- asking the tracker -----------------------------------------------------------------------

    async def _answer(self, request: int) -> Message:
        """The tracker's answer. Raises Refused, also when there is no tracker."""
        message = await self._answers.wait(request)
        if message is None:
            raise Refused(Reason.TIMEOUT, f"the tracker at {self.core.link.tracker.at} is not reached")
        if isinstance(message, Refusal):
            raise Refused(message.reason, message.detail)
        return message

    async def _wait_for_tracker(self) -> None:
        """At the start a tracker may take a moment; later it is there or not."""
        with trio.CancelScope(deadline=self._started_at + TRACKER_SECONDS):
            while not self.core.link.up:  # noqa: ASYNC110  # the core has no events, only verbs
                await trio.sleep(0.02)

    async def catalogue(self) -> list[Entry]:
        """All titles, newest first; without a tracker, those that are held here. Raises Refused."""
        await self._wait_for_tracker()
        if not self.core.link.up:
            return self._held_titles()
        entries: list[Entry] = []
        while len(entries) < MAX_CATALOGUE:
            page = await self._answer(self.core.browse(len(entries)))
            if not isinstance(page, Catalogue):
                raise Refused(Reason.UNEXPECTED, "the tracker's answer is no catalogue")
            entries.extend(page.entries)
            if not page.entries or len(entries) >= page.total:
                break
        return entries

    def _held_titles(self) -> list[Entry]:
        """What can be played without a tracker: a dead one must not stop playback."""
        manifests = (fetch.manifest for fetch in self.core.fetches.values())
        return [entry_of(manifest) for manifest in manifests if manifest is not None]

    async def open_title(self, title_id: TitleId) -> Entry:
        """What a title is; its best rendition's sources are looked for from now on. Raises Refused."""
        entry = await self._describe(title_id)
        self.core.fetch(entry.renditions[0].infohash, clock.now())
        self._pump()
        return entry

    async def _describe(self, title_id: TitleId) -> Entry:
        await self._wait_for_tracker()
        if not self.core.link.up:
            held = [entry for entry in self._held_titles() if entry.title_id == title_id]
            if held:
                return held[0]
        page = await self._answer(self.core.describe(title_id))
        if not isinstance(page, Catalogue) or len(page.entries) != 1:
            raise Refused(Reason.UNKNOWN_TITLE, "the tracker's answer is no title")
        return page.entries[0]

    # -- films ------------------------------------------------------------------------------------

    async def manifest(self, infohash: InfoHash) -> Manifest:
        """A rendition's manifest, as soon as a source has given it. Raises Refused."""
        fetch = self.core.fetch(infohash, clock.now())
        self._pump()
        while fetch.manifest is None:
            if fetch.refused is not None:
                raise Refused(fetch.refused, "the tracker refuses this title")
            with trio.move_on_after(0.2):
                await self._arrivals.park()
        return fetch.manifest

    def open_reader(self, infohash: InfoHash, *, playing: bool) -> PieceReader:
        """A reader for one request."""
        now = clock.now()
        fetch = self.core.fetch(infohash, now)
        if now - self._watched.get(infohash, 0.0) > 1.0:
            self._watched[infohash] = now
            self.node.nursery.start_soon(trio.to_thread.run_sync, self.store.touch, infohash, now)
        kind = PieceReader if playing else DownloadReader
        return kind(fetch, self.store, self._asking, self.node, self._arrivals)

    # -- screens ----------------------------------------------------------------------------------

    def statistics(self) -> Mapping[str, JSON]:
        """The whole peer; see `peer.titles.Titles`."""
        numbers, rates = self.core.statistics(), self._rates()
        state = "connected" if numbers.tracker_up else "not reached; held titles play on"
        return {
            "node": self.identity.id.hex(),
            "kind": self._introduction.kind.value,
            "mode": self._sharing.mode.value,
            "tracker": f"{self.core.link.tracker} ({state})",
            "tracker_address": str(self.tracker),
            "tracker_used": str(self.core.link.tracker),
            "tracker_up": numbers.tracker_up,
            "up_rate": rates.up_rate,
            "down_rate": rates.down_rate,
            "cap_rate": numbers.cap.cap_rate,
            "cap": _cap_figures(numbers.cap),
            "sent_bytes": self._watch.sent_bytes(),
            "sharing": self._sharing.statistics(),
            "uploaded_bytes": rates.uploaded_bytes,
            "edge_bytes": numbers.edge_bytes,
            "peer_bytes": numbers.peer_bytes,
            "wasted_bytes": numbers.wasted_bytes,
            "held_bytes": rates.held_bytes,
            "connections": rates.connections,
            "stalls": numbers.stalls,
        }

    def title_statistics(self, infohash: InfoHash) -> Mapping[str, JSON]:
        """One rendition; see `peer.titles.Titles`."""
        fetch = self.core.fetches.get(infohash)
        if fetch is None or fetch.wishes is None:
            return {}
        rates, manifest, playhead = self._rates(), fetch.wishes.manifest, fetch.wishes.playhead
        return {
            "held": self._asking.origins[infohash].decode(),
            "whole": fetch.wishes.held.complete,
            "length": manifest.length,
            "piece_length": manifest.piece_length,
            "pieces_root": manifest.pieces_root.hex(),
            "edge_bytes": fetch.edge_bytes,
            "peer_bytes": fetch.peer_bytes,
            "down_rate": rates.down_rate,
            "up_rate": rates.up_rate,
            "uploaded_bytes": rates.uploaded_bytes,
            "stalls": playhead.stalls,
            "playhead_bytes": playhead.read_offset,
            "sources": [
                {
                    "node": source.node.hex(),
                    "kind": source.kind.value,
                    "name": f"{source.kind.value} {source.node.hex()[:8]}",
                    "taken_bytes": source.taken_bytes,
                    "rate": source.rate,
                    "joined": source.joined,
                }
                for source in (*fetch.sources.all, *fetch.sources.former.values())
            ],
        }


def _cap_figures(cap: CapStatistics) -> Mapping[str, JSON]:
    return {**asdict(cap), "grounds": cap.grounds.value}


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a running peer can be reached."""

    address: Address
    player: str

    def __str__(self) -> str:
        return f"peer ready {self.address} player {self.player}"


async def serve(
    config: PeerConfig, *, task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED
) -> None:
    """Runs a peer until cancelled; `task_status` gets a Ready once players may come.

    Raises LocalError if a setting, the key, the store or an address cannot be used.
    """
    if config.tracker is None:
        raise ConfigError(
            "peer.tracker: must be set; it is the address string that the tracker prints when it starts"
        )
    trackers = [Address(one.node, one.at) for one in parse_addresses(config.tracker)]
    with locked(config.data, "peer.data"), ExitStack() as stack:
        identity = await trio.to_thread.run_sync(Identity.load, config.data / "key")
        store = await trio.to_thread.run_sync(PieceStore, config.data / "pieces", int(config.quota))
        ledger = await trio.to_thread.run_sync(Ledger, config.data / "uploads.db")
        stack.callback(ledger.close)
        daemon = Daemon(config, trackers, identity, store, ledger)
        cap = daemon.core.cap
        gate: Gate[Any] = Gate(cap.gate_rate())
        listen, player = parse_host_port(config.listen), parse_host_port(config.player)
        async with (
            open_endpoint(
                identity,
                listen.host,
                listen.port,
                gate=gate,
                setting="peer.listen",
                idle_timeout_seconds=IDLE_SECONDS,
            ) as endpoint,
            daemon.run(endpoint),
            trio.open_nursery() as nursery,
        ):
            host, port = await nursery.start(partial(serve_player, daemon, player.host, player.port))
            address = Address(identity.id, endpoint.local)
            task_status.started(Ready(address, f"http://{HostPort(host, port)}"))
            await trio.sleep_forever()
