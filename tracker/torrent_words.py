"""Words between a tracker and its worker processes: one packet each on a Unix socket pair."""

from __future__ import annotations

import socket
from typing import TypeVar

import msgspec
import trio

from shared.core.errors import LocalError
from tracker.core.bep15 import TorrentStatistics
from tracker.core.torrents import Companions, TorrentAnnounce, TorrentCounts

MAX_PACKET_BYTES = 1 << 16
MAX_NAMED = 1000  # torrents in a word, of 22 bytes each


class WorkerGone(LocalError):
    """The process at the other end is gone, or says what none of ours says."""


class Said(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Any word."""


class Begin(Said, frozen=True, tag=True):
    """The first word, with what all workers have in common: the key of ids, and the time."""

    number: int
    workers: int
    key: bytes
    clock_offset: float
    log_level: str


class Change(Said, frozen=True, tag=True):
    """These torrents may be announced from now on, and those no more."""

    opened: list[bytes]
    closed: list[bytes]


class Announced(Said, frozen=True, tag=True):
    """A question: an announce that came to the HTTP door."""

    question: int
    announce: TorrentAnnounce
    address: bytes


class Scraped(Said, frozen=True, tag=True):
    """A question: counts of torrents."""

    question: int
    torrents: list[bytes]


class Count(Said, frozen=True, tag=True):
    """A question: what the worker has done so far."""

    question: int


class Ready(Said, frozen=True, tag=True):
    """It answers from now on."""


class Answer(Said, frozen=True, tag=True):
    """To the question of this number: one of these, or why there is none."""

    question: int
    companions: Companions | None = None
    counts: dict[bytes, TorrentCounts] | None = None
    done: Done | None = None
    refused: str | None = None


class Done(msgspec.Struct, frozen=True):
    """One worker's counters; `astray` are announces that were another's."""

    door: TorrentStatistics
    astray: int


Order = Begin | Change | Announced | Scraped | Count
Reply = Ready | Answer
W = TypeVar("W", Order, Reply)


class Wire:
    """One end. Raises WorkerGone when the other is gone."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(sock)
        self._sending = trio.Lock()

    async def send(self, word: Order | Reply) -> None:
        """Says it; waits while the other end has too much to read."""
        packet = msgspec.msgpack.encode(word)
        try:
            async with self._sending:
                await self._socket.send(packet)
        except (OSError, trio.ClosedResourceError) as error:
            raise WorkerGone("a process of this tracker cannot be spoken to") from error

    async def receive(self, decoder: msgspec.msgpack.Decoder[W]) -> W:
        """The next word."""
        try:
            packet = await self._socket.recv(MAX_PACKET_BYTES)
            if not packet:
                raise WorkerGone("a process of this tracker is gone")
            return decoder.decode(packet)
        except (OSError, trio.ClosedResourceError) as error:
            raise WorkerGone("a process of this tracker cannot be heard") from error
        except msgspec.MsgspecError as error:
            raise WorkerGone(f"a process of this tracker is not understood: {error}") from error

    def close(self) -> None:
        """The other side hears the end."""
        self._socket.close()


orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
