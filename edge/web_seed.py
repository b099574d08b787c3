"""The edge's door for stock BitTorrent clients: renditions that are for everybody, over HTTP (BEP 19).

    /seed/INFOHASH/NAME      GET and HEAD, with Range

The tracker says what is for everybody; it is asked again before each piece whose time is over. What
is not is not found here, and while the tracker is silent nothing is given. Bytes are read from the
store as viewers' are. With a rate, connections take turns at it, first come first served; without
one, TCP shares the line among them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edge.core.edge import Edge
from edge.core.open_renditions import OpenRenditions
from shared import clock, web
from shared.core.errors import LocalError, PenstockError, Reason, Refused
from shared.core.ids import HostPort, InfoHash, parse_infohash
from shared.core.manifest import Manifest
from shared.core.messages import Message
from shared.core.rate import RateMeter, TokenBucket
from shared.file_response import PART_BYTES, file_response
from shared.piece_store import PieceStore

MAX_CONNECTIONS = 128  # a piece and a half in memory each
MAX_OF_ADDRESS = 16
STALLED_SECONDS = 60.0  # without taking a byte of what was sent
RETRY_SECONDS = 10
NOT_HERE = "there is no such file here for everybody"

Wait = Callable[[int], Awaitable[Message | None]]


class WebSeed:
    """One door; `wait` gives the tracker's answer to a request of the core's."""

    def __init__(self, core: Edge, store: PieceStore, wait: Wait, rate: float | None) -> None:
        self.sent_bytes = 0  # of files, taken by clients
        self._core = core
        self._store = store
        self._wait = wait
        self._open = OpenRenditions()
        self._meter = RateMeter()
        self._asking: dict[InfoHash, trio.Lock] = {}
        self._bucket = None if rate is None else TokenBucket(rate, max(2.0 * PART_BYTES, rate / 10))
        self._turns = trio.StrictFIFOLock()

    async def serve(
        self, at: HostPort, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Task: serves until cancelled; started with the port. Raises LocalError."""
        app = Starlette(
            routes=[Route("/seed/{infohash}/{name}", self._seed)],
            exception_handlers={
                HTTPException: _refuse,
                PenstockError: _unavailable,
                trio.TooSlowError: _unavailable,
            },
        )
        async with trio.open_nursery() as nursery:
            serve = partial(
                web.serve, app, at.host, at.port, what="edge.http", max_connections=MAX_CONNECTIONS,
                max_of_address=MAX_OF_ADDRESS, stalled_seconds=STALLED_SECONDS,
            )  # fmt: skip
            _, port = await nursery.start(serve)
            task_status.started(port)

    def up_rate(self) -> float:
        """Bytes per second that clients took lately."""
        return self._meter.rate(clock.now())

    async def _seed(self, request: Request) -> Response:
        try:
            infohash = parse_infohash(request.path_params["infohash"])
        except LocalError:
            raise HTTPException(404, NOT_HERE) from None
        manifest = await trio.to_thread.run_sync(self._store.manifest, infohash)
        if manifest is None or request.path_params["name"] != manifest.name:
            raise HTTPException(404, NOT_HERE)
        if not await self.is_open(infohash):
            raise HTTPException(404, NOT_HERE)
        return file_response(manifest, request, partial(SeedReader, self, manifest))

    async def is_open(self, infohash: InfoHash) -> bool:
        """Whether a rendition that is held is for everybody. Raises Refused if the tracker does not say."""
        async with self._asking.setdefault(infohash, trio.Lock()):  # one question for all who wait
            verdict = self._open.is_open(infohash, clock.now())
            if verdict is None:
                answer = await self._wait(self._core.ask_open(infohash))
                self._open.heard(infohash, answer, clock.now())
                verdict = self._open.is_open(infohash, clock.now())
        if verdict is None:
            raise Refused(Reason.TIMEOUT, "the tracker does not say whether this is for everybody")
        return verdict

    async def read_piece(self, infohash: InfoHash, piece: int) -> bytes:
        """A piece's bytes. Raises Refused if it is not held, or not for everybody any more; StoreError."""
        if not await self.is_open(infohash):
            raise Refused(Reason.NOT_ALLOWED, NOT_HERE)
        try:
            return (await trio.to_thread.run_sync(self._store.read, infohash, piece))[1]
        except Refused:
            self._core.lost(infohash, piece, clock.now())
            raise

    async def wait_turn(self, count: int) -> None:
        """Waits until so many bytes may leave."""
        if self._bucket is None:
            return
        async with self._turns:
            now = clock.now()
            await trio.sleep(self._bucket.ready_at(count, now) - now)
            self._bucket.take(count, clock.now())

    def taken(self, count: int) -> None:
        """So many bytes were taken by a client."""
        self.sent_bytes += count
        self._meter.add(count, clock.now())


class SeedReader:
    """One client's way through a rendition."""

    def __init__(self, door: WebSeed, manifest: Manifest) -> None:
        self._door = door
        self._manifest = manifest
        self._piece = -1
        self._bytes = b""
        self._untaken = 0  # bytes that the last call gave

    async def read(self, offset: int, max_bytes: int) -> bytes:
        """See `shared.file_response.Reader`."""
        self._take()
        if offset >= self._manifest.length:
            return b""
        piece, inside = divmod(offset, self._manifest.piece_length)
        if piece != self._piece:
            self._bytes = await self._door.read_piece(self._manifest.infohash, piece)
            self._piece = piece
        part = self._bytes[inside : inside + max_bytes]
        await self._door.wait_turn(len(part))
        self._untaken = len(part)
        return part

    def _take(self) -> None:
        self._door.taken(self._untaken)
        self._untaken = 0

    async def __aenter__(self) -> SeedReader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if error is None:
            self._take()


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)


async def _unavailable(request: Request, error: Exception) -> Response:
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return PlainTextResponse("this cannot be given at present; ask again\n", 503, headers)
