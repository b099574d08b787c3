"""Handing a file in to an edge: a conversation that survives cut connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import trio

from shared import SOFTWARE
from shared.connection import Connection
from shared.core.bulk import MAX_UPLOAD_BYTES, UploadRequest
from shared.core.errors import (
    ConnectionLost,
    LocalError,
    PenstockError,
    ProtocolError,
    Reason,
    Refused,
    RemoteError,
)
from shared.core.ids import Address, Kind, Mode
from shared.core.messages import PROTOCOL_VERSION, Hello, Refusal, Stage, Upload, UploadState
from shared.core.names import clean_name, clean_title
from shared.core.session import Session
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.losses import reason_of
from shared.stream import Stream

CHUNKS_AT_ONCE = 4  # a chunk on the wire, the others hide the way there and back
TRIES_SECONDS = 120.0  # without any progress: then give up
PAUSE_SECONDS = 1.0
EDGE_IDLE_SECONDS = 12.0
# The edge hung up for what we said: it would do so again.
FINAL = frozenset({Reason.MALFORMED, Reason.UNEXPECTED, Reason.TOO_LARGE, Reason.NOT_ALLOWED, Reason.VERSION})

T = TypeVar("T", bound=BaseException)
Progress = Callable[[str, float], object]  # what is being done, share from 0 to 1


@dataclass(frozen=True, slots=True)
class Film:
    """The file to publish."""

    path: Path
    title: str
    length: int
    sha256: bytes


def read_film(path: Path, title: str, progress: Progress) -> Film:
    """Hashes the file. Raises LocalError for a file or title that cannot be published; blocking."""
    clean_name(path.name)
    try:
        length = path.stat().st_size
        if not path.is_file() or length == 0:
            raise LocalError(f"{path} is {'empty' if path.is_file() else 'not a file'}; name a film")
        digest, done = sha256(), 0
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
                done += len(part)
                progress("reading", done / length)
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}") from None
    return Film(path, clean_title(title), length, digest.digest())


async def publish(film: Film, edge: Address, identity: Identity, progress: Progress) -> str:
    """The title's address, once it is published.

    Raises Refused if the edge or tracker declines, ConnectionLost if the edge cannot be
    reached for two minutes or is none, LocalError if the file changed meanwhile.
    """
    async with open_endpoint(
        identity, _any_host(edge), 0, setting="publish", idle_timeout_seconds=EDGE_IDLE_SECONDS
    ) as endpoint:
        visit = _Visit(film, edge, endpoint, progress)
        give_up_at = trio.current_time() + TRIES_SECONDS
        while True:
            before = visit.received_bytes
            try:
                return await visit.pay()
            except ConnectionLost as error:
                if visit.received_bytes > before:
                    give_up_at = trio.current_time() + TRIES_SECONDS
                if error.reason in FINAL:
                    raise
                if trio.current_time() > give_up_at or not visit.was_there:
                    raise ConnectionLost(
                        error.reason,
                        f"the edge at {edge.at} is not reached ({error}); run this again to go on",
                    ) from None
            progress("connecting again", 0.0)
            await trio.sleep(PAUSE_SECONDS)


def _any_host(edge: Address) -> str:
    return "::" if ":" in edge.at.host else "0.0.0.0"


class _Visit:
    """Connections to one edge, one after the other, until the film is published."""

    def __init__(self, film: Film, edge: Address, endpoint: Endpoint, progress: Progress) -> None:
        self._film = film
        self._edge = edge
        self._endpoint = endpoint
        self._progress = progress
        self.received_bytes = 0
        self.was_there = False

    async def pay(self) -> str:
        """One connection: uploads what is missing and waits for the end."""
        connection = await self._endpoint.connect(self._edge.node, self._edge.at, keep_alive_seconds=4.0)
        self.was_there = True
        session = Session(Kind.TOOL)
        error: PenstockError
        with connection.open_stream() as control:
            try:
                return await self._converse(connection, control, session)
            except* RemoteError as group:
                error = _most_telling(group)
            except* LocalError as group:
                error = next(_leaves(group))
            finally:
                connection.close(Reason.NONE)
        raise error

    async def _converse(self, connection: Connection, control: Stream, session: Session) -> str:
        await self._greet(connection, control, session)
        film = self._film
        upload = Upload(1, film.path.name, film.title, film.length, film.sha256)
        await control.send_all(session.send(upload))
        result: list[str] = []
        async with trio.open_nursery() as nursery:
            sending = False
            while not result:
                for state in await _states(control, session):
                    if state.stage is Stage.RECEIVING and not sending:
                        sending = True
                        self.received_bytes = state.received_bytes
                        nursery.start_soon(self._send, connection, state)
                    elif state.stage is Stage.PUBLISHED:
                        result.append(state.address)
                    elif state.stage is not Stage.RECEIVING:
                        self._progress(state.stage.value, state.permille / 1000)
            nursery.cancel_scope.cancel()
        return result[0]

    async def _greet(self, connection: Connection, control: Stream, session: Session) -> None:
        hello = Hello(PROTOCOL_VERSION, Kind.TOOL, Mode.DIRECT, "", SOFTWARE, str(connection.remote))
        await control.send_all(session.send(hello))
        while session.theirs is None:
            await _states(control, session)
        if session.theirs.kind is not Kind.EDGE:
            raise ProtocolError(
                Reason.UNEXPECTED,
                f"{self._edge.at} is no edge but a {session.theirs.kind.value}; give an edge's address",
            )

    async def _send(self, connection: Connection, state: UploadState) -> None:
        places = trio.Semaphore(CHUNKS_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for offset in range(state.received_bytes, self._film.length, MAX_UPLOAD_BYTES):
                await places.acquire()
                data = await trio.to_thread.run_sync(_read, self._film, offset)
                nursery.start_soon(self._send_chunk, connection, state.upload, offset, data, places)

    async def _send_chunk(
        self, connection: Connection, upload: bytes, offset: int, data: bytes, places: trio.Semaphore
    ) -> None:
        with connection.open_stream() as stream:
            await stream.send_all(UploadRequest(upload, offset, len(data)).encode())
            await stream.send_all(data)
            stream.send_eof()
            reason = reason_of((await stream.receive_exactly(1))[0])
            if reason is not Reason.NONE:
                raise Refused(reason, "the edge takes no more of this file; what it has stays there")
            received = int.from_bytes(await stream.receive_exactly(8), "big")
        self.received_bytes = max(self.received_bytes, received)
        self._progress("uploading", self.received_bytes / self._film.length)
        places.release()


async def _states(control: Stream, session: Session) -> list[UploadState]:
    data = await control.receive_some()
    if not data:
        raise ConnectionLost(Reason.SHUTDOWN, "the edge ended the conversation")
    states: list[UploadState] = []
    for message in session.receive(data):
        match message:
            case UploadState():
                states.append(message)
            case Refusal():
                raise Refused(message.reason, message.detail)
            case Hello():
                pass
            case _:
                raise ProtocolError(Reason.UNEXPECTED, type(message).__name__)
    return states


def _read(film: Film, offset: int) -> bytes:
    """One chunk. Raises LocalError; blocking."""
    size = min(MAX_UPLOAD_BYTES, film.length - offset)
    try:
        with film.path.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise LocalError(f"{film.path} cannot be read: {error.strerror}") from None
    if len(data) < size:
        raise LocalError(f"{film.path} became shorter while it was uploaded; publish it again")
    return data


def _most_telling(group: BaseExceptionGroup[RemoteError]) -> RemoteError:
    """A refusal says more than the loss of the connection that followed it."""
    leaves = list(_leaves(group))
    return next((error for error in leaves if not isinstance(error, ConnectionLost)), leaves[0])


def _leaves(error: BaseExceptionGroup[T]) -> Iterator[T]:
    for inner in error.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _leaves(inner)
        else:
            yield inner
