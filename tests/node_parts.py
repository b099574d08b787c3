"""A whole house in one process (real tracker, edges and peers on loopback), and strangers in it
who say whatever a test wants."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx2
import pytest
import trio

from edge.config import EdgeConfig
from edge.media.clip import write_clip
from edge.server import Ready as EdgeReady
from edge.server import serve as serve_edge
from peer.config import PeerConfig
from peer.daemon import Ready as PeerReady
from peer.daemon import serve as serve_peer
from peer.publish import publish, read_film
from shared import clock
from shared.connection import Connection, Stream
from shared.core import bulk, tickets
from shared.core.bitfield import Bitfield
from shared.core.bulk import BulkRequest, ManifestRequest, PieceRequest
from shared.core.errors import ConnectionLost, RemoteError
from shared.core.ids import Address, InfoHash, Kind, Mode, NodeId, parse_address
from shared.core.manifest import Manifest
from shared.core.merkle import LEAF_BYTES, leaves_of
from shared.core.messages import PROTOCOL_VERSION, Announce, Event, Have, Hello, Join, Leave, Message
from shared.core.session import Session
from shared.core.tickets import Ticket
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.piece_store import PieceStore
from shared.setting_types import AddressText, HostPortText
from tracker.config import TrackerConfig
from tracker.server import Ready as TrackerReady
from tracker.server import serve as serve_tracker

LOOPBACK = HostPortText("127.0.0.1:0")
PATIENCE_SECONDS = 30.0  # of a test for anything that is bound to come
TITLE = "A film for strangers"
PUBLISHER = Identity.generate()

T = TypeVar("T")
M = TypeVar("M", bound=Message)
Progress = Callable[[str, float], object]


@dataclass(frozen=True, slots=True)
class Published:
    """A film that an edge published, and the folders of that edge and its tracker."""

    folder: Path
    clip: Path
    manifest: Manifest
    data: bytes  # of the rendition

    @property
    def infohash(self) -> InfoHash:
        return self.manifest.infohash

    @property
    def path(self) -> str:
        """Where a peer's door has it."""
        return f"/titles/{self.manifest.title_id.hex()}/{self.infohash.hex()}.mp4"

    def piece(self, index: int) -> bytes:
        size = self.manifest.piece_length
        return self.data[index * size : (index + 1) * size]


_ONCE: list[Published] = []


def published_once(factory: pytest.TempPathFactory) -> Published:
    """The film that all tests of a run share; tests get copies of its folders, see `House`."""
    if not _ONCE:
        folder = factory.mktemp("published")
        clip = folder / "clip.mp4"
        write_clip(clip, 8, 848, 480, 24)
        trio.run(_publish_first, folder, clip)
        store = PieceStore(folder / "edge" / "pieces", 1 << 30)
        manifest = store.manifest(store.infohashes()[0])
        assert manifest is not None
        pieces = [store.read(manifest.infohash, index)[1] for index in range(manifest.piece_count)]
        _ONCE.append(Published(folder, clip, manifest, b"".join(pieces)))
    return _ONCE[0]


async def _publish_first(folder: Path, clip: Path) -> None:
    async with open_house(folder) as house:
        await house.publish(clip, TITLE)


@dataclass(slots=True)
class Service(Generic[T]):
    """One running program."""

    ready: T
    _scope: trio.CancelScope
    _stopped: trio.Event

    async def stop(self) -> None:
        """As SIGTERM would; returns when it is gone."""
        self._scope.cancel()
        await self._stopped.wait()


