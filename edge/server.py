"""The edge as a process: endpoint, core, store, and the uploads over them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Any

import trio

from edge.config import EdgeConfig
from edge.core.admission import Admission
from edge.core.edge import BeginUpload, Edge, EdgeSettings, PublisherLeft, TellWorkers
from edge.core.outbox import GiveUp, Note
from edge.fetching import Fetching
from edge.ingest import Ingest
from edge.lead import Crew
from edge.media.child import Limits
from edge.probes import Probes
from edge.quarantine import sweep
from edge.web_seed import WebSeed
from shared import SOFTWARE, clock, fellows_file
from shared.answers import Answers
from shared.core.actions import Answer, Ask, AskManifest, Cancel, Decline, Remember, Serve
from shared.core.bulk import ProbeRequest, UploadRequest
from shared.core.errors import ConfigError
from shared.core.ids import Address, Kind, Mode, NodeId, parse_addresses, parse_host_port
from shared.core.manifest import Manifest
from shared.core.rates import Rates
from shared.data_folder import locked
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.line_meter import LineMeter
from shared.node import IDLE_SECONDS, Introduction, Node, open_node
from shared.own_address import own_host, reachable
from shared.piece_store import PieceStore
from shared.serving import Serving, read_request
from shared.stream import Stream

log = logging.getLogger(__name__)

MEASURE_SECONDS = 0.5
QUARANTINE = "quarantine"  # uploads until they are titles


class Server:
    """A running edge."""

    def __init__(
        self, config: EdgeConfig, trackers: Sequence[Address], identity: Identity, store: PieceStore
    ) -> None:
        tracker, *others = trackers
        admission = Admission(config.publisher_ids(), config.local_publishers, own_host())
        settings = EdgeSettings(identity.id, float(config.capacity), int(config.quota))
        self.core = Edge(
            tracker, admission, Random(SystemRandom().getrandbits(256)), settings,
            others=others, fellows=fellows_file.load(config.data),
        )  # fmt: skip
        self._folder = config.data
        self.store = store
        self._fetching = Fetching(self.core, store, self._pump)
        self._identity = identity
        self._answers = Answers(self._pump)
        limits = Limits(memory_bytes=int(config.media_memory), wall_seconds=float(config.media_time))
        self._ingest = Ingest(
            self.core,
            identity,
            store,
            config.data / QUARANTINE,
            limits,
            int(config.max_upload),
            tracker,
            self._pump,
            self._answers.wait,
            self._fetching.make_room,
        )
        self.crew = Crew(self.core, store, self._ingest, self._pump)
        self._serving = Serving(self.core, store, self._pump)
        self._probes = Probes()
        self._web_seed = WebSeed(self.core, store, self._answers.wait, config.http_rate)
        self._http = config.http
        self._introduction = Introduction(Kind.EDGE, Mode.SHARED, config.region, SOFTWARE)
        self._line: LineMeter
        self.node: Node

    def _pump(self) -> None:
        self.node.pump()

    @asynccontextmanager
    async def run(self, endpoint: Endpoint) -> AsyncIterator[None]:
        """Serves until the context is left."""
        self._line = LineMeter(endpoint)
        async with open_node(endpoint, self.core, self._introduction, self._act, self._on_stream) as node:
            self.node = node
            self._ingest.nursery = node.nursery
            self._fetching.node = node
            await self._resume()
            node.nursery.start_soon(self._measure)
            node.nursery.start_soon(self._ingest.keep_swept)
            if self._http is not None:
                at = parse_host_port(self._http)
                self.core.open_web_seed(await node.nursery.start(self._web_seed.serve, at))
            node.pump()
            yield

    def set_draining(self, draining: bool) -> None:
        """The tracker shall send nobody new, or again."""
        log.info("this edge %s", "drains: nobody new is sent here" if draining else "drains no more")
        self.core.set_draining(draining, clock.now())
        self._pump()

    async def _resume(self) -> None:
        for infohash in self.store.infohashes():
            manifest = await trio.to_thread.run_sync(self.store.manifest, infohash)
            if manifest is None:
                continue
            held = self.store.held(infohash)
            if self._was_cut(manifest, held):
                log.warning("%s was not filed to its end and is removed; publish it again", manifest.title)
                await trio.to_thread.run_sync(self.store.remove, infohash)
                continue
            await trio.to_thread.run_sync(self.store.pin, infohash)
            self.core.hold(manifest, held, clock.now())
            if len(held) == manifest.piece_count:
                self._ingest.know(manifest)

    def _was_cut(self, manifest: Manifest, held: frozenset[int]) -> bool:
        """Whether this is a title that was being filed here when the process died.

        Its pieces went in one after the other. One that lost a piece to the disk has a hole
        instead, and what it still has may be the only copy.
        """
        ours = manifest.signer_id == self._identity.id
        return ours and len(held) < manifest.piece_count and held == frozenset(range(len(held)))

    def _act(self, action: Any) -> None:
        match action:
            case Serve() | Decline():
                self._serving.act(action)
            case BeginUpload():
                self._ingest.begin(action.node, action.message)
            case PublisherLeft():
                self._ingest.forget(action.node)
            case Answer():
                self._answers.take(action)
            case Remember():
                fellows_file.save(self._folder, action.fellows)
            case TellWorkers():
                self.crew.tell(action)
            case Ask() | Cancel() | AskManifest() | GiveUp() | Note():
                self._fetching.act(action)

    async def _on_stream(self, node: NodeId, stream: Stream) -> None:
        request = await read_request(stream)
        if isinstance(request, UploadRequest):
            await self._ingest.receive(node, stream, request)
        elif isinstance(request, ProbeRequest):
            await self._probes.answer(node, stream, request, self.node.endpoint.lull)
        else:
            await self._serving.answer(node, stream, request)

    async def _measure(self) -> None:
        while True:
            self._line.read()
            own = Rates(
                self._line.up_rate() + self._web_seed.up_rate(),
                self._line.down_rate(),
                self._serving.served_bytes + self._web_seed.sent_bytes,
                self.store.statistics().used_bytes,
                self._line.connections,
            )
            self.core.measured(self.crew.with_own(own))
            await trio.sleep(MEASURE_SECONDS)


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a running edge can be reached."""

    address: Address
    set_draining: Callable[[bool], None]

    def __str__(self) -> str:
        return f"edge ready {self.address}"


