"""BitTorrent's UDP door (BEP 15), for torrents of the catalogue: a socket driven in batches."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
import trio

from shared import clock
from shared.core.ids import HostPort
from shared.sockets import bind
from tracker.arrivals import Arrivals
from tracker.core.bep15 import Batch, Bep15
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
        sweep_at = 0.0
        with Arrivals(self._socket) as arrivals:
            while True:
                count = await arrivals.take()
                self._answer(count, now := clock.now())
                if now >= sweep_at:
                    sweep_at = now + SWEEP_SECONDS
                    self.core.expire(now)

    async def follow(self, torrents: Callable[[], Iterable[bytes]]) -> None:
        """Task: what `torrents` names may be announced, and nothing else."""
        table = self.core.torrents
        while True:
            named = set(torrents())
            for torrent in table.numbers.keys() - named:
                table.forget(torrent)
            for torrent in named:
                table.know(torrent)
            while table.clear():
                await trio.lowlevel.checkpoint()
            await trio.sleep(FOLLOW_SECONDS)

    def _answer(self, count: int, now: float) -> None:
        sock = self._socket
        lengths = np.zeros(count, np.int64)
        received, answers = sock.received[:count], sock.answers[:count]
        self.core.answer(Batch(received, sock.sizes(), sock.addresses(), answers, lengths), now)
        sock.send(lengths)


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
