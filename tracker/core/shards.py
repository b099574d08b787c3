"""Torrents dealt to worker processes by a byte of their infohash, and what one worker may say.

A datagram's byte 16 is the first of its torrent in announces and in scrapes alike, so the kernel
can deal: the worker is that byte modulo the number of workers. A scrape comes to the owner of its
first torrent, which knows nothing of other workers' torrents, and so answers only up to the first of
those: what it left out can be asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.core.bep15 import Batch, Bep15
from tracker.core.torrent_peers import HASH_BYTES

TORRENT_AT = 16  # in the datagram of an announce or a scrape
_ANNOUNCE_BYTES = 98
_SCRAPE, _ERROR = 2, 3
_HEAD_BYTES, _COUNTS_BYTES = 8, 12  # of an answer to a scrape, and of each torrent in it


@dataclass(frozen=True, slots=True)
class Shard:
    """Worker `number` of `workers`."""

    number: int
    workers: int

    def owns(self, torrent: bytes) -> bool:
        """Whether its datagrams come here."""
        return owner_of(torrent, self.workers) == self.number


def owner_of(torrent: bytes, workers: int) -> int:
    """The worker that a torrent belongs to."""
    return torrent[0] % workers


class ShardBep15(Bep15):
    """One worker's answers."""

    def __init__(self, shard: Shard, key: bytes, draw: Callable[[int], NDArray[Any]]) -> None:
        super().__init__(key, draw)
        self._shard = shard
        self.astray = 0  # announces that another worker should have had

    def answer(self, batch: Batch, now: float) -> None:
        """As of old; errors and scrapes are looked at again, which costs the usual batch one operation."""
        super().answer(batch, now)
        for row in np.flatnonzero((batch.answers[:, 3] > 1) & (batch.lengths > 0)).tolist():
            self._look_again(batch, row)

    def _look_again(self, batch: Batch, row: int) -> None:
        action, owns = int(batch.answers[row, 3]), self._shard.owns
        if action == _ERROR:
            torrent = batch.received[row, TORRENT_AT : TORRENT_AT + HASH_BYTES].tobytes()
            self.astray += int(batch.sizes[row]) >= _ANNOUNCE_BYTES and not owns(torrent)
        elif action == _SCRAPE:
            told = (int(batch.lengths[row]) - _HEAD_BYTES) // _COUNTS_BYTES
            firsts = batch.received[row, TORRENT_AT::HASH_BYTES][:told].tolist()
            ours = next((at for at, first in enumerate(firsts) if not owns(bytes([first]))), told)
            batch.lengths[row] = _HEAD_BYTES + ours * _COUNTS_BYTES if ours else 0
