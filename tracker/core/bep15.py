"""BitTorrent's UDP tracker protocol (BEP 15), a batch of datagrams at a time.

    connect   0x41727101980 (8) | 0 (4) | transaction (4)          -> 0 | transaction | id (8)
    announce  id (8) | 1 (4) | transaction (4) | torrent (20) | ... -> 1 | transaction | interval |
              leechers | seeders | peers (6 or 18 bytes each)
    scrape    id (8) | 2 (4) | transaction (4) | torrents (20 each) -> 2 | transaction | 12 bytes each
    error                                                          -> 3 | transaction | text

Strangers cost no state: an id is the client's own address, enciphered with a key that changes
every two minutes, so it proves, when it comes back, that the client receives what is sent to that
address. Until then an answer is as long as the question. Announces are for the address they come
from; what they say of another is not read.

In a large batch, steps that are alike for all datagrams are single numpy operations, and only peers
that are new, change or leave are looked at one by one. In a small one the usual announce is
answered alone: a numpy operation costs as much for one datagram as for fifty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from tracker.core.torrent_peers import HASH_BYTES, TorrentPeers, seen
from tracker.core.torrents import EXPIRY_SECONDS, INTERVAL_SECONDS, TOO_MANY, UNKNOWN, WANTED, Torrents

EPOCH_SECONDS = 120.0  # an id is good for one to two of these (BEP 15)
MAX_SCRAPED = 50  # torrents of one scrape that are answered
FEW = 40  # in a smaller batch most are answered one by one
MAX_KNOWN_IDS = 4096
DRAWN_AHEAD = 256
CONNECT = "connect again"

_CONNECT, _ANNOUNCE, _SCRAPE, _ERROR = range(4)
_ACTIONS = [np.frombuffer(action.to_bytes(4, "big"), np.uint8) for action in range(4)]
_SAID = [action << 24 for action in range(4)]  # read as little-endian, which is cheaper to compare
_MAGIC = int.from_bytes((0x41727101980).to_bytes(8, "big"), "little")
_MAPPED_BYTES = b"\0" * 10 + b"\xff\xff"
_MAPPED = int.from_bytes(_MAPPED_BYTES[8:], "little")
_COMPLETED, _STOPPED = 1, 3
_PLAIN_EVENTS = (0, 2)  # none, started
_CONNECT_BYTES, _ANNOUNCE_BYTES, _PEERS_AT = 16, 98, 20
_ANNOUNCE_HEAD = (1).to_bytes(4, "big")
_ANNOUNCE_FORMAT = Struct(">8s4s4s20s28xQ8xI8xi2s")  # as far as it is read
_ANSWER_FORMAT = Struct(">I4sIII")

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TorrentStatistics:
    """Counters from the start on; peers are those of now."""

    torrents: int
    peers: int
    connects: int
    announces: int
    scrapes: int
    refusals: int  # errors said: no such torrent, too many peers, an id that is not good
    ignored: int  # datagrams that are none of ours


@dataclass(frozen=True, slots=True)
class Batch:
    """Datagrams, a row each, the senders' addresses (16 bytes each), and where answers are written.

    `lengths` says how long each answer is, 0 for silence.
    """

    received: Bytes
    sizes: NDArray[Any]
    addresses: Bytes
    answers: Bytes
    lengths: Numbers

    def part(self, rows: Any) -> Batch:
        """Some rows of it, to read; a slice is looked at, an array of numbers copied."""
        return Batch(
            self.received[rows],
            self.sizes[rows],
            self.addresses[rows],
            self.answers[rows],
            self.lengths[rows],
        )


class Bep15:
    """Answers batches. `key` is 16 secret bytes, `draw(n)` gives n numbers from 0 up to 1."""

    def __init__(self, key: bytes, draw: Callable[[int], NDArray[Any]], max_peers: int = 1_000_000) -> None:
        self._master = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # of single blocks
        self._draw = draw
        self._drawn: list[float] = []  # one at a time would be dear
        self._epoch = -1
        self._seal = self._last_seal = self._cipher(0)
        self._known_ids: dict[bytes, bytes] = {}  # of this epoch
        self.torrents = Torrents(max_peers)
        self._numbers = self.torrents.numbers
        self._four, self._sixteen = self.torrents.four, self.torrents.six
        self._counts = dict.fromkeys(("connects", "announces", "scrapes", "refusals", "ignored"), 0)

    def know(self, torrent: bytes) -> None:
        """A torrent that may be announced: its 20 bytes (BEP 52 cuts a v2 infohash)."""
        self.torrents.know(torrent)

    def answer(self, batch: Batch, now: float) -> None:
        """Writes answers and their lengths."""
        self._turn_epoch(now)
        batch.lengths[:] = 0
        count = len(batch.lengths)
        if count >= FEW:
            self._answer_all(batch, now)
        else:
            for row in self._renew_some(batch, now):
                self._answer_all(batch.part(slice(row, row + 1)), now)
        self._counts["ignored"] += count - int(np.count_nonzero(batch.lengths))

    def expire(self, now: float) -> int:
        """Forgets some of the peers that fell silent; how many."""
        return self.torrents.expire(now)

    def statistics(self) -> TorrentStatistics:
        """A snapshot for screens."""
        peers = len(self._four) + len(self._sixteen)
        return TorrentStatistics(torrents=len(self._numbers), peers=peers, **self._counts)

    # -- proof of address -----------------------------------------------------------------------

    def _cipher(self, epoch: int) -> Any:
        key = self._master.update(epoch.to_bytes(16, "big"))
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor()

    def _turn_epoch(self, now: float) -> None:
        epoch = int(now // EPOCH_SECONDS)
        if epoch != self._epoch:
            self._epoch = epoch
            self._known_ids.clear()
            self._seal, self._last_seal = self._cipher(epoch), self._cipher(max(0, epoch - 1))

    def _id_of(self, address: bytes) -> bytes:
        known = self._known_ids.get(address)
        if known is None:
            if len(self._known_ids) >= MAX_KNOWN_IDS:
                self._known_ids.clear()
            known = self._known_ids[address] = self._seal.update(address)[:8]
        return known

    def _answer_all(self, batch: Batch, now: float) -> None:
        batch.answers[:, 4:8] = batch.received[:, 12:16]
        actions = batch.received[:, 8:12].view("<u4").ravel()
        shown = batch.received[:, :8].view("<u8").ravel()
        ids = _ids(batch.addresses, self._seal)
        is_whole: Flags = batch.sizes >= _CONNECT_BYTES
        proved: Flags = is_whole & (shown == ids)
        if not proved.all():
            asks: Flags = is_whole & (actions == _SAID[_CONNECT]) & (shown == _MAGIC)
            self._connect(batch, np.flatnonzero(asks), ids)
            self._prove_late(batch, np.flatnonzero(is_whole & ~asks & ~proved), proved, shown)
        announces: Flags = proved & (actions == _SAID[_ANNOUNCE]) & (batch.sizes >= _ANNOUNCE_BYTES)
        self._announce(batch, announces, now)
        scrapes: Flags = proved & (actions == _SAID[_SCRAPE])
        for row in np.flatnonzero(scrapes).tolist():
            self._scrape(batch, row)

    def _connect(self, batch: Batch, rows: NDArray[Any], ids: NDArray[np.uint64]) -> None:
        if len(rows):
            batch.answers[rows, 0:4] = 0
            batch.answers[rows, 8:16] = ids[rows].view(np.uint8).reshape(-1, 8)
            batch.lengths[rows] = _CONNECT_BYTES
            self._counts["connects"] += len(rows)

    def _prove_late(self, batch: Batch, rows: NDArray[Any], proved: Flags, shown: NDArray[Any]) -> None:
        """Takes ids of the epoch before as well, and says no to others."""
        proved[rows] = shown[rows] == _ids(batch.addresses[rows], self._last_seal)
        # Only what is as long as an announce is worth an error, which is not longer than that.
        for row in rows[~proved[rows]].tolist():
            if batch.sizes[row] >= _ANNOUNCE_BYTES:
                self._refuse(batch, row, CONNECT)

    # -- announces ------------------------------------------------------------------------------

    def _renew_some(self, batch: Batch, now: float) -> list[int]:
        """Answers the usual announces, of peers that are known, one by one; the rows of the others."""
        received, answers = batch.received.data.cast("B"), batch.answers.data.cast("B")
        width, room = batch.received.shape[1], batch.answers.shape[1]
        addresses, others = batch.addresses.tobytes(), []
        lengths = [0] * len(batch.lengths)
        for row, size in enumerate(batch.sizes.tolist()):
            address = addresses[16 * row : 16 * row + 16]
            answer = b"" if size < _ANNOUNCE_BYTES else self._renew_one(received, row * width, address, now)
            if answer:
                answers[row * room : row * room + len(answer)] = answer
                lengths[row] = len(answer)
            else:
                others.append(row)
        batch.lengths[:] = lengths
        self._counts["announces"] += len(lengths) - len(others)
        return others

    def _renew_one(self, received: memoryview, at: int, address: bytes, now: float) -> bytes:
        """The answer to the announce that stands at `at`; empty if it is not the usual one."""
        claim, action, transaction, torrent, left, event, asked, port = _ANNOUNCE_FORMAT.unpack_from(
            received, at
        )
        if event not in _PLAIN_EVENTS or action != _ANNOUNCE_HEAD or claim != self._id_of(address):
            return b""
        peers = self._four if address.startswith(_MAPPED_BYTES) else self._sixteen
        key = torrent + address[18 - peers.width :] + port
        number = peers.renew_one(key, not left, int(now + EXPIRY_SECONDS))
        if number < 0:
            return b""
        count, seeders = peers.counts[number], peers.seeders[number]
        head = _ANSWER_FORMAT.pack(_ANNOUNCE, transaction, INTERVAL_SECONDS, count - seeders, seeders)
        wanted = WANTED if asked < 0 else min(asked, WANTED)
        return head + peers.window(number, self._next_draw(), wanted)

    def _next_draw(self) -> float:
        if not self._drawn:
            self._drawn = self._draw(DRAWN_AHEAD).tolist()
        return self._drawn.pop()

    def _announce(self, batch: Batch, announces: Flags, now: float) -> None:
        addresses = batch.addresses
        is_four: Flags = (addresses[:, 0:8].view("<u8").ravel() == 0) & (
            addresses[:, 8:12].view("<u4").ravel() == _MAPPED
        )
        for peers, chosen in ((self._four, announces & is_four), (self._sixteen, announces & ~is_four)):
            if chosen.all():
                self._announce_to(peers, batch, slice(0, len(chosen)), now)
            elif chosen.any():
                self._announce_to(peers, batch, np.flatnonzero(chosen), now)

    def _announce_to(self, peers: TorrentPeers, batch: Batch, rows: Any, now: float) -> None:
        part = batch.part(rows)
        names = _keys(peers.width, part)
        seeds: Flags = part.received[:, 64:72].view("<u8").ravel() == 0
        events = part.received[:, 83]
        records = peers.find(names)
        self._counts["announces"] += len(records)
        expires = int(now + EXPIRY_SECONDS)
        plain: Flags = (records >= 0) & (peers.is_seeder(records) == seeds)
        plain &= (events != _STOPPED) & (events != _COMPLETED)
        numbers = peers.torrent_of(records)
        peers.renew(records[plain], expires)
        refusals: list[tuple[int, str]] = []
        for at in np.flatnonzero(~plain).tolist():
            numbers[at] = number = self._numbers.get(names[at][:HASH_BYTES], 0)
            if names[at][:HASH_BYTES] not in self._numbers:
                refusals.append((at, UNKNOWN))
            elif not self._change(peers, number, names[at], bool(seeds[at]), int(events[at]), expires):
                refusals.append((at, TOO_MANY))
        self._tell(peers, batch, rows, part.received, numbers)
        for at, text in refusals:
            self._refuse(batch, at if isinstance(rows, slice) else int(rows[at]), text)

    def _change(
        self, peers: TorrentPeers, number: int, key: bytes, is_seeder: bool, event: int, expires: int
    ) -> bool:
        if event == _STOPPED:
            peers.remove(key)
            return True
        if event == _COMPLETED:
            self.torrents.completed[number] += 1
        return peers.put(number, key, is_seeder, expires)

    def _tell(self, peers: TorrentPeers, batch: Batch, rows: Any, said: Bytes, numbers: Numbers) -> None:
        if not self._numbers:
            return
        counts, seeders = seen(peers.counts)[numbers], seen(peers.seeders)[numbers]
        head = np.empty((len(numbers), 3), ">u4")
        head[:, 0] = INTERVAL_SECONDS
        head[:, 1], head[:, 2] = counts - seeders, seeders
        asked = said[:, 92:96].view(">i4").ravel().astype(np.int64)
        wanted = np.where(asked < 0, WANTED, np.minimum(asked, WANTED))
        batch.answers[rows, 0:4] = _ACTIONS[_ANNOUNCE]
        batch.answers[rows, 8:_PEERS_AT] = head.view(np.uint8)
        end = _PEERS_AT + WANTED * peers.width
        batch.answers[rows, _PEERS_AT:end] = peers.windows(numbers, self._draw(len(numbers)), WANTED)
        batch.lengths[rows] = _PEERS_AT + np.minimum(counts, wanted) * peers.width

    # -- the rest -------------------------------------------------------------------------------

    def _scrape(self, batch: Batch, row: int) -> None:
        self._counts["scrapes"] += 1
        asked = min((int(batch.sizes[row]) - _CONNECT_BYTES) // HASH_BYTES, MAX_SCRAPED)
        said = batch.received[row, _CONNECT_BYTES : _CONNECT_BYTES + asked * HASH_BYTES].tobytes()
        found = np.zeros((asked, 3), ">u4")
        for at in range(asked):
            torrent = said[at * HASH_BYTES : (at + 1) * HASH_BYTES]
            if torrent in self._numbers:
                counts = self.torrents.counts(torrent)
                found[at] = counts.seeders, counts.completed, counts.leechers
        batch.answers[row, 0:4] = _ACTIONS[_SCRAPE]
        batch.answers[row, 8 : 8 + found.nbytes] = found.view(np.uint8).ravel()
        batch.lengths[row] = 8 + found.nbytes

    def _refuse(self, batch: Batch, row: int, text: str) -> None:
        self._counts["refusals"] += 1
        said = text.encode()
        batch.answers[row, 0:4] = _ACTIONS[_ERROR]
        batch.answers[row, 8 : 8 + len(said)] = np.frombuffer(said, np.uint8)
        batch.lengths[row] = 8 + len(said)


def _ids(addresses: Bytes, seal: Any) -> NDArray[np.uint64]:
    return np.frombuffer(seal.update(addresses.tobytes()), "<u8")[::2]


def _keys(width: int, part: Batch) -> list[bytes]:
    keys = np.empty((len(part.received), HASH_BYTES + width), np.uint8)
    keys[:, :HASH_BYTES] = part.received[:, 16:36]
    keys[:, HASH_BYTES:-2] = part.addresses[:, 18 - width :]
    keys[:, -2:] = part.received[:, 96:98]
    names: list[bytes] = keys.view(f"V{keys.shape[1]}").ravel().tolist()
    return names
