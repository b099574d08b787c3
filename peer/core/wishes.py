"""What is wanted of one rendition, and how soon: the reading player, waiting readers, downloads."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from peer.core.picker import EDGE_WINDOW_SECONDS, PREFETCH_SECONDS
from peer.core.playhead import Playhead
from shared.core.bitfield import STRETCHES, Bitfield
from shared.core.dice import Dice
from shared.core.manifest import Manifest

PATIENCE_SECONDS = 3.0  # players give up on an answer after about ten
DOWNLOAD_PATIENCE_SECONDS = 20.0  # who saves a file, after a minute
UNSTORED_AHEAD_PIECES = 48  # of the 64 that are kept in memory; the rest were just shown
DOWNLOAD_LOOK_AHEAD = 32  # pieces of each order considered at once
FOREVER = float("inf")


@dataclass(slots=True)
class Wait:
    """Readers that wait for one piece."""

    since: float
    patience: float
    readers: int = 0


class Wishes:
    """The pieces of one rendition that somebody here wants."""

    def __init__(self, manifest: Manifest, held: Bitfield, rng: Dice) -> None:
        self.manifest = manifest
        self.held = held
        self.playhead = Playhead(manifest)
        self.downloading = False
        self.unstored: set[int] = set()  # here in memory only, for the player
        self._faded: set[int] = set()  # were here during this download, and found no lasting place
        self._luck: dict[int, float] = {}
        self._waiting: dict[int, Wait] = {}
        self._order: list[int] = []
        self._rng = rng

    def here(self, piece: int) -> bool:
        """Whether the player can have the piece."""
        return piece in self.held or piece in self.unstored

    def any(self, now: float) -> bool:
        """Whether anything is to be fetched at present."""
        if self.held.complete:
            return False
        return self.downloading or bool(self._waiting) or self.playhead.active(now)

    def stretch(self, now: float) -> int:
        """Which of the title's stretches is read now, from 1 on; 0 if nobody reads."""
        if not self.playhead.active(now):
            return 0
        number = 1 + self.playhead.read_offset * STRETCHES // max(1, self.manifest.length)
        return min(STRETCHES, number)  # the very end is of the last

    def wait(self, piece: int, now: float, patience: float = PATIENCE_SECONDS) -> None:
        """A reader waits for a piece; so long it may do so without harm."""
        wait = self._waiting.setdefault(piece, Wait(now, patience))
        wait.patience = min(wait.patience, patience)
        wait.readers += 1

    def stop_waiting(self, piece: int) -> None:
        """A reader got its piece, or gave up."""
        wait = self._waiting[piece]
        wait.readers -= 1
        if not wait.readers:
            del self._waiting[piece]

    def download(self, wanted: bool) -> None:
        """All of it is wanted, whoever reads; or no longer."""
        if wanted and not self.downloading:
            self._faded.clear()
        self.downloading = wanted

    def faded(self, piece: int) -> None:
        """A piece that was here is here no more: a download does not fetch it again, since it
        would have no more room than before; a reader that comes to it does."""
        self.unstored.discard(piece)
        if self.downloading:
            self._faded.add(piece)

    def slack(self, piece: int, now: float) -> float:
        """Seconds until playback needs the piece; infinite in a plain file."""
        return self.playhead.deadline(piece * self.manifest.piece_length) - now

    def is_start(self, piece: int) -> bool:
        """Whether the first picture waits for it."""
        return self.playhead.is_start(piece * self.manifest.piece_length)

    def need(self, piece: int, now: float) -> float:
        """Seconds until a player or a waiting reader must have the piece; infinite if none does."""
        wait = self._waiting.get(piece)
        patience = wait.since + wait.patience - now if wait is not None else FOREVER
        return min(self.slack(piece, now), patience)

    def luck(self, piece: int) -> float:
        """This viewer's draw for a piece, 0 to 1, the same at every look."""
        if piece not in self._luck:
            self._luck[piece] = self._rng.random()
        return self._luck[piece]

    def urgent(self, now: float) -> Iterator[tuple[int, float]]:
        """Missing pieces that playback needs within the prefetch window, with their slack."""
        for piece, wait in sorted(self._waiting.items()):
            if not self.here(piece):
                yield piece, self._waiting_slack(piece, wait, now)
        if not self.playhead.active(now):
            return
        first = self.playhead.read_offset // self.manifest.piece_length
        end = self.manifest.piece_count
        if self.unstored:  # the disk is full: fetch no more ahead than memory keeps
            end = min(end, first + UNSTORED_AHEAD_PIECES)
        for piece in range(first, end):
            slack = self.slack(piece, now)
            if slack > PREFETCH_SECONDS:
                return
            if not self.here(piece):
                yield piece, slack

    def _waiting_slack(self, piece: int, wait: Wait, now: float) -> float:
        """A player reads ahead of what it shows, so a read need not be urgent; but no player
        waits for ever for an answer, so patience ends."""
        slack = self.slack(piece, now)
        if slack == FOREVER and wait.patience == PATIENCE_SECONDS:
            return 0.0
        return min(slack, EDGE_WINDOW_SECONDS + wait.since + wait.patience - now)

    def download_order(self, busy: Container[int], offered: Iterable[Bitfield] = ()) -> list[int]:
        """The next missing pieces: what readers wait for, some of what peers offer, and others, both in
        an order of this peer's own, so that downloaders who start together fetch different pieces and
        can trade them. What finds no room on the disk is wanted shortly before the reader takes it, or
        it would have to be fetched again."""
        if self.unstored or self._faded:
            return self._ahead_of_reader(busy)
        if not self._order:
            self._order = [p for p in range(self.manifest.piece_count) if p not in self.held]
            self._rng.shuffle(self._order)
        while self._order and self._order[-1] in self.held:
            self._order.pop()
        start = self._order[0] if self._order else 0
        orders = sorted(self._waiting), self.held.lacking(offered).from_piece(start), reversed(self._order)
        found: dict[int, None] = {}
        for order in orders:
            fresh = (p for p in order if not self.here(p) and p not in busy and p not in found)
            found |= dict.fromkeys(islice(fresh, DOWNLOAD_LOOK_AHEAD))
        return list(found)

    def keeps(self, piece: int) -> bool:
        """Whether the piece is wanted so soon that memory is enough to keep it until then."""
        return piece in self._waiting or piece in self._near()

    def _near(self) -> range:
        first = self.playhead.read_offset // self.manifest.piece_length
        return range(first, min(self.manifest.piece_count, first + UNSTORED_AHEAD_PIECES))

    def _ahead_of_reader(self, busy: Container[int]) -> list[int]:
        gone = self._faded
        return [p for p in self._near() if not self.here(p) and p not in gone and p not in busy]
