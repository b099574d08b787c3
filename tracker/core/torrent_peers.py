"""BitTorrent clients by torrent: who would be told of, in numpy rows, for batches of announces.

What a client is told of its companions is a window of neighbours in its torrent, from a random
start. Each torrent has a block of an arena in which its peers stand as they go over the wire, so a
window is one copy. A full block moves to one twice as large; a peer that leaves is replaced by the
last one. Everything is O(1) a peer. A `key` is a torrent's 20 bytes and a peer's: so one look-up
finds both, and who is found need not be looked up by torrent.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST_BLOCK = 4  # peers
HASH_BYTES = 20
MAX_PEERS_OF_ADDRESS = 64  # of one address in all torrents: more is a flood, not a household
SWEPT_AT_ONCE = 65536  # records looked at per call of `expire`
DROPPED_AT_ONCE = 2000

Rows = NDArray[Any]


class TorrentPeers:
    """The peers of one IP version; a peer is `width` bytes, its address and its port."""

    def __init__(self, width: int, max_peers: int) -> None:
        self.width = width
        self._max_peers = max_peers
        self._slots: dict[bytes, int] = {}  # key: record
        self._of_address: dict[bytes, int] = {}
        self._torrent = np.zeros(64, np.uint32)
        self._place = np.zeros(64, np.uint32)
        self._keys = [b""] * 64
        self._expires = np.zeros(64, np.uint32)  # 0: a free record
        self._is_seeder = np.zeros(64, np.bool_)
        self._free: list[int] = list(range(63, -1, -1))
        self._swept = 0
        self._arena = np.zeros(256, f"V{width}")
        self._record = np.zeros(256, np.uint32)  # whose row it is
        self._arena_end = 0
        self._free_blocks: dict[int, list[int]] = {}  # by size
        self.starts = np.zeros(16, np.int64)  # of each torrent's block
        self.sizes = np.zeros(16, np.int64)
        self.counts = np.zeros(16, np.int64)
        self.seeders = np.zeros(16, np.int64)

    def __len__(self) -> int:
        return len(self._slots)

    def make_room(self, torrents: int) -> None:
        """There are so many torrents, numbered from 0."""
        while torrents > len(self.starts):
            for name in ("starts", "sizes", "counts", "seeders"):
                setattr(self, name, _doubled(getattr(self, name)))

    def find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """The records of peers by `key`, -1 for those that are not there."""
        return np.fromiter(map(self._slots.get, keys, repeat(-1)), np.int64, len(keys))

    def torrent_of(self, records: Rows) -> NDArray[np.int64]:
        """The numbers of these records' torrents."""
        return self._torrent[records].astype(np.int64)

    def renew(self, records: Rows, expires: int) -> None:
        """These said again that they are there."""
        self._expires[records] = expires

    def is_seeder(self, records: Rows) -> NDArray[np.bool_]:
        """Which of these have all of it."""
        return self._is_seeder[records]

    def put(self, torrent: int, key: bytes, is_seeder: bool, expires: int) -> bool:
        """A peer is there, new or not; False if there are too many."""
        record = self._slots.get(key)
        if record is None:
            record = self._add(torrent, key)
            if record is None:
                return False
        self.seeders[torrent] += int(is_seeder) - int(self._is_seeder[record])
        self._is_seeder[record] = is_seeder
        self._expires[record] = expires
        return True

    def remove(self, key: bytes) -> None:
        """A peer left."""
        record = self._slots.pop(key, -1)
        if record < 0:
            return
        self._keys[record] = b""
        torrent, place = int(self._torrent[record]), int(self._place[record])
        self._leave_address(key[HASH_BYTES:-2])
        self.seeders[torrent] -= int(self._is_seeder[record])
        self.counts[torrent] -= 1
        start, last = int(self.starts[torrent]), int(self.counts[torrent])
        moved = int(self._record[start + last])
        self._arena[start + place] = self._arena[start + last]
        self._record[start + place] = moved
        self._place[moved] = place
        self._expires[record] = 0
        self._is_seeder[record] = False
        self._free.append(record)
        if not last:
            self._free_blocks.setdefault(int(self.sizes[torrent]), []).append(start)
            self.sizes[torrent] = 0

    def windows(self, torrents: Rows, dice: Rows, wanted: int) -> NDArray[np.uint8]:
        """For each request up to `wanted` neighbours from a random start: (requests, wanted * width).

        `torrents` are numbers, `dice` are from 0 up to 1. Where a torrent has fewer peers, what
        follows them in the row means nothing.
        """
        counts = np.maximum(1, self.counts[torrents])
        starts, first = self.starts[torrents], (dice * counts).astype(np.int64)
        straight = np.lib.stride_tricks.as_strided(
            self._arena.view(np.uint8),
            (len(self._arena) - wanted + 1, wanted * self.width),
            (self.width, 1),
            writeable=False,
        )
        rows: NDArray[np.uint8] = straight[np.minimum(starts + first, len(straight) - 1)]
        around = np.flatnonzero(first + wanted > counts)
        if len(around):
            steps = (first[around, None] + np.arange(wanted)) % counts[around, None]
            found = self._arena.take(starts[around, None] + steps)
            rows[around] = found.view(np.uint8).reshape(len(around), -1)
        return rows

    def window(self, torrent: int, dice: float, wanted: int) -> bytes:
        """The same for one request, without what means nothing."""
        count, start = int(self.counts[torrent]), int(self.starts[torrent])
        first, wanted = int(dice * count), min(wanted, count)
        if first + wanted <= count:
            return self._arena[start + first : start + first + wanted].tobytes()
        rest = first + wanted - count
        return (
            self._arena[start + first : start + count].tobytes() + self._arena[start : start + rest].tobytes()
        )

    def renew_one(self, key: bytes, is_seeder: bool, expires: int) -> int:
        """The torrent's number, if the peer was there and nothing but its time changes; else -1."""
        record = self._slots.get(key, -1)
        if record < 0 or self._is_seeder[record] != is_seeder:
            return -1
        self._expires[record] = expires
        return int(self._torrent[record])

    def expire(self, tick: int) -> int:
        """Drops some of those that fell silent; how many."""
        end = min(len(self._expires), self._swept + SWEPT_AT_ONCE)
        part = self._expires[self._swept : end]
        due = np.flatnonzero((part > 0) & (part <= tick))[:DROPPED_AT_ONCE] + self._swept
        for record in due.tolist():
            self.remove(self._keys[record])
        if len(due) < DROPPED_AT_ONCE:
            self._swept = end % len(self._expires)
        return len(due)

    def _add(self, torrent: int, key: bytes) -> int | None:
        address = key[HASH_BYTES:-2]
        known = self._of_address.get(address, 0)
        if len(self._slots) >= self._max_peers or known >= MAX_PEERS_OF_ADDRESS:
            return None
        self._of_address[address] = known + 1
        if not self._free:
            self._grow_records()
        record = self._slots[key] = self._free.pop()
        self._keys[record] = key
        if self.counts[torrent] == self.sizes[torrent]:
            self._move(torrent)
        place = int(self.counts[torrent])
        self.counts[torrent] = place + 1
        row = int(self.starts[torrent]) + place
        self._arena[row] = np.frombuffer(key[HASH_BYTES:], self._arena.dtype)[0]
        self._record[row] = record
        self._torrent[record], self._place[record] = torrent, place
        return record

    def _leave_address(self, address: bytes) -> None:
        left = self._of_address.get(address, 0) - 1
        if left > 0:
            self._of_address[address] = left
        else:
            self._of_address.pop(address, None)

    def _grow_records(self) -> None:
        before = len(self._expires)
        for name in ("_torrent", "_place", "_expires", "_is_seeder"):
            setattr(self, name, _doubled(getattr(self, name)))
        self._keys += [b""] * before
        self._free = list(range(2 * before - 1, before - 1, -1))

    def _move(self, torrent: int) -> None:
        """The torrent's peers into a block of twice the size."""
        old_start, old_size = int(self.starts[torrent]), int(self.sizes[torrent])
        size = max(FIRST_BLOCK, 2 * old_size)
        start = self._block(size)
        self._arena[start : start + old_size] = self._arena[old_start : old_start + old_size]
        self._record[start : start + old_size] = self._record[old_start : old_start + old_size]
        if old_size:
            self._free_blocks.setdefault(old_size, []).append(old_start)
        self.starts[torrent], self.sizes[torrent] = start, size

    def _block(self, size: int) -> int:
        free = self._free_blocks.get(size)
        if free:
            return free.pop()
        start = self._arena_end
        self._arena_end += size
        while self._arena_end > len(self._arena):
            self._arena, self._record = _doubled(self._arena), _doubled(self._record)
        return start


def _doubled(column: Rows) -> Rows:
    return np.concatenate([column, np.zeros_like(column)])
