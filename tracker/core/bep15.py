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

Steps that are alike for all datagrams of a batch are single numpy operations; only peers that are
new, change or leave are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from tracker.core.torrent_peers import TorrentPeers

EPOCH_SECONDS = 120.0  # an id is good for one to two of these (BEP 15)
INTERVAL_SECONDS = 1800
EXPIRY_SECONDS = 2.5 * INTERVAL_SECONDS
WANTED = 30  # peers in an answer, at most
MAX_SCRAPED = 50  # torrents of one scrape that are answered
HASH_BYTES = 20
UNKNOWN = "unknown torrent"

_MAGIC = np.frombuffer((0x41727101980).to_bytes(8, "big"), np.uint8)
_CONNECT, _ANNOUNCE, _SCRAPE, _ERROR = range(4)
_COMPLETED, _STOPPED = 1, 3
_CONNECT_BYTES, _ANNOUNCE_BYTES, _HEAD_BYTES = 16, 98, 16
_PEERS_AT = 20

Bytes = NDArray[np.uint8]
Lengths = NDArray[np.int64]


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
    """Datagrams, a row each: their bytes, their lengths, and the senders' addresses (16 bytes each)."""

    received: Bytes
    sizes: NDArray[Any]
    addresses: Bytes


class Bep15:
    """Answers batches. `key` is 16 secret bytes, `draw(n)` gives n numbers from 0 up to 1."""

    def __init__(self, key: bytes, draw: Callable[[int], NDArray[Any]], max_peers: int = 1_000_000) -> None:
        self._master = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # one block each
        self._draw = draw
        self._epoch = -1
        self._seal = self._last_seal = self._cipher(0)
        self._numbers: dict[bytes, int] = {}
        self._completed = np.zeros(16, np.int64)
        self._four, self._sixteen = TorrentPeers(6, max_peers), TorrentPeers(18, max_peers)
        self._counts = dict.fromkeys(("connects", "announces", "scrapes", "refusals", "ignored"), 0)

    def know(self, torrent: bytes) -> None:
        """A torrent that may be announced: its 20 bytes (BEP 52 cuts a v2 infohash)."""
        if torrent not in self._numbers:
            number = self._numbers[torrent] = len(self._numbers)
            for peers in (self._four, self._sixteen):
                peers.make_room(number + 1)
            while number >= len(self._completed):
                self._completed = np.concatenate([self._completed, np.zeros_like(self._completed)])

    def answer(self, batch: Batch, answers: Bytes, now: float) -> Lengths:
        """Writes an answer into each row of `answers`; how long each is, 0 for silence."""
        self._turn_epoch(now)
        lengths = np.zeros(len(batch.sizes), np.int64)
        actions = batch.received[: len(lengths), 8:12].view(">u4").ravel()
        is_whole = batch.sizes >= _CONNECT_BYTES
        asks = is_whole & (actions == _CONNECT) & (batch.received[: len(lengths), :8] == _MAGIC).all(axis=1)
        answers[: len(lengths), 4:8] = batch.received[: len(lengths), 12:16]
        ids = self._ids(batch.addresses[: len(lengths)], self._seal)
        self._connect(np.flatnonzero(asks), ids, answers, lengths)
        rest = np.flatnonzero(is_whole & ~asks)
        rest = rest[self._has_proved(batch, rest, ids, answers, lengths)]
        self._announce(batch, rest[actions[rest] == _ANNOUNCE], answers, lengths, now)
        self._scrape(batch, rest[actions[rest] == _SCRAPE], answers, lengths)
        self._counts["ignored"] += int((lengths == 0).sum())
        return lengths

    def expire(self, now: float) -> int:
        """Forgets some of the peers that fell silent; how many."""
        return self._four.expire(int(now)) + self._sixteen.expire(int(now))

    def statistics(self) -> TorrentStatistics:
        """A snapshot for screens."""
        peers = len(self._four) + len(self._sixteen)
        return TorrentStatistics(torrents=len(self._numbers), peers=peers, **self._counts)

    # -- proof of address -----------------------------------------------------------------------

    def _cipher(self, epoch: int) -> Any:
        key = self._master.update(epoch.to_bytes(16, "big"))
        return Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # one block each

    def _turn_epoch(self, now: float) -> None:
        epoch = int(now // EPOCH_SECONDS)
        if epoch != self._epoch:
            self._epoch = epoch
            self._seal, self._last_seal = self._cipher(epoch), self._cipher(max(0, epoch - 1))

    def _ids(self, addresses: Bytes, seal: Any) -> Bytes:
        blocks = np.frombuffer(seal.update(np.ascontiguousarray(addresses).tobytes()), np.uint8)
        return blocks.reshape(-1, 16)[:, :8]

    def _connect(self, rows: NDArray[Any], ids: Bytes, answers: Bytes, lengths: Lengths) -> None:
        if len(rows):
            answers[rows, 0:4] = 0
            answers[rows, 8:16] = ids[rows]
            lengths[rows] = _CONNECT_BYTES
            self._counts["connects"] += len(rows)

    def _has_proved(
        self, batch: Batch, rows: NDArray[Any], ids: Bytes, answers: Bytes, lengths: Lengths
    ) -> NDArray[np.bool_]:
        shown = batch.received[rows, :8]
        proved: NDArray[np.bool_] = (shown == ids[rows]).all(axis=1)
        if not proved.all():
            late = np.flatnonzero(~proved)
            before = self._ids(batch.addresses[rows[late]], self._last_seal)
            proved[late] = (shown[late] == before).all(axis=1)
            # Only what is as long as an announce is worth an error: it is no longer than what it answers.
            for row in rows[~proved].tolist():
                if batch.sizes[row] >= _ANNOUNCE_BYTES:
                    self._refuse(row, "connect again", answers, lengths)
        return proved

    # -- announces ------------------------------------------------------------------------------

    def _announce(
        self, batch: Batch, rows: NDArray[Any], answers: Bytes, lengths: Lengths, now: float
    ) -> None:
        rows = rows[batch.sizes[rows] >= _ANNOUNCE_BYTES]
        if not len(rows):
            return
        self._counts["announces"] += len(rows)
        numbers = self._numbers_of(batch.received[rows, 16:36])
        known: NDArray[np.bool_] = numbers >= 0
        for row in rows[~known].tolist():
            self._refuse(row, UNKNOWN, answers, lengths)
        rows, numbers = rows[known], numbers[known]
        is_four: NDArray[np.bool_] = (batch.addresses[rows, :12] == _MAPPED).all(axis=1)
        for peers, chosen in ((self._four, is_four), (self._sixteen, ~is_four)):
            if chosen.any():
                self._announce_to(peers, batch, rows[chosen], numbers[chosen], answers, lengths, now)

    def _announce_to(
        self, peers: TorrentPeers, batch: Batch, rows: NDArray[Any], numbers: NDArray[Any],
        answers: Bytes, lengths: Lengths, now: float,
    ) -> None:  # fmt: skip
        received = batch.received
        keys = np.empty((len(rows), 4 + peers.width), np.uint8)
        keys[:, :4] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
        keys[:, 4:-2] = batch.addresses[rows, 18 - peers.width :]
        keys[:, -2:] = received[rows, 96:98]
        names = keys.view(f"V{keys.shape[1]}").ravel().tolist()
        seeds = ~received[rows, 64:72].any(axis=1)
        events = received[rows, 83]
        records = peers.find(names)
        expires = int(now + EXPIRY_SECONDS)
        plain = (records >= 0) & (events != _STOPPED) & (events != _COMPLETED)
        plain[plain] = peers.is_seeder(records[plain]) == seeds[plain]
        peers.renew(records[plain], expires)
        refused = [
            at
            for at in np.flatnonzero(~plain).tolist()
            if not self._change(peers, int(numbers[at]), names[at], bool(seeds[at]), int(events[at]), expires)
        ]
        self._tell(peers, received, rows, numbers, answers, lengths)
        for at in refused:
            self._refuse(int(rows[at]), "too many peers", answers, lengths)

    def _change(
        self, peers: TorrentPeers, number: int, name: bytes, is_seeder: bool, event: int, expires: int
    ) -> bool:
        if event == _STOPPED:
            peers.remove(name)
            return True
        if event == _COMPLETED:
            self._completed[number] += 1
        return peers.put(number, name, is_seeder, expires)

    def _tell(
        self, peers: TorrentPeers, received: Bytes, rows: NDArray[Any], numbers: NDArray[Any],
        answers: Bytes, lengths: Lengths,
    ) -> None:  # fmt: skip
        counts, seeders = peers.counts[numbers], peers.seeders[numbers]
        head = np.empty((len(rows), 3), ">u4")
        head[:, 0] = INTERVAL_SECONDS
        head[:, 1], head[:, 2] = counts - seeders, seeders
        answers[rows, 0:4] = _ACTION[_ANNOUNCE]
        answers[rows, 8:20] = head.view(np.uint8).reshape(len(rows), 12)
        asked = received[rows, 92:96].view(">i4").ravel().astype(np.int64)
        wanted = np.where(asked < 0, WANTED, np.minimum(asked, WANTED))
        end = _PEERS_AT + WANTED * peers.width
        answers[rows, _PEERS_AT:end] = peers.windows(numbers, self._draw(len(rows)), WANTED)
        lengths[rows] = _PEERS_AT + np.minimum(counts, wanted) * peers.width

    # -- the rest -------------------------------------------------------------------------------

    def _scrape(self, batch: Batch, rows: NDArray[Any], answers: Bytes, lengths: Lengths) -> None:
        for row in rows.tolist():
            self._counts["scrapes"] += 1
            size = (int(batch.sizes[row]) - _HEAD_BYTES) // HASH_BYTES
            asked = batch.received[row, _HEAD_BYTES : _HEAD_BYTES + min(size, MAX_SCRAPED) * HASH_BYTES]
            numbers = self._numbers_of(asked.reshape(-1, HASH_BYTES))
            found = np.zeros((len(numbers), 3), ">u4")
            known = numbers >= 0
            for peers in (self._four, self._sixteen):
                found[known, 0] += peers.seeders[numbers[known]]
                found[known, 2] += (peers.counts - peers.seeders)[numbers[known]]
            found[known, 1] = self._completed[numbers[known]]
            answers[row, 0:4] = _ACTION[_SCRAPE]
            answers[row, 8 : 8 + found.nbytes] = found.view(np.uint8).ravel()
            lengths[row] = 8 + found.nbytes

    def _refuse(self, row: int, text: str, answers: Bytes, lengths: Lengths) -> None:
        said = text.encode()
        self._counts["refusals"] += 1
        answers[row, 0:4] = _ACTION[_ERROR]
        answers[row, 8 : 8 + len(said)] = np.frombuffer(said, np.uint8)
        lengths[row] = 8 + len(said)

    def _numbers_of(self, torrents: Bytes) -> NDArray[np.int64]:
        names = np.ascontiguousarray(torrents).view(f"V{HASH_BYTES}").ravel().tolist()
        get = self._numbers.get
        return np.fromiter((get(name, -1) for name in names), np.int64, len(names))


_ACTION = [np.frombuffer(action.to_bytes(4, "big"), np.uint8) for action in range(4)]
_MAPPED = np.frombuffer(b"\0" * 10 + b"\xff\xff", np.uint8)
