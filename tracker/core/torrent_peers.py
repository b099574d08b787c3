"""BitTorrent clients by torrent: who would be told of, in numpy rows, for batches of announces.

What a client is told of its companions is a window of neighbours in its torrent, from a random
start. Each torrent has a block of an arena in which its peers stand as they go over the wire, so a
window is one copy. A full block moves to one twice as large; a peer that leaves is replaced by the
last one. Everything is O(1) a peer. A `key` is a torrent's 20 bytes and a peer's: so one look-up
finds both, and who is found need not be looked up by torrent. Look-ups go to one of many small
dicts (`part_of`): a dict that grows moves everything it holds, and moving 700,000 keys takes 30 ms.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST_BLOCK = 4  # peers
HASH_BYTES = 20
MAX_PEERS_OF_ADDRESS = 64  # of one address in all torrents: more is a flood, not a household
SWEPT_AT_ONCE = 65536  # records looked at per call of `expire`
DROPPED_AT_ONCE = 2000
WIDEST_WINDOW = 64  # rows
HASH_SHIFT = 40  # a dict places keys by the low bits of their hash, so its part goes by others
PARTS = 64  # of a million keys none moves more than 11,000 at a time: half a millisecond

Rows = NDArray[Any]


class TorrentPeers:
    """The peers of one IP version; a peer is `width` bytes, its address and its port."""

    def __init__(self, width: int, max_peers: int) -> None:
        self.width = width
        self._max_peers = max_peers
        self._slots: list[dict[bytes, int]] = [{} for _ in range(PARTS)]  # key: record
        self._of_address: list[dict[bytes, int]] = [{} for _ in range(PARTS)]
        self._torrent, self._place = array("I"), array("I")
        self._expires = array("I")  # 0: a free record
        self._is_seeder = array("B")
        self._keys: list[bytes] = []
        self._free: list[int] = []
        self._swept = 0
        self._arena = bytearray()  # rows of `width` bytes
        self._record = array("I")  # whose row it is
        self._arena_end = 0
        self._free_blocks: dict[int, list[int]] = {}  # by size
        self.starts, self.sizes = array("q"), array("q")  # of each torrent's block, in rows
        self.counts, self.seeders = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._keys) - len(self._free)

    def make_room(self, torrents: int) -> None:
        """There are so many torrents, numbered from 0."""
        for column in (self.starts, self.sizes, self.counts, self.seeders):
            column.extend([0] * (torrents - len(column)))

    def find(self, keys: Sequence[bytes]) -> NDArray[np.int64]:
        """The records of peers by `key`, -1 for those that are not there."""
        slots = self._slots
        return np.array([slots[hash(key) >> HASH_SHIFT & PARTS - 1].get(key, -1) for key in keys], np.int64)

    def torrent_of(self, records: Rows) -> NDArray[np.int64]:
        """The numbers of these records' torrents."""
        return seen(self._torrent)[records].astype(np.int64) if self._keys else 0 * records

    def renew(self, records: Rows, expires: int) -> None:
        """These said again that they are there."""
        if len(records):
            seen(self._expires)[records] = expires

    def is_seeder(self, records: Rows) -> NDArray[np.bool_]:
        """Which of these have all of it."""
        flags: NDArray[np.bool_] = (seen(self._is_seeder) if self._keys else np.zeros(1))[records] != 0
        return flags

    def put(self, torrent: int, key: bytes, is_seeder: bool, expires: int) -> bool:
        """A peer is there, new or not; False if there are too many."""
        record = part_of(self._slots, key).get(key)
        if record is None:
            record = self._add(torrent, key)
            if record is None:
                return False
        self.seeders[torrent] += int(is_seeder) - self._is_seeder[record]
        self._is_seeder[record] = is_seeder
        self._expires[record] = expires
        return True

    def remove(self, key: bytes) -> None:
        """A peer left."""
        record = part_of(self._slots, key).pop(key, -1)
        if record < 0:
            return
        self._keys[record] = b""
        torrent, place = self._torrent[record], self._place[record]
        self._leave_address(key[HASH_BYTES:-2])
        self.seeders[torrent] -= self._is_seeder[record]
        self.counts[torrent] -= 1
        start, last = self.starts[torrent], self.counts[torrent]
        moved = self._record[start + last]
        self._put_row(start + place, self._rows(start + last, 1))
        self._record[start + place] = moved
        self._place[moved] = place
        self._expires[record] = 0
        self._is_seeder[record] = 0
        self._free.append(record)
        if not last:
            self._free_blocks.setdefault(self.sizes[torrent], []).append(start)
            self.sizes[torrent] = 0

    def remove_some(self, torrent: int, most: int) -> bool:
        """Takes up to `most` peers of a torrent away; whether it had any."""
        count = self.counts[torrent]
        for place in range(count - 1, max(-1, count - 1 - most), -1):
            self.remove(self._keys[self._record[self.starts[torrent] + place]])
        return count > 0

    def windows(self, torrents: Rows, dice: Rows, wanted: int) -> NDArray[np.uint8]:
        """For each request up to `wanted` neighbours from a random start: (requests, wanted * width).

        `torrents` are numbers, `dice` are from 0 up to 1. Where a torrent has fewer peers, what
        follows them in the row means nothing.
        """
        if not self._record:
            return np.zeros((len(torrents), wanted * self.width), np.uint8)
        counts = np.maximum(1, seen(self.counts)[torrents])
        starts, first = seen(self.starts)[torrents], (dice * counts).astype(np.int64)
        around = first + wanted > counts
        arena = np.frombuffer(self._arena, np.uint8)
        straight = np.lib.stride_tricks.as_strided(
            arena, (len(self._record) - wanted + 1, wanted * self.width), (self.width, 1), writeable=False
        )
        rows: NDArray[np.uint8] = straight[np.where(around, 0, starts + first)]
        ends = np.flatnonzero(around)
        if len(ends):
            steps = (first[ends, None] + np.arange(wanted)) % counts[ends, None]
            found = arena.view(f"V{self.width}").take(starts[ends, None] + steps)
            rows[ends] = found.view(np.uint8)
        return rows

    def window(self, torrent: int, dice: float, wanted: int) -> bytes:
        """The same for one request, without what means nothing."""
        count, start = self.counts[torrent], self.starts[torrent]
        first, wanted = int(dice * count), min(wanted, count)
        rest = first + wanted - count
        if rest <= 0:
            return self._rows(start + first, wanted)
        return self._rows(start + first, wanted - rest) + self._rows(start, rest)

    def renew_one(self, key: bytes, is_seeder: bool, expires: int) -> int:
        """The torrent's number, if the peer was there and nothing but its time changes; else -1."""
        record = part_of(self._slots, key).get(key, -1)
        if record < 0 or self._is_seeder[record] != is_seeder:
            return -1
        self._expires[record] = expires
        return self._torrent[record]

    def expire(self, tick: int) -> int:
        """Drops some of those that fell silent; how many."""
        end = min(len(self._expires), self._swept + SWEPT_AT_ONCE)
        if end == 0:
            return 0
        part = seen(self._expires)[self._swept : end]
        due = np.flatnonzero((part > 0) & (part <= tick))[:DROPPED_AT_ONCE] + self._swept
        del part  # or nothing may grow
        for record in due.tolist():
            self.remove(self._keys[record])
        if len(due) < DROPPED_AT_ONCE:
            self._swept = end % len(self._expires)
        return len(due)

    def _add(self, torrent: int, key: bytes) -> int | None:
        address = key[HASH_BYTES:-2]
        of_address = part_of(self._of_address, address)
        known = of_address.get(address, 0)
        if len(self) >= self._max_peers or known >= MAX_PEERS_OF_ADDRESS:
            return None
        of_address[address] = known + 1
        if not self._free:
            self._grow_records()
        record = part_of(self._slots, key)[key] = self._free.pop()
        self._keys[record] = key
        if self.counts[torrent] == self.sizes[torrent]:
            self._move(torrent)
        place = self.counts[torrent]
        self.counts[torrent] = place + 1
        row = self.starts[torrent] + place
        self._put_row(row, key[HASH_BYTES:])
        self._record[row] = record
        self._torrent[record], self._place[record] = torrent, place
        return record

    def _leave_address(self, address: bytes) -> None:
        of_address = part_of(self._of_address, address)
        left = of_address.get(address, 0) - 1
        if left > 0:
            of_address[address] = left
        else:
            of_address.pop(address, None)

    def _grow_records(self) -> None:
        before, more = len(self._keys), max(64, len(self._keys) // 16)
        self._keys += [b""] * more
        for column in (self._torrent, self._place, self._expires, self._is_seeder):
            column.frombytes(bytes(more * column.itemsize))
        self._free = list(range(before + more - 1, before - 1, -1))

    def _move(self, torrent: int) -> None:
        """The torrent's peers into a block of twice the size."""
        old_start, old_size = self.starts[torrent], self.sizes[torrent]
        size = max(FIRST_BLOCK, 2 * old_size)
        start = self._block(size)
        if old_size:
            self._put_row(start, self._rows(old_start, old_size))
            self._record[start : start + old_size] = self._record[old_start : old_start + old_size]
            self._free_blocks.setdefault(old_size, []).append(old_start)
        self.starts[torrent], self.sizes[torrent] = start, size

    def _block(self, size: int) -> int:
        free = self._free_blocks.get(size)
        if free:
            return free.pop()
        start = self._arena_end
        self._arena_end += size
        # A window that begins anywhere must not read past the end.
        missing = self._arena_end + WIDEST_WINDOW - len(self._record)
        if missing > 0:
            more = max(missing, len(self._record) // 16)
            self._record.frombytes(bytes(more * self._record.itemsize))
            self._arena.extend(bytes(more * self.width))
        return start

    def _rows(self, start: int, count: int) -> bytes:
        return bytes(self._arena[start * self.width : (start + count) * self.width])

    def _put_row(self, start: int, rows: bytes) -> None:
        self._arena[start * self.width : start * self.width + len(rows)] = rows


def part_of(parts: list[dict[bytes, int]], key: bytes) -> dict[bytes, int]:
    """The dict that a key stands in, if it is there."""
    return parts[hash(key) >> HASH_SHIFT & PARTS - 1]


def seen(column: array[Any]) -> Rows:
    """The column's own memory as a numpy vector; let it go before anything grows."""
    return np.frombuffer(column, dtype=column.typecode)
