"""Answering bulk streams from the store: the shell of `shared.core.seeding`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Protocol

import trio

from shared import clock
from shared.core import bulk
from shared.core.actions import Decline, Serve
from shared.core.bulk import ManifestRequest, PieceRequest
from shared.core.errors import ProtocolError, Reason, Refused
from shared.core.ids import InfoHash, NodeId
from shared.core.manifest import Manifest
from shared.core.merkle import LEAF_BYTES
from shared.core.seeding import Seeding, check_request
from shared.piece_store import PieceStore
from shared.stream import Stream

ANSWER_OK = b"\0"
HEADER_SECONDS = 10.0


class ByteStream(Protocol):
    """The part of a stream that a request is read from and answered on."""

    async def receive_exactly(self, count: int) -> bytes: ...
    async def send_all(self, data: bytes) -> None: ...
    def send_eof(self) -> None: ...
    async def wait_acknowledged(self) -> None: ...


class ServingCore(Protocol):
    """The part of an edge's or peer's core that decides over requests."""

    seeding: Seeding

    def requested(self, number: int, request: PieceRequest, node: NodeId, size: int, now: float) -> None:
        """A piece request arrived."""
        ...

    def served(self, number: int) -> None:
        """It is over."""
        ...

    def lost(self, infohash: InfoHash, piece: int, now: float) -> None:
        """The store gave a piece up."""
        ...


async def read_request(stream: Stream) -> bulk.BulkRequest:
    """The header of a bulk stream. Raises ProtocolError, also when it dawdles."""
    with trio.move_on_after(HEADER_SECONDS):
        first = await stream.receive_exactly(1)
        return bulk.decode(first + await stream.receive_exactly(bulk.header_size(first[0]) - 1))
    raise ProtocolError(Reason.TIMEOUT, "no request on a bulk stream")


class Serving:
    """Serves pieces and manifests; `pump` carries out what the core decided meanwhile."""

    def __init__(self, core: ServingCore, store: PieceStore, pump: Callable[[], None]) -> None:
        self._core = core
        self._store = store
        self._pump = pump
        self._numbers = count(1)
        self._verdicts: dict[int, tuple[trio.Event, list[Reason]]] = {}
        self.served_bytes = 0
        self._served: dict[InfoHash, int] = {}
        self._running: set[trio.CancelScope] = set()  # streams on which pieces or manifests leave

    def stop(self) -> None:
        """Not one byte more of what is being answered: the streams are reset, and nothing is sent again."""
        for scope in self._running:
            scope.cancel()

    def take_served(self) -> dict[InfoHash, int]:
        """Bytes of pieces that arrived whole since the last call, by swarm."""
        served, self._served = self._served, {}
        return served

    def give_back(self, served: dict[InfoHash, int]) -> None:
        """What was taken could not be noted: it counts for the next call."""
        for infohash, taken in served.items():
            self._served[infohash] = self._served.get(infohash, 0) + taken

    def act(self, order: Serve | Decline) -> None:
        """The core decided over a request that waits in `answer`."""
        waiting = self._verdicts.get(order.request)
        if waiting is not None:
            waiting[1].append(order.reason if isinstance(order, Decline) else Reason.NONE)
            waiting[0].set()

    async def answer(self, node: NodeId, stream: Stream, request: PieceRequest | ManifestRequest) -> None:
        """Answers one bulk stream. Raises RemoteError for the caller to reset it with."""
        manifest = await trio.to_thread.run_sync(self._store.manifest, request.infohash)
        if manifest is None:
            await decline(stream, Reason.UNKNOWN_TITLE)
        elif isinstance(request, ManifestRequest):
            await self._answer_manifest(node, stream, manifest)
        elif request.piece >= manifest.piece_count:
            raise ProtocolError(Reason.MALFORMED, f"piece {request.piece} of {manifest.piece_count}")
        else:
            await self._answer_piece(node, stream, request, manifest)

    async def _answer_manifest(self, node: NodeId, stream: Stream, manifest: Manifest) -> None:
        reason = self._core.seeding.may_read_manifest(manifest.infohash, node)
        if reason is not Reason.NONE:
            await decline(stream, reason)
            return
        answer = ANSWER_OK + len(manifest.raw).to_bytes(4, "big") + manifest.raw
        await self._send(stream, answer)

    async def _answer_piece(
        self, node: NodeId, stream: Stream, request: PieceRequest, manifest: Manifest
    ) -> None:
        check_request(request, manifest.leaf_count(request.piece))
        start = request.first_leaf * LEAF_BYTES
        end = min(start + request.leaf_count * LEAF_BYTES, manifest.piece_size(request.piece))
        number = next(self._numbers)
        verdict = self._verdicts[number] = (trio.Event(), [])
        try:
            self._core.requested(number, request, node, end - start, clock.now())
            self._pump()
            await verdict[0].wait()
            if verdict[1][0] is not Reason.NONE:
                await decline(stream, verdict[1][0])
                return
            await self._send_piece(stream, request, start, end)
        finally:
            del self._verdicts[number]
            self._core.served(number)
            self._pump()

    async def _send_piece(self, stream: Stream, request: PieceRequest, start: int, end: int) -> None:
        try:
            leaves, data = await trio.to_thread.run_sync(
                self._store.read_chunk, request.infohash, request.piece, start, end
            )
        except Refused as refusal:
            self._core.lost(request.infohash, request.piece, clock.now())
            await decline(stream, refusal.reason)
            return
        if await self._send(stream, ANSWER_OK + leaves, data):
            self.served_bytes += end - start
            self.give_back({request.infohash: end - start})
            self._core.seeding.gave(request.infohash, end - start)

    async def _send(self, stream: Stream, *parts: bytes | memoryview) -> bool:
        """Send until the asker has it, or `stop` is called; whether it has it."""
        if not self._core.seeding.sharing:  # since it was decided
            stream.reset(Reason.NOT_SHARING)
            return False
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                for part in parts:
                    await stream.send_all(part)
                stream.send_eof()
                # The turn ends when the bytes are with the asker, not when they are in our buffers:
                # the order of service is by deadline only as long as little waits below us.
                await stream.wait_acknowledged()
            finally:
                self._running.discard(scope)
        if scope.cancelled_caught:
            stream.reset(Reason.NOT_SHARING)
        return not scope.cancelled_caught


async def decline(stream: ByteStream, reason: Reason) -> None:
    """Answers a request with a reason instead of bytes. Raises RemoteError as streams do."""
    await stream.send_all(bytes([reason]))
    stream.send_eof()
    await stream.wait_acknowledged()
