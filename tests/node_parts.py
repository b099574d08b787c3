"""A whole house in one process (real tracker, edges and peers on loopback), and strangers in it
who say whatever a test wants."""

from __future__ import annotations

import errno
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
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
from edge.supervisor import supervise
from peer.config import PeerConfig
from peer.daemon import Ready as PeerReady
from peer.daemon import serve as serve_peer
from peer.publish import publish, read_film
from shared import clock, piece_files
from shared.connection import Connection, Stream
from shared.core import messages, tickets
from shared.core.bulk import MAX_UPLOAD_BYTES
from shared.core.errors import ConnectionLost, PenstockError
from shared.core.ids import Address, InfoHash, Kind, Mode, NodeId, TitleId, parse_address
from shared.core.manifest import Manifest
from shared.core.messages import PROTOCOL_VERSION, Have, Hello, Join, Message
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


_NEW: list[Path] = []


def new_clip(factory: pytest.TempPathFactory) -> Path:
    """A film of several chunks that nobody published yet."""
    if not _NEW:
        path = factory.mktemp("clip") / "new.mp4"
        write_clip(path, 12, 848, 480, 24, seed=5)
        assert path.stat().st_size > 2 * MAX_UPLOAD_BYTES
        _NEW.append(path)
    return _NEW[0]


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
        return await self._start(serve_edge if config.workers == 1 else supervise, config)

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

    async def publish(self, path: Path, title: str, progress: Progress = lambda *_: None) -> Address:
        """Publishes at the edge as `penstock publish` does. Raises PenstockError."""
        film = await trio.to_thread.run_sync(read_film, path, title, progress)
        return parse_address(await publish(film, self.edge.ready.address, PUBLISHER, progress))

    async def refusal(self, path: Path, title: str = "New") -> PenstockError:
        """The error that a publisher of this file sees: one line, whatever happened."""
        with pytest.raises(PenstockError) as caught:
            await self.publish(path, title)
        assert str(caught.value).isprintable()
        return caught.value

    def ticket(
        self, viewer: NodeId, infohash: InfoHash, *, seconds: float = 600.0, quota: int = 1 << 40
    ) -> bytes:
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
async def open_house(
    folder: Path, film: Published | None = None, *, bittorrent: HostPortText | None = None, **edge: Any
) -> AsyncIterator[House]:
    """A tracker and an edge in `folder`, which have published `film` already, if one is named."""
    if film is not None:
        for name in ("tracker", "edge"):
            await trio.to_thread.run_sync(shutil.copytree, film.folder / name, folder / name)
    with alone(), trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            house = House(folder, nursery)
            await house.start_tracker(bittorrent=bittorrent)
            await house.start_edge(**edge)
            yield house
            nursery.cancel_scope.cancel()


@contextmanager
def alone() -> Iterator[None]:
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
            told = (await client.get(f"/api/v1{title}/statistics")).json()
            return dict(told["renditions"][0])

    async def _get(self, path: str) -> bytes:
        async with self._client() as client:
            answer = await client.get(path)
            assert answer.status_code == 200, answer.text
            return answer.content

    def _client(self) -> httpx2.AsyncClient:
        player = self.service.ready.player
        return httpx2.AsyncClient(base_url=player, trust_env=False, timeout=PATIENCE_SECONDS)


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


def framed(body: bytes) -> bytes:
    """A message's body as it travels."""
    return len(body).to_bytes(4, "big") + body


def spoken(message: Message) -> bytes:
    """The frame of a message, whoever may say it."""
    return framed(messages.encode(message))


async def read_all(stream: Stream) -> bytes:
    """All bytes up to the other side's end."""
    received = bytearray()
    while some := await stream.receive_some():
        received += some
    return bytes(received)


@asynccontextmanager
async def stranger(
    at: Address,
    kind: Kind = Kind.PC,
    *,
    greets: bool = True,
    identity: Identity | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[Stranger]:
    """A stranger connected to a node."""
    with alone():
        async with open_endpoint(identity or Identity.generate(), host, 0) as endpoint:
            connection = await endpoint.connect(at.node, at.at, keep_alive_seconds=4.0)
            one = Stranger(endpoint, connection, connection.open_stream(), Session(kind), kind)
            if greets:
                await one.greet()
                await one.hear(Hello)
            yield one


def full_after(monkeypatch: pytest.MonkeyPatch, folder: Path, writes: int) -> None:
    """From now on so many files can be written below `folder`, and no more."""
    real, left = piece_files._write_new, [writes]

    def write(path: Path, parts: Sequence[bytes], *, flush: bool) -> None:
        if path.is_relative_to(folder):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(path, parts, flush=flush)

    monkeypatch.setattr(piece_files, "_write_new", write)


def published(folder: Path) -> dict[TitleId, bytes]:
    """SHA-256 of every rendition in an edge's store, by title id."""
    store, found = PieceStore(folder / "pieces", 1 << 30), {}
    for infohash in store.infohashes():
        manifest = store.manifest(infohash)
        assert manifest is not None
        pieces = [store.read(infohash, index)[1] for index in range(manifest.piece_count)]
        found[manifest.title_id] = sha256(b"".join(pieces)).digest()
    return found