@dataclass(slots=True)
class House:
    """A tracker and an edge, and whatever a test adds."""

    folder: Path
    nursery: trio.Nursery
    tracker: Service[TrackerReady] = field(init=False)
    edge: Service[EdgeReady] = field(init=False)

    @property
    def quarantine(self) -> list[Path]:
        """Uploads that lie in the edge's quarantine."""
        return sorted((self.folder / "edge" / "quarantine").iterdir())

    async def start_tracker(self, **changed: Any) -> None:
        """Starts the tracker, or starts it again."""
        edge = await trio.to_thread.run_sync(Identity.load, self.folder / "edge" / "key")
        settings = {"edges": (edge.id.hex(),), "announce_seconds": 2, "report_seconds": 1, **changed}
        config = TrackerConfig(listen=LOOPBACK, api=LOOPBACK, data=self.folder / "tracker", **settings)
        self.tracker = await self._start(serve_tracker, config)

    async def start_edge(self, **changed: Any) -> None:
        """Starts the edge, or starts it again."""
        self.edge = await self.another_edge("edge", **changed)

    async def another_edge(self, name: str, **changed: Any) -> Service[EdgeReady]:
        """An edge with a key and folder of its own."""
        settings = {"listen": LOOPBACK, **changed}
        config = EdgeConfig(tracker=self._tracker_text(), data=self.folder / name, **settings)
        return await self._start(serve_edge, config)

    async def start_peer(self, name: str, **changed: Any) -> Viewer:
        """A viewer's peer."""
        settings = {"listen": LOOPBACK, "player": LOOPBACK, "data": self.folder / name, **changed}
        return Viewer(await self._start(serve_peer, PeerConfig(tracker=self._tracker_text(), **settings)))

    def _tracker_text(self) -> AddressText:
        return AddressText(str(self.tracker.ready.address))

    async def _start(self, serve: Callable[..., Awaitable[None]], config: Any) -> Service[Any]:
        scope, stopped = trio.CancelScope(), trio.Event()

        async def run(*, task_status: trio.TaskStatus[Any]) -> None:
            try:
                with scope:
                    await serve(config, task_status=task_status)
            finally:
                stopped.set()

        return Service(await self.nursery.start(run), scope, stopped)

    async def publish(self, path: Path, title: str, progress: Progress = lambda stage, share: None) -> Address:
        """Publishes at the edge as `penstock publish` does. Raises PenstockError."""
        film = await trio.to_thread.run_sync(read_film, path, title, progress)
        return parse_address(await publish(film, self.edge.ready.address, PUBLISHER, progress))

    def ticket(self, viewer: NodeId, infohash: InfoHash, *, seconds: float = 600.0, quota: int = 1 << 40) -> bytes:
        """A ticket as the tracker would sign it."""
        key = Identity.load(self.folder / "tracker" / "key").private_key
        return tickets.issue(key, Ticket(viewer, infohash, int(clock.now() + seconds), quota))

    async def assert_serves(self, film: Published) -> None:
        """An honest viewer gets every byte of the film."""
        name = f"honest-{len(list(self.folder.iterdir()))}"
        viewer = await self.start_peer(name)
        assert sha256(await viewer.download(film)).digest() == sha256(film.data).digest()
        await viewer.service.stop()


@asynccontextmanager
async def open_house(folder: Path, film: Published | None = None, **edge: Any) -> AsyncIterator[House]:
    """A tracker and an edge in `folder`, which have published `film` already, if one is named."""
    if film is not None:
        for name in ("tracker", "edge"):
            await trio.to_thread.run_sync(shutil.copytree, film.folder / name, folder / name)
    with _alone(), trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            house = House(folder, nursery)
            await house.start_tracker()
            await house.start_edge(**edge)
            yield house
            nursery.cancel_scope.cancel()


