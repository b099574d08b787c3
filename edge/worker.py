"""A worker as a process: an endpoint at its berth, and a core that serves what the lead has stored."""

from __future__ import annotations

import array
import fcntl
import logging
import socket
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from edge.channel import Channel, ChannelEnded
from edge.config import EdgeConfig
from edge.core.crew import (
    CaughtUp,
    Chunk,
    Drained,
    Expect,
    Forget,
    Gained,
    Hold,
    Issuers,
    Say,
    Stray,
    TrackerIs,
    Word,
)
from edge.core.worker import TellLead, Worker
from edge.piped import pipe
from edge.probes import Probes
from shared import SOFTWARE, clock
from shared.core import messages
from shared.core.actions import Decline, Serve
from shared.core.bulk import ProbeRequest, UploadRequest
from shared.core.errors import Reason, Refused
from shared.core.ids import Address, InfoHash, Kind, Mode, NodeId
from shared.core.rates import Rates
from shared.endpoint import Endpoint
from shared.line_meter import LineMeter
from shared.node import Introduction, Node, open_node
from shared.piece_store import PieceStore
from shared.serving import Serving, read_request
from shared.stream import Stream

log = logging.getLogger(__name__)

MEASURE_SECONDS = 0.5
LOOK_SECONDS = 0.05  # how often a worker that is leaving looks whether it may
GENTLE_SECONDS = 5.0  # after its grace: guests are sent away when nothing is under way, then anyway


