"""The lead's side of its workers: what they report, what they must know, whom their publishers ask."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from edge.channel import Channel, ChannelEnded
from edge.core.coming import Wish
from edge.core.crew import (
    Asked,
    Chunk,
    Loads,
    Lost,
    PublisherGone,
    Stray,
    Wanted,
    Watched,
    Word,
)
from edge.core.edge import Edge, TellWorkers
from edge.ingest import Ingest
from edge.piped import PipedStream
from shared import clock
from shared.core import bulk, messages
from shared.core.bulk import UploadRequest
from shared.core.errors import ConnectionLost, LocalError, ProtocolError, Reason, RemoteError
from shared.core.ids import HostPort, NodeId
from shared.core.messages import Upload
from shared.core.rates import Rates
from shared.piece_store import PieceStore

log = logging.getLogger(__name__)

MAX_STRAYS = 1024  # that wait for a worker


class Crew:
    """The workers of this lead; none where one process is the whole edge."""

    def __init__(self, core: Edge, store: PieceStore, ingest: Ingest, pump: Callable[[], None]) -> None:
        self._core = core
        self._store = store
        self._ingest = ingest
        self._pump = pump
        self._channels: dict[int, Channel] = {}
        self._serving: list[int] = []  # those that report: strangers may go to them
        self._strays: deque[Stray] = deque(maxlen=MAX_STRAYS)
        self._loads = Loads()

    def tell(self, action: TellWorkers) -> None:
        """Carries out what the core decided."""
        for name, channel in self._channels.items():
            if action.worker in (None, name):
                channel.send(action.word)

    def with_own(self, own: Rates) -> Rates:
        """The load of the whole node."""
        return self._loads.with_own(own)

    def pass_on(self, datagram: bytes, sender: Any) -> None:
        """A stranger came to the lead, which serves nobody: a worker shall."""
        stray = Stray(tuple(sender), datagram)
        if not self._serving:
            self._strays.append(stray)
            return
        # One stranger's datagrams must meet at one worker.
        chosen = self._serving[sender[1] % len(self._serving)]
        self._channels[chosen].send(stray)

    async def lead(self, name: int, sock: socket.socket) -> None:
        """Task: one worker, from the introduction to its end."""
        channel = Channel(sock)
        self._channels[name] = channel
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.write_forever)
                self._core.worker_came(name)
                self._pump()
                await self._listen(name, channel, nursery)
        except* ChannelEnded as group:
            log.debug("worker %d: %s", name, group.exceptions[0])
        finally:
            self._part(name)
            channel.close()

    def _part(self, name: int) -> None:
        del self._channels[name]
        self._loads.gone(name)
        if name in self._serving:
            self._serving.remove(name)
        self._core.worker_gone(name)
        self._pump()

    async def _listen(self, name: int, channel: Channel, nursery: trio.Nursery) -> None:
        while True:
            word, sock = await channel.receive()
            if isinstance(word, Chunk) and sock is not None:
                nursery.start_soon(self._receive, word, sock)
            else:
                await self._take(name, word)
                self._pump()

    async def _take(self, name: int, word: Word) -> None:
        match word:
            case Rates():
                self._loads.take(name, word)
                self._now_serves(name)
            case Asked():
                try:
                    upload = messages.decode(word.body)
                except ProtocolError as error:
                    raise ChannelEnded(f"a worker passed on what is no message: {error}") from error
                if isinstance(upload, Upload):
                    self._core.asked_elsewhere(name, word.node, HostPort(word.host, word.port), upload)
            case PublisherGone():
                self._core.left_elsewhere(name, word.node)
            case Lost():
                await trio.to_thread.run_sync(self._store.look_again, word.infohash)
                self._core.lost(word.infohash, word.piece, clock.now())
            case Wanted():
                self._core.wished(Wish(word.infohash, word.piece, word.deadline), clock.now())
            case Watched():
                self._core.watched(name, word.infohash, clock.now(), is_open=word.is_open)
            case _:
                raise ChannelEnded(f"a worker said {type(word).__name__}")

    def _now_serves(self, name: int) -> None:
        if name not in self._serving:
            self._serving.append(name)
            while self._strays:
                self._channels[name].send(self._strays.popleft())

    async def _receive(self, word: Chunk, sock: socket.socket) -> None:
        """One chunk of an upload whose publisher is connected to a worker."""
        async with PipedStream(sock) as stream:
            try:
                request = bulk.decode(word.header)
                if isinstance(request, UploadRequest):
                    await self._ingest.receive(NodeId(word.node), stream, request)
            except ConnectionLost as error:
                log.info("upload chunk: %s", error)
            except RemoteError as error:
                await stream.refuse(error.reason)
            except LocalError as error:
                log.error("%s", error)
                await stream.refuse(Reason.INTERNAL)
