"""Torrents that stock BitTorrent clients may announce, and those who do: one table for all doors.

The UDP door (`bep15`) looks at batches and goes into the table itself; whoever has one announce
at a time asks here.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.core.errors import Reason, Refused
from tracker.core.torrent_peers import HASH_BYTES, TorrentPeers

INTERVAL_SECONDS = 1800
EXPIRY_SECONDS = 2.5 * INTERVAL_SECONDS
WANTED = 30  # peers of an IP version in an answer, at most
CLEARED_AT_ONCE = 2000
UNKNOWN, TOO_MANY = "unknown torrent", "too many peers"
FOUR_BYTES, SIX_BYTES = 6, 18  # a peer on the wire: address and port


class TorrentEvent(StrEnum):
    """What an announce reports (BEP 3); BEP 21 adds the last."""

    NONE = ""
    STARTED = "started"
    COMPLETED = "completed"
    STOPPED = "stopped"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class TorrentAnnounce:
    """One client's announce of one torrent."""

    torrent: bytes  # 20
    port: int
    left: int  # bytes it lacks; 0: a seeder
    event: TorrentEvent
    wanted: int  # peers, at most


@dataclass(frozen=True, slots=True)
class Companions:
    """The answer: counts of everybody, and some of them, as BEP 23 and BEP 7 pack them."""

    seeders: int
    leechers: int
    four: bytes
    six: bytes


@dataclass(frozen=True, slots=True)
class TorrentCounts:
    """What a scrape tells of a torrent."""

    seeders: int
    completed: int
    leechers: int


class Torrents:
    """Torrents are named by 20 bytes (BEP 52 cuts a v2 infohash)."""

    def __init__(self, max_peers: int = 1_000_000) -> None:
        """`max_peers` are of one IP version."""
        self.numbers: dict[bytes, int] = {}
        self.completed = array("q")
        self.four, self.six = TorrentPeers(FOUR_BYTES, max_peers), TorrentPeers(SIX_BYTES, max_peers)
        self._leaving: list[int] = []

    def know(self, torrent: bytes) -> None:
        """It may be announced."""
        if torrent not in self.numbers:
            number = self.numbers[torrent] = len(self.completed)
            for peers in (self.four, self.six):
                peers.make_room(number + 1)
            self.completed.append(0)

    def forget(self, torrent: bytes) -> None:
        """It may not be announced any more, and nobody is told of its peers; `clear` lets go of them."""
        number = self.numbers.pop(torrent, None)
        if number is not None:
            self._leaving.append(number)

    def clear(self) -> bool:
        """Lets go of some peers of forgotten torrents; whether there may be more."""
        while self._leaving:
            number = self._leaving[-1]
            if any(peers.remove_some(number, CLEARED_AT_ONCE) for peers in (self.four, self.six)):
                return True
            self._leaving.pop()
        return False

    def announce(self, said: TorrentAnnounce, address: bytes, now: float, dice: float) -> Companions:
        """One announce of a client at an address of 4 or 16 bytes, `dice` from 0 up to 1.

        Raises Refused with UNKNOWN or TOO_MANY.
        """
        number = self._number(said.torrent)
        key = said.torrent + address + said.port.to_bytes(2, "big")
        peers = self.four if len(address) + 2 == FOUR_BYTES else self.six
        if said.event is TorrentEvent.STOPPED:
            peers.remove(key)
        elif not peers.put(number, key, not said.left, int(now + EXPIRY_SECONDS)):
            raise Refused(Reason.BUSY, TOO_MANY)
        elif said.event is TorrentEvent.COMPLETED:
            self.completed[number] += 1
        counts = self._counts(number)
        return Companions(
            counts.seeders,
            counts.leechers,
            self.four.window(number, dice, said.wanted),
            self.six.window(number, dice, said.wanted),
        )

    def counts(self, torrent: bytes) -> TorrentCounts:
        """How many there are. Raises Refused with UNKNOWN."""
        return self._counts(self._number(torrent))

    def scrape(self, asked: Sequence[bytes]) -> dict[bytes, TorrentCounts]:
        """The counts of those that may be announced here."""
        return {torrent: self.counts(torrent) for torrent in asked if torrent in self.numbers}

    def expire(self, now: float) -> int:
        """Forgets some of the peers that fell silent; how many."""
        return self.four.expire(int(now)) + self.six.expire(int(now))

    def _number(self, torrent: bytes) -> int:
        number = self.numbers.get(torrent) if len(torrent) == HASH_BYTES else None
        if number is None:
            raise Refused(Reason.UNKNOWN_TITLE, UNKNOWN)
        return number

    def _counts(self, number: int) -> TorrentCounts:
        seeders = self.four.seeders[number] + self.six.seeders[number]
        count = self.four.counts[number] + self.six.counts[number]
        return TorrentCounts(seeders, self.completed[number], count - seeders)