def trackers_of(config: EdgeConfig) -> list[Address]:
    """The trackers' addresses, ours first. Raises ConfigError if none is set."""
    if config.tracker is None:
        raise ConfigError(
            "edge.tracker: must be set; it is the address string that the tracker prints when it starts"
        )
    return [Address(one.node, one.at) for one in parse_addresses(config.tracker)]


async def open_server(config: EdgeConfig, identity: Identity) -> Server:
    """A server over this edge's folder. Raises LocalError."""
    store = await trio.to_thread.run_sync(_open_store, config)
    return Server(config, trackers_of(config), identity, store)


async def serve(
    config: EdgeConfig, *, task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED
) -> None:
    """Runs an edge until cancelled, all of it in this process; `task_status` gets a Ready once it answers.

    Raises LocalError if a setting, the key, the store or an address cannot be used.
    """
    trackers_of(config)
    with locked(config.data, "edge.data"):
        identity = await trio.to_thread.run_sync(Identity.load, config.data / "key")
        server = await open_server(config, identity)
        listen = parse_host_port(config.listen)
        async with (
            open_endpoint(
                identity, listen.host, listen.port, setting="edge.listen", idle_timeout_seconds=IDLE_SECONDS
            ) as endpoint,
            server.run(endpoint),
        ):
            at = reachable(endpoint.local)
            task_status.started(Ready(Address(identity.id, at), server.set_draining))
            await trio.sleep_forever()


def _open_store(config: EdgeConfig) -> PieceStore:
    sweep(config.data / QUARANTINE)
    return PieceStore(config.data / "pieces", int(config.quota), durable=True)
