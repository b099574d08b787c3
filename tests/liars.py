"""Peers that are registered in a swarm and have lies for answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import trio

from shared.connection import Connection, Stream
from shared.core import bulk
from shared.core.bitfield import Bitfield
from shared.core.bulk import BulkRequest, ManifestRequest, PieceRequest
from shared.core.errors import ConnectionLost, Reason, RemoteError
from shared.core.ids import Kind, Mode
from shared.core.merkle import LEAF_BYTES, leaves_of
from shared.core.messages import (
    PROTOCOL_VERSION,
    Announce,
    Browse,
    Catalogue,
    Event,
    Have,
    Hello,
    Join,
    Leave,
    Message,
)
from shared.core.session import Session
from shared.endpoint import Endpoint
from tests.node_parts import House, Published, spoken, stranger

Answer = Callable[[Stream, PieceRequest, Published], Awaitable[None]]


async def honest(stream: Stream, request: PieceRequest, film: Published) -> None:
    """Answers as it should."""
    piece = film.piece(request.piece)
    start = request.first_leaf * LEAF_BYTES
    await stream.send_all(b"\0" + leaves_of(piece))
    await stream.send_all(piece[start : start + request.leaf_count * LEAF_BYTES])
    stream.send_eof()


@dataclass(slots=True)
class Liar:
    """A peer that is registered in the swarm and has lies for answers."""

    film: Published
    answer: Answer = honest
    manifest: bytes | None = None  # None: the right one
    bitfield: bytes | None = None  # None: that of one who holds everything
    outburst: tuple[Message, ...] = ()  # said on the control stream at the first request of a piece
    kind: Kind = Kind.PC
    asked: trio.Event = field(default_factory=trio.Event)  # for anything at all
    closed: trio.Event = field(default_factory=trio.Event)  # by somebody
    requests: int = 0
    closed_with: list[Reason] = field(default_factory=list)

    async def take(self, control: Stream, stream: Stream) -> None:
        """Answers one request."""
        with stream:
            request = await _read_request(stream)
            self.requests += 1
            self.asked.set()
            if isinstance(request, ManifestRequest):
                raw = self.film.manifest.raw if self.manifest is None else self.manifest
                await stream.send_all(b"\0" + len(raw).to_bytes(4, "big") + raw)
                stream.send_eof()
            elif isinstance(request, PieceRequest):
                outburst, self.outburst = self.outburst, ()
                for message in outburst:
                    await control.send_all(spoken(message))
                await self.answer(stream, request, self.film)
            await stream.wait_acknowledged()

    async def welcome(self, connection: Connection) -> None:
        """Serves one viewer until it leaves."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._converse_quietly, connection)
            self.closed_with.append((await connection.wait_closed()).reason)
            self.closed.set()
            nursery.cancel_scope.cancel()

    async def _converse_quietly(self, connection: Connection) -> None:
        try:
            await self._converse(connection)
        except* ConnectionLost:
            pass  # `welcome` notes how it ended

    async def _converse(self, connection: Connection) -> None:
        control, session = await connection.accept_stream(), Session(self.kind)
        hello = Hello(PROTOCOL_VERSION, self.kind, Mode.SHARED, "", "liar", str(connection.remote))
        await control.send_all(session.send(hello))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_streams, connection, control)
            while received := await control.receive_some():
                for message in session.receive(received):
                    if isinstance(message, Join):
                        have = Have(message.request, message.infohash, self._bitfield())
                        await control.send_all(session.send(have))
                    else:
                        assert isinstance(message, Hello | Leave)

    async def _take_streams(self, connection: Connection, control: Stream) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                stream = await connection.accept_stream()
                nursery.start_soon(self._take_quietly, control, stream)

    async def _take_quietly(self, control: Stream, stream: Stream) -> None:
        with suppress(RemoteError):  # the viewer had enough of it
            await self.take(control, stream)

    def _bitfield(self) -> bytes:
        total = self.film.manifest.piece_count
        return Bitfield(total, range(total)).to_wire() if self.bitfield is None else self.bitfield


async def _read_request(stream: Stream) -> BulkRequest:
    first = await stream.receive_exactly(1)
    return bulk.decode(first + await stream.receive_exactly(bulk.header_size(first[0]) - 1))


@asynccontextmanager
async def lurking(house: House, liar: Liar) -> AsyncIterator[Liar]:
    """The liar announces to the tracker that it holds everything, and waits for viewers."""
    tracker, total = house.tracker.ready.address, liar.film.manifest.piece_count
    async with stranger(tracker, liar.kind) as one:
        await one.say(Announce(liar.film.infohash, Event.STARTED, total, total, 7), Browse(1))
        await one.hear(Catalogue)  # so the announce was heard, too
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(_welcome_all, one.endpoint, liar, nursery))
            yield liar
            nursery.cancel_scope.cancel()


async def _welcome_all(endpoint: Endpoint, liar: Liar, nursery: trio.Nursery) -> None:
    while True:
        nursery.start_soon(liar.welcome, await endpoint.accept())