@contextmanager
def _alone() -> Iterator[None]:
    """The one error inside, out of the groups that nurseries put around it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


@dataclass(slots=True)
class Viewer:
    """A real peer, watched through its door."""

    service: Service[PeerReady]

    async def download(self, film: Published) -> bytes:
        """The whole rendition, as a player gets it: from its start, faster than it plays."""
        return await self._get(film.path)

    async def statistics(self, film: Published) -> dict[str, Any]:
        """What the peer says of the film."""
        title = film.path.rsplit("/", 1)[0]
        async with self._client() as client:
            answer = await client.get(f"{title}/statistics", params={"infohash": film.infohash.hex()})
            return dict(answer.json())

    async def _get(self, path: str) -> bytes:
        async with self._client() as client:
            answer = await client.get(path)
            assert answer.status_code == 200, answer.text
            return answer.content

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.service.ready.player, trust_env=False, timeout=PATIENCE_SECONDS)


@dataclass(slots=True)
class Stranger:
    """A node that does and says what a test wants."""

    endpoint: Endpoint
    connection: Connection
    control: Stream
    session: Session
    kind: Kind
    _heard: list[Message] = field(default_factory=list)

    @property
    def id(self) -> NodeId:
        return self.endpoint.identity.id

    async def greet(self, mode: Mode = Mode.SHARED) -> None:
        """Says Hello."""
        await self.say(Hello(PROTOCOL_VERSION, self.kind, mode, "", "stranger", "127.0.0.1:1"))

    async def say(self, *messages: Message) -> None:
        """What our own rules allow."""
        await self.control.send_all(b"".join(map(self.session.send, messages)))

    async def say_raw(self, raw: bytes) -> None:
        """Anything at all."""
        await self.control.send_all(raw)

    async def hear(self, kind: type[M]) -> M:
        """The next message of a kind; others are passed over."""
        while True:
            while self._heard:
                message = self._heard.pop(0)
                if isinstance(message, kind):
                    return message
            received = await self.control.receive_some()
            assert received, "the control stream ended"
            self._heard += self.session.receive(received)

    async def join(self, house: House, film: Published) -> Have:
        """Comes in with a good ticket."""
        await self.say(Join(1, film.infohash, house.ticket(self.id, film.infohash)))
        return await self.hear(Have)

    async def ask(self, request: bytes) -> bytes:
        """The whole answer to what is sent on a bulk stream. Raises Refused, ConnectionLost."""
        with self.connection.open_stream() as stream:
            await stream.send_all(request)
            stream.send_eof()
            return await read_all(stream)

    async def end(self) -> ConnectionLost:
        """Why the other side hung up."""
        return await self.connection.wait_closed()


async def read_all(stream: Stream) -> bytes:
    """All bytes up to the other side's end."""
    received = bytearray()
    while some := await stream.receive_some():
        received += some
    return bytes(received)


@asynccontextmanager
async def stranger(
    at: Address, kind: Kind = Kind.PC, *, greets: bool = True, identity: Identity | None = None
) -> AsyncIterator[Stranger]:
    """A stranger connected to a node."""
    with _alone():
        async with open_endpoint(identity or Identity.generate(), "127.0.0.1", 0) as endpoint:
            connection = await endpoint.connect(at.node, at.at, keep_alive_seconds=4.0)
            one = Stranger(endpoint, connection, connection.open_stream(), Session(kind), kind)
            if greets:
                await one.greet()
                await one.hear(Hello)
            yield one


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
    kind: Kind = Kind.PC
    asked: int = 0  # requests of all kinds
    closed_with: list[ConnectionLost] = field(default_factory=list)

    async def take(self, stream: Stream) -> None:
        """Answers one request."""
        with stream:
            request = await _read_request(stream)
            self.asked += 1
            if isinstance(request, ManifestRequest):
                raw = self.film.manifest.raw if self.manifest is None else self.manifest
                await stream.send_all(b"\0" + len(raw).to_bytes(4, "big") + raw)
                stream.send_eof()
            elif isinstance(request, PieceRequest):
                await self.answer(stream, request, self.film)
            await stream.wait_acknowledged()

    async def welcome(self, connection: Connection) -> None:
        """Serves one viewer until it leaves."""
        try:
            with _alone():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._converse, connection)
                    self.closed_with.append(await connection.wait_closed())
                    nursery.cancel_scope.cancel()
        except ConnectionLost:
            pass  # noted above

    async def _converse(self, connection: Connection) -> None:
        control, session = await connection.accept_stream(), Session(self.kind)
        hello = Hello(PROTOCOL_VERSION, self.kind, Mode.SHARED, "", "liar", str(connection.remote))
        await control.send_all(session.send(hello))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_streams, connection)
            while received := await control.receive_some():
                for message in session.receive(received):
                    if isinstance(message, Join):
                        have = Have(message.request, message.infohash, self._bitfield())
                        await control.send_all(session.send(have))
                    else:
                        assert isinstance(message, Hello | Leave)

    async def _take_streams(self, connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._take_quietly, await connection.accept_stream())

    async def _take_quietly(self, stream: Stream) -> None:
        try:
            await self.take(stream)
        except RemoteError:
            pass  # the viewer had enough of it

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
        await one.say(Announce(liar.film.infohash, Event.STARTED, total, total, 7))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(_welcome_all, one.endpoint, liar, nursery))
            yield liar
            nursery.cancel_scope.cancel()


async def _welcome_all(endpoint: Endpoint, liar: Liar, nursery: trio.Nursery) -> None:
    while True:
        nursery.start_soon(liar.welcome, await endpoint.accept())
