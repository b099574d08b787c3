"""One bidirectional stream of a connection, for trio tasks: bounded in both directions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import trio

from shared.core.errors import ConnectionLost, ProtocolError, Reason, Refused
from shared.losses import reason_of
from shared.quic import QuicEngine

SEND_BUFFER_BYTES = 512 * 1024  # written and not yet sent, per stream; then `send_all` waits


class Stream:
    """Bytes both ways, each side ended on its own. One task sends and one receives at a time.

    Use it as a context manager to be sure that it ends: leaving closes what is still open.
    Every wait raises ConnectionLost when the connection ends, and may be cancelled: the stream
    stays sound, but a cancelled `send_all` or `receive_exactly` stopped somewhere in between.
    """

    def __init__(
        self,
        stream_id: int,
        engine: QuicEngine,
        touch: Callable[[], None],
        loss: Callable[[], ConnectionLost | None],
        blocked: set[Stream],
    ) -> None:
        self.id = stream_id
        self._engine = engine
        self._touch = touch  # something is to be sent
        self._loss = loss  # why the connection ended, if it did
        self._blocked = blocked  # the connection's streams whose writers wait
        self._unread: deque[bytes] = deque()
        self._read_bytes = 0  # of the first unread chunk
        self._at_end = False  # no more will come after what is unread
        self._receive_refusal: Refused | None = None
        self._send_refusal: Refused | None = None
        self._send_ended = False
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write, waiting while more than SEND_BUFFER_BYTES are unsent.

        What is `bytes`, or a view of it, is not copied, but kept as it is until it is acknowledged.
        Raises Refused with the peer's reason if it stopped reading, ConnectionLost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_sendable()
        rest = memoryview(data).cast("B")
        while rest:
            room = await self._wait_room()
            part = rest[:room]
            kept: Any = part if isinstance(part.obj, bytes) else bytes(part)
            self._engine.send_stream_data(self.id, kept)
            rest = rest[room:]
            self._touch()

    def send_eof(self) -> None:
        """End our side after what was written. Raises Refused and ConnectionLost like `send_all`."""
        self._check_sendable()
        self._send_ended = True
        self._engine.send_stream_data(self.id, b"", end_stream=True)
        self._touch()

    async def wait_acknowledged(self) -> None:
        """Wait until the peer has all that was written, up to our end. Raises as `send_all`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            self._check_alive()
            if self._send_refusal is not None:
                raise Refused(self._send_refusal.reason, self._send_refusal.detail)
            if self._engine.is_acknowledged(self.id):
                return
            await self._park_writer()

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        """At least one byte, at most `max_bytes`; `b""` once the peer has ended its side.

        Raises Refused with the peer's reason if it reset the stream, ConnectionLost.
        """
        if max_bytes < 1:
            raise ValueError(f"cannot receive {max_bytes} bytes")
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._unread:
            if self._receive_refusal is not None:
                raise Refused(self._receive_refusal.reason, self._receive_refusal.detail)
            if self._at_end:
                return b""
            self._check_alive()
            await self._readable.park()
        taken = self._take_unread(max_bytes)
        if self._engine.consume(self.id, len(taken)):
            self._touch()
        return taken

    async def receive_exactly(self, count: int) -> bytes:
        """Exactly `count` bytes. Raises ProtocolError if the stream ends before, and as `receive_some`."""
        taken, missing = [], count
        while missing:
            some = await self.receive_some(missing)
            if not some:
                raise ProtocolError(Reason.MALFORMED, f"cut short: {count - missing} of {count} bytes")
            taken.append(some)
            missing -= len(some)
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def reset(self, reason: Reason) -> None:
        """Give up our side; the peer's reads raise Refused with the reason."""
        self._send_ended = True
        if self._send_refusal is None:
            self._send_refusal = Refused(reason, "reset here")
        self._writable.unpark_all()
        if self._loss() is None:
            self._engine.reset_stream(self.id, int(reason))
            self._touch()

    def stop(self, reason: Reason) -> None:
        """Read no more; the peer's writes raise Refused with the reason."""
        was_at_end = self._at_end
        self._end_reading(Refused(reason, "stopped here"))
        if not was_at_end and self._loss() is None and self._engine.has_stream(self.id):
            self._engine.stop_stream(self.id, int(reason))
            self._touch()

    def close(self, reason: Reason = Reason.CANCELLED) -> None:
        """Reset and stop what is still open; what was ended with `send_eof` is still delivered."""
        if not self._send_ended:
            self.reset(reason)
        self.stop(reason)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # For the connection, which turns the engine's events into these.

    def take_data(self, data: bytes, at_end: bool) -> None:
        """Bytes arrived, in order."""
        if self._receive_refusal is not None:  # nobody will read them
            if self._engine.consume(self.id, len(data)):
                self._touch()
        elif data:
            self._unread.append(data)
        self._at_end = self._at_end or at_end
        self._readable.unpark_all()

    def take_reset(self, code: int) -> None:
        """The peer gave up its side."""
        self._at_end = True
        self._end_reading(Refused(reason_of(code), "the other side gave up the stream"))

    def take_stop(self, code: int) -> None:
        """The peer reads no more."""
        self._send_ended = True
        self._send_refusal = Refused(reason_of(code), "the other side stopped reading")
        self._writable.unpark_all()

    def take_progress(self) -> None:
        """Something was sent or acknowledged: let waiting writers look."""
        if self._engine.unsent_bytes(self.id) <= SEND_BUFFER_BYTES // 2:
            self._blocked.discard(self)
            self._writable.unpark_all()

    def take_loss(self) -> None:
        """The connection ended."""
        self._readable.unpark_all()
        self._writable.unpark_all()

    # Private

    def _take_unread(self, max_bytes: int) -> bytes:
        chunk, start = self._unread[0], self._read_bytes
        if len(chunk) - start > max_bytes:
            self._read_bytes = start + max_bytes
            return chunk[start : start + max_bytes]
        self._read_bytes = 0
        self._unread.popleft()
        return chunk[start:] if start else chunk

    def _end_reading(self, refusal: Refused) -> None:
        if self._receive_refusal is None:
            self._receive_refusal = refusal
        self._unread.clear()
        self._read_bytes = 0
        if self._loss() is None and self._engine.consume_rest(self.id):
            self._touch()
        self._readable.unpark_all()

    async def _wait_room(self) -> int:
        while True:
            room = SEND_BUFFER_BYTES - self._engine.unsent_bytes(self.id)
            if room > 0:
                return room
            await self._park_writer()
            self._check_sendable()

    async def _park_writer(self) -> None:
        self._blocked.add(self)
        await self._writable.park()

    def _check_sendable(self) -> None:
        self._check_alive()
        if self._send_refusal is not None:
            raise Refused(self._send_refusal.reason, self._send_refusal.detail)
        if self._send_ended:
            raise RuntimeError("send after send_eof")

    def _check_alive(self) -> None:
        loss = self._loss()
        if loss is not None:
            raise ConnectionLost(loss.reason, loss.detail)
