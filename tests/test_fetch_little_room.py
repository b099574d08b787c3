"""A download where the disk has little room: it follows its reader, and fetches little twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random

import pytest

from peer.asking import MAX_UNSTORED
from peer.core.company import Company
from peer.core.fetch import Fetch
from shared.core.actions import Action, Ask, Cancel
from shared.core.bitfield import Bitfield
from shared.core.errors import Reason
from shared.core.merkle import LEAF_BYTES
from shared.core.messages import Redirect
from tests.fetch_parts import EDGE, NOW, named, orders
from tests.world_parts import film

MANIFEST, _ = film(seconds=160, bit_rate=8_000_000.0)
TOTAL = MANIFEST.piece_count


class Download:
    """A download over a fast line; of its pieces `room` find a place on the disk, the last
    of them given up for earlier ones if `evicts`, and the rest stay in a small memory."""

    def __init__(self, room: int, evicts: bool) -> None:
        self.room, self.evicts, self.now, self.fetched = room, evicts, NOW, 0
        self.held = Bitfield(TOTAL)
        self.memory: deque[int] = deque()
        self.asked: list[Ask] = []
        self.fetch = Fetch(MANIFEST.infohash, Random(5), Company())
        source = (named(EDGE),)
        self.fetch.redirected(Redirect(1, MANIFEST.infohash, MANIFEST.signer_id, b"", 8, source), NOW)
        self.fetch.learn(MANIFEST, self.held, NOW)
        self.fetch.connected(EDGE)
        self.fetch.have(EDGE, Bitfield(TOTAL, range(TOTAL)).to_wire(), NOW)
        self.fetch.download(True, NOW)

    def read_all(self) -> None:
        for piece in range(TOTAL):
            self.fetch.read(piece * MANIFEST.piece_length, self.now)
            self.deliver()
            if not self.fetch.known.here(piece):
                self.fetch.wait(piece, self.now)
                for _ in range(100):
                    if self.fetch.known.here(piece):
                        break
                    self.deliver()
                self.fetch.stop_waiting(piece)
            assert self.fetch.known.here(piece)

    def deliver(self) -> None:
        """What was asked arrives."""
        self.now += 0.3
        self.fetch.handle_timer(self.now)
        self.asked += asks_left(orders(self.fetch))
        for _ in range(len(self.asked)):
            if not self.asked:
                return
            self.take(self.asked.pop(0))
            self.asked = asks_left([*self.asked, *orders(self.fetch)])

    def take(self, ask: Ask) -> None:
        size = MANIFEST.piece_size(ask.piece)
        for leaf in range(ask.leaf_count):
            assert self.fetch.leaf_arrived(ask.request, min(LEAF_BYTES, size - leaf * LEAF_BYTES), self.now)
        self.fetch.chunk_ended(ask.request, Reason.NONE, self.now)
        self.fetched += 1
        self.fetch.stored(ask.piece, self.put(ask.piece), self.now)

    def put(self, piece: int) -> bool:
        last = max(self.held, default=-1)
        if len(self.held) >= self.room:
            if not self.evicts or last <= piece:
                self.remember(piece)
                return False
            self.held.discard(last)
            self.fetch.faded(last)
        self.held.add(piece)
        return True

    def remember(self, piece: int) -> None:
        self.memory.append(piece)
        if len(self.memory) > MAX_UNSTORED:
            self.fetch.faded(self.memory.popleft())


def asks_left(actions: Sequence[Action]) -> list[Ask]:
    cancelled = {action.request for action in actions if isinstance(action, Cancel)}
    return [a for a in actions if isinstance(a, Ask) and a.request not in cancelled]


@pytest.mark.parametrize("evicts", [False, True])
@pytest.mark.parametrize("room", [0, 100, TOTAL // 2])
def test_a_download_with_little_room_fetches_little_twice(room: int, evicts: bool) -> None:
    download = Download(room, evicts)
    download.read_all()
    given_up = room if evicts else 0  # far pieces that were here before the room ran out
    assert download.fetched <= 1.1 * TOTAL + given_up


def test_a_download_with_room_fetches_every_piece_once() -> None:
    download = Download(TOTAL, False)
    download.read_all()
    assert (download.fetched, len(download.held)) == (TOTAL, TOTAL)
