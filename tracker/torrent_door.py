"""BitTorrent's UDP door (BEP 15), for torrents of the catalogue: a socket driven in batches."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import random

import numpy as np
import trio

from shared import clock
from shared.core.ids import HostPort
from shared.sockets import bind
from tracker.core.bep15 import Batch, Bep15
from tracker.core.torrents import Companions, TorrentAnnounce, TorrentCounts
from tracker.mmsg import BatchSocket

SWEEP_SECONDS = 1.0
FOLLOW_SECONDS = 2.0  # until a new title may be announced, and a closed one may not


@dataclass(slots=True)
class TorrentDoor:
    """Serves one socket. Made by `open_torrent_door`."""

    core: Bep15
    _socket: BatchSocket

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._socket.raw.getsockname()[1])

    async def run(self) -> None:
        """Task: answers until cancelled."""
        sock = self._socket
        sweep_at = 0.0
        while True:
            await trio.lowlevel.wait_readable(sock.raw)
            while self._answer_some(now := clock.now()):
                await trio.lowlevel.checkpoint()  # others have their turn, and more datagrams come
            if now >= sweep_at:
                sweep_at = now + SWEEP_SECONDS
                self.core.expire(now)

    async def follow(self, torrents: Callable[[], Iterable[bytes]]) -> None:
        """Task: what `torrents` names may be announced, and nothing else."""
        while True:
            named = set(torrents())
            known = self.core.torrents.numbers.keys()
            await self.change(named - known, known - named)
            await trio.sleep(FOLLOW_SECONDS)

    async def change(self, opened: Iterable[bytes], closed: Iterable[bytes]) -> None:
        """These may be announced from now on, and those no more; returns when their peers are forgotten."""
        table = self.core.torrents
        for torrent in closed:
            table.forget(torrent)
        for torrent in opened:
            table.know(torrent)
        while table.clear():
            await trio.lowlevel.checkpoint()

    async def announce(self, said: TorrentAnnounce, address: bytes) -> Companions:
        """An announce from another door. Raises Refused."""
        return self.core.torrents.announce(said, address, clock.now(), random())

    async def scrape(self, asked: Sequence[bytes]) -> dict[bytes, TorrentCounts]:
        """What is known of these torrents; of those that may not be announced, nothing."""
        return self.core.torrents.scrape(asked)

    def _answer_some(self, now: float) -> int:
        sock = self._socket
        count = sock.receive()
        if count:
            lengths = np.zeros(count, np.int64)
            received, answers = sock.received[:count], sock.answers[:count]
            self.core.answer(Batch(received, sock.sizes(), sock.addresses(), answers, lengths), now)
            sock.send(lengths)
        return count


@asynccontextmanager
async def open_torrent_door(at: HostPort, setting: str) -> AsyncIterator[TorrentDoor]:
    """A door that answers at an address while the context is open. Raises LocalError naming `setting`."""
    dice = np.random.default_rng(int.from_bytes(os.urandom(16), "big"))
    with await bind(at, setting) as sock:
        door = TorrentDoor(Bep15(os.urandom(16), dice.random), BatchSocket(sock))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.run)
            yield door
            nursery.cancel_scope.cancel()