class WorkerServer:
    """A running worker."""

    def __init__(self, config: EdgeConfig, tracker: Address, store: PieceStore) -> None:
        self.core = Worker(tracker.node)
        self.caught_up = trio.Event()
        self._store = store
        self._serving = Serving(self.core, store, self._pump)
        self._probes = Probes()
        self._introduction = Introduction(Kind.EDGE, Mode.SHARED, config.region, SOFTWARE)
        self._named: set[InfoHash] = set()  # by the lead that is here now
        self._lead: Channel | None = None
        self._heir: Channel | None = None
        self._node: Node | None = None

    def _pump(self) -> None:
        if self._node is not None:
            self._node.pump()

    # -- the lead ---------------------------------------------------------------------------------

    async def follow(self, sock: socket.socket) -> None:
        """Task: a lead, from the introduction to its end."""
        channel = Channel(sock)
        self._lead = channel
        self._named.clear()
        self.core.lead_came()
        self._pump()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.write_forever)
                while True:
                    word, _ = await channel.receive()
                    await self._take(word)
                    self._pump()
        except* ChannelEnded as group:
            log.debug("the lead: %s", group.exceptions[0])
        finally:
            channel.close()
            if self._lead is channel:
                self._lead = None
                self.core.lead_gone()
                self._pump()

    async def _take(self, word: Word) -> None:
        match word:
            case Hold():
                await self._hold(InfoHash(word.infohash))
            case Expect():
                self.core.expect(InfoHash(word.infohash), clock.now(), ended=word.ended)
            case Gained():
                self._store.look_for(InfoHash(word.infohash), word.piece)
                self.core.gained(InfoHash(word.infohash), word.piece, clock.now())
            case Forget():
                await self._forget(InfoHash(word.infohash))
            case TrackerIs():
                self.core.tracker_is(up=word.up, now=clock.now())
            case Issuers():
                self.core.heed(frozenset(NodeId(node) for node in word.trackers))
            case CaughtUp():
                for infohash in set(self.core.seeding.holdings) - self._named:
                    await self._forget(infohash)
                self.caught_up.set()
            case Say():
                self.core.say(NodeId(word.node), messages.decode(word.body))
            case Stray():
                self.take_stray(word)
            case _:
                raise ChannelEnded(f"the lead said {type(word).__name__}")

    async def _hold(self, infohash: InfoHash) -> None:
        self._named.add(infohash)
        await trio.to_thread.run_sync(self._store.look_again, infohash)
        manifest = await trio.to_thread.run_sync(self._store.manifest, infohash)
        if manifest is None:
            self.core.forget(infohash)
        else:
            self.core.hold(manifest, self._store.held(infohash), clock.now())

    async def _forget(self, infohash: InfoHash) -> None:
        self._named.discard(infohash)
        self.core.forget(infohash)
        await trio.to_thread.run_sync(self._store.look_again, infohash)

    # -- viewers and publishers ---------------------------------------------------------------------

    @asynccontextmanager
    async def run(self, endpoint: Endpoint) -> AsyncIterator[None]:
        """Serves until the context is left."""
        async with open_node(endpoint, self.core, self._introduction, self._act, self._on_stream) as node:
            self._node = node
            node.nursery.start_soon(self._measure, endpoint)
            node.pump()
            yield
            self._node = None

    def _act(self, action: Any) -> None:
        match action:
            case Serve() | Decline():
                self._serving.act(action)
            case TellLead() if self._lead is not None:
                self._lead.send(action.word)

    async def _on_stream(self, node: NodeId, stream: Stream) -> None:
        request = await read_request(stream)
        if isinstance(request, ProbeRequest):
            assert self._node is not None  # the stream came over it
            await self._probes.answer(node, stream, request, self._node.endpoint.lull)
        elif not isinstance(request, UploadRequest):
            await self._serving.answer(node, stream, request)
        elif self._lead is None:
            raise Refused(Reason.SHUTDOWN, "the edge begins anew; come back")
        else:
            near, far = socket.socketpair()
            self._lead.send(Chunk(node, request.encode()), far)
            await pipe(stream, request.length, near)

    async def _measure(self, endpoint: Endpoint) -> None:
        line = LineMeter(endpoint)
        while True:
            line.read()
            self.core.look_around()
            self._pump()
            if self._lead is not None:
                served = self._serving.served_bytes
                self._lead.send(Rates(line.up_rate(), line.down_rate(), served, 0, line.connections))
            await trio.sleep(MEASURE_SECONDS)

    # -- another worker before or after this one ------------------------------------------------------

    def take_stray(self, stray: Stray) -> None:
        """A stranger's datagram that another process received."""
        if self._node is not None:
            self._node.endpoint.take(stray.datagram, tuple(stray.sender))

    def stand_for(self, berth: int) -> None:
        """The process at another of this post's berths is gone: who still writes to it is told so."""
        if self._node is not None:
            self._node.endpoint.berth = self._node.endpoint.berth.standing_for(berth)

    async def inherit(self, sock: socket.socket) -> None:
        """Task: takes what the worker before passes on, until it has gone."""
        channel = Channel(sock)
        try:
            while True:
                word, _ = await channel.receive()
                if isinstance(word, Stray):
                    self.take_stray(word)
        except ChannelEnded:
            channel.close()

    async def leave(self, heir: Channel, grace_seconds: float, supervisor: Channel) -> None:
        """Task: takes nobody new, serves who is here for so long, then says that it has drained."""
        node = self._node
        assert node is not None

        def pass_on(datagram: bytes, sender: Any) -> None:
            heir.send(Stray(tuple(sender), datagram))

        self._heir = heir
        node.endpoint.pass_on = pass_on
        with trio.move_on_after(grace_seconds):
            while not self._is_empty(node):  # noqa: ASYNC110  # nobody tells
                await trio.sleep(LOOK_SECONDS)
        with trio.move_on_after(GENTLE_SECONDS):
            while node.dismiss_idle(Reason.SHUTDOWN):  # noqa: ASYNC110  # nobody tells
                await trio.sleep(LOOK_SECONDS)
        supervisor.send(Drained())

    def _is_empty(self, node: Node) -> bool:
        now = node.endpoint.statistics()
        return not now.connections and not now.half_open

    async def flush(self) -> None:
        """Returns when all that was passed on has left."""
        if self._heir is not None:
            await self._heir.flush()


async def wait_read(sock: socket.socket) -> None:
    """Returns when nothing waits in the socket, which the kernel has ceased to fill."""
    size = array.array("i", [1])
    while size[0]:
        await trio.sleep(LOOK_SECONDS)
        fcntl.ioctl(sock, termios.FIONREAD, size)
