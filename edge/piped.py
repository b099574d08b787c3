"""An upload's bulk stream on its way between a worker, which has the publisher, and the lead."""

from __future__ import annotations

import socket
from contextlib import suppress
from types import TracebackType

import trio

from shared.core.errors import ConnectionLost, Reason, RemoteError
from shared.stream import Stream

PART_BYTES = 1 << 17
MAX_ANSWER_BYTES = 64


class PipedStream:
    """The lead's end: what `Ingest.receive` uses of a stream."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = _stream(sock)

    async def receive_exactly(self, count: int) -> bytes:
        """So many bytes. Raises ConnectionLost."""
        received = bytearray()
        try:
            while len(received) < count:
                some = await self._stream.receive_some(min(PART_BYTES, count - len(received)))
                if not some:
                    raise ConnectionLost(Reason.NONE, "the publisher's stream ended early")
                received += some
        except trio.BrokenResourceError as error:
            raise ConnectionLost(Reason.NONE, "the worker is gone") from error
        return bytes(received)

    async def send_all(self, data: bytes) -> None:
        """Answers. Raises ConnectionLost."""
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as error:
            raise ConnectionLost(Reason.NONE, "the worker is gone") from error

    def send_eof(self) -> None:
        """The answer is whole: leaving the context says so."""

    async def wait_acknowledged(self) -> None:
        """The worker waits for the publisher."""

    async def refuse(self, reason: Reason) -> None:
        """The answer is a reason."""
        with suppress(ConnectionLost):
            await self.send_all(bytes([reason]))

    async def __aenter__(self) -> PipedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stream.aclose()


async def pipe(publisher: Stream, size: int, sock: socket.socket) -> None:
    """The worker's end: `size` bytes from the publisher to the lead, and its answer back.

    Raises RemoteError as streams do, and ConnectionLost if the lead is gone.
    """
    async with _stream(sock) as lead, trio.open_nursery() as nursery:
        # A refusal may come while bytes still wait: it must not wait for them.
        nursery.start_soon(_pour, publisher, size, lead)
        answer = bytearray()
        with suppress(trio.BrokenResourceError):
            while len(answer) < MAX_ANSWER_BYTES and (some := await lead.receive_some(MAX_ANSWER_BYTES)):
                answer += some
        nursery.cancel_scope.cancel()
    if not answer:
        raise ConnectionLost(Reason.SHUTDOWN, "the edge begins anew; come back")
    await publisher.send_all(bytes(answer))
    publisher.send_eof()
    await publisher.wait_acknowledged()


async def _pour(publisher: Stream, size: int, lead: trio.SocketStream) -> None:
    left = size
    with suppress(trio.BrokenResourceError):
        with suppress(RemoteError):  # the publisher is gone, and the lead must not wait for it
            while left and (some := await publisher.receive_some(min(PART_BYTES, left))):
                left -= len(some)
                await lead.send_all(some)
        if left:
            await lead.send_eof()


def _stream(sock: socket.socket) -> trio.SocketStream:
    sock.setblocking(False)
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))
