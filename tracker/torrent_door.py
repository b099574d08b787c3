"""BitTorrent's UDP door (BEP 15), for torrents of the catalogue: a socket driven in batches."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from math import inf

import numpy as np
import trio

from shared import clock
from shared.core.ids import HostPort
from shared.sockets import bind
from tracker.core.bep15 import Batch, Bep15
from tracker.mmsg import BATCH, BatchSocket

BUSY_SECONDS = 0.002  # since the last batch: then wait a moment, so that more come at once
GATHER_SECONDS = 0.0004
SWEEP_SECONDS = 1.0


@dataclass(slots=True)
class TorrentDoor:
    """Serves one socket. Made by `open_torrent_door`."""

    core: Bep15
    _socket: BatchSocket
    _answered_at: float = field(default=-inf)

    async def run(self) -> None:
        """Task: answers until cancelled."""
        sock = self._socket
        sweep_at = 0.0
        while True:
            await trio.lowlevel.wait_readable(sock.raw)
            now = clock.now()
            if now - self._answered_at < BUSY_SECONDS:
                await trio.sleep(GATHER_SECONDS)
            while self._answer_some(now) == BATCH:
                await trio.lowlevel.checkpoint()
            if now >= sweep_at:
                sweep_at = now + SWEEP_SECONDS
                self.core.expire(now)

    def _answer_some(self, now: float) -> int:
        sock = self._socket
        count = sock.receive()
        if count:
            some = slice(0, count)
            lengths = np.zeros(count, np.int64)
            self.core.answer(
                Batch(
                    sock.received[some], sock.sizes[some], sock.addresses[some], sock.answers[some], lengths
                ),
                now,
            )
            sock.send(lengths)
            self._answered_at = clock.now()
        return count


async def open_torrent_door(at: HostPort, setting: str) -> TorrentDoor:
    """A door at an address; its socket lives as long as the process. Raises LocalError naming `setting`."""
    sock = await bind(at, setting)
    dice = np.random.default_rng(int.from_bytes(os.urandom(16), "big"))
    return TorrentDoor(Bep15(os.urandom(16), dice.random), BatchSocket(sock))
