"""Words between the processes of an edge, some with a socket: one packet each on a Unix socket pair."""

from __future__ import annotations

import array
import math
import socket
from contextlib import suppress
from typing import Any, get_args

import msgspec
import trio

from edge.core.crew import Stray, Word
from shared.core.errors import LocalError

MAX_PACKET_BYTES = 1 << 17  # twice the longest datagram
MAX_WAITING = 4096  # words that the other side did not take yet: then strangers' datagrams are dropped

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Word)}
_FDS_BYTES = socket.CMSG_SPACE(array.array("i").itemsize)


class ChannelEnded(LocalError):
    """The process at the other end is gone, or says what none of ours says."""


def pair() -> tuple[Channel, socket.socket]:
    """This process's end of a new channel, and the other, to be given away."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(near), far


class Channel:
    """One end; `write_forever` must be running for anything to leave."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._waiting, self._queue = trio.open_memory_channel[tuple[bytes, socket.socket | None]](math.inf)

    def send(self, word: Word, sock: socket.socket | None = None) -> bool:
        """Says it soon; `sock` is given away, and closed here.

        False if this end is closed, or if so much waits that a stranger's datagram has no place:
        of all words only these come as fast as outsiders like, and may be lost as any datagram may.
        """
        if isinstance(word, Stray) and self._waiting.statistics().current_buffer_used >= MAX_WAITING:
            return False
        packet = msgspec.msgpack.encode((type(word).__name__, word))
        try:
            self._waiting.send_nowait((packet, sock))
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            if sock is not None:
                sock.close()
            return False
        return True

    async def write_forever(self) -> None:
        """Task: returns when the other end is gone."""
        with self._queue:
            try:
                async for packet, sock in self._queue:
                    try:
                        await self._write(packet, sock)
                    finally:
                        if sock is not None:
                            sock.close()
            except OSError:
                return
            finally:
                self._drop_waiting()

    def _drop_waiting(self) -> None:
        """Nobody will read it: what was to be given away is closed."""
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                _, sock = self._queue.receive_nowait()
                if sock is not None:
                    sock.close()

    async def _write(self, packet: bytes, sock: socket.socket | None) -> None:
        numbers = array.array("i", [] if sock is None else [sock.fileno()])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if numbers else []
        while True:
            try:
                self._socket.sendmsg([packet], rights)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            else:
                return

    async def flush(self) -> None:
        """Returns when everything said so far has left."""
        while self._waiting.statistics().current_buffer_used:  # noqa: ASYNC110  # nothing tells
            await trio.sleep(0.001)

    async def receive(self) -> tuple[Word, socket.socket | None]:
        """The next word, and the socket that came with it. Raises ChannelEnded."""
        while True:
            try:
                packet, ancillary, flags, _ = self._socket.recvmsg(MAX_PACKET_BYTES, _FDS_BYTES)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                continue
            except OSError as error:
                raise ChannelEnded(f"a process of this edge cannot be heard: {error.strerror}") from error
            sock = _socket_in(ancillary)
            if not packet:
                raise ChannelEnded("a process of this edge is gone")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ChannelEnded("a process of this edge said too much at once")
            return _word(packet), sock

    def close(self) -> None:
        """The other side hears the end."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()
        self._waiting.close()


def _word(packet: bytes) -> Word:
    try:
        name, fields = msgspec.msgpack.decode(packet, type=tuple[str, dict[str, Any]])
        word: Word = msgspec.convert(fields, _KINDS[name])
    except (msgspec.MsgspecError, KeyError) as error:
        raise ChannelEnded(f"a process of this edge is not understood: {error}") from error
    return word


def _socket_in(ancillary: list[tuple[int, int, bytes]]) -> socket.socket | None:
    for level, kind, raw in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(raw[: len(raw) - len(raw) % numbers.itemsize])
            with suppress(IndexError):
                return socket.socket(fileno=numbers[0])
    return None
