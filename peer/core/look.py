"""One look at what can be asked at all, so that pieces are tried only where somebody may give them.

Nearly always nobody can: who has the piece has no room, and it is too early for an edge. To find that
out piece by piece and source by source took most of a peer's time, so here whole bitfields are
compared. A look only leaves out what `picker` would say no to; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from peer.core import picker
from peer.core.picker import (
    EDGE_WINDOW_SECONDS,
    PREFETCH_SECONDS,
    SHARED_WINDOW_SECONDS,
    SPREAD_SECONDS,
)  # fmt: skip
from peer.core.source import Source
from peer.core.wishes import Wishes
from shared.core.bitfield import Bitfield
from shared.core.shape import PIECE_BYTES


class Look:
    """What can be asked of whom at this moment; asking only takes room away."""

    def __init__(self, sources: list[Source], wishes: Wishes, begun: Iterable[int], now: float) -> None:
        total = wishes.manifest.piece_count
        peers = [s for s in sources if s.joined and not s.is_edge]
        free = [s for s in sources if s.has_room(PIECE_BYTES, now)]
        self.anybody_free = bool(free)
        self._wishes = wishes
        self._now = now
        self._alone = not peers
        self._parts = frozenset((*begun, total - 1))
        if free:
            self._waits_for_nobody = picker.waits_for_nobody(peers, len(wishes.held))
            self._at_peers = _union(total, peers)
            self._free_peers = _union(total, [s for s in free if not s.is_edge])
            self._free_edges = _union(total, [s for s in free if s.is_edge])

    def worth_trying(self) -> Bitfield:
        """Missing pieces that somebody might be asked for now. What has begun to arrive takes less room
        than a whole piece, and so does the last piece: these are always tried."""
        held = self._wishes.held
        length, playhead = self._wishes.manifest.piece_length, self._wishes.playhead
        first = playhead.read_offset // length
        soon = playhead.piece_at(SHARED_WINDOW_SECONDS, self._now, length)
        later = playhead.piece_at(self._widest(), self._now, length)
        last = playhead.piece_at(PREFETCH_SECONDS, self._now, length)
        early = (self._free_edges - self._at_peers).cut(soon, later)
        found = (self._free_peers.cut(first, last) | self._free_edges.cut(first, soon) | early) - held
        for piece in self._parts:
            if piece not in held:
                found.add(piece)
        return found

    def is_early(self, piece: int, slack: float) -> bool:
        """Whether only an edge has room for the piece, and it is too soon to ask one."""
        if slack <= SHARED_WINDOW_SECONDS or piece in self._free_peers or piece in self._parts:
            return False
        return slack > self._window(piece)

    def _window(self, piece: int) -> float:
        """As `picker.edge_window`."""
        if self._alone:
            return EDGE_WINDOW_SECONDS
        if piece in self._at_peers:
            return SHARED_WINDOW_SECONDS
        if self._waits_for_nobody:
            return EDGE_WINDOW_SECONDS
        return SHARED_WINDOW_SECONDS + self._wishes.luck(piece) * SPREAD_SECONDS

    def _widest(self) -> float:
        """No piece that no peer has gets a window wider than this."""
        is_fixed = self._alone or self._waits_for_nobody
        return EDGE_WINDOW_SECONDS if is_fixed else SHARED_WINDOW_SECONDS + SPREAD_SECONDS


def _union(total: int, sources: list[Source]) -> Bitfield:
    return Bitfield.union(total, (s.held for s in sources if s.held is not None))
