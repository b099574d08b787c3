"""Which source a piece is asked from: the trade between the picture and the edge's bill.

    slack = time until the player needs the piece

    slack beyond the edge window   peers only: there is time for one of them to get it
    within it, and a peer will     that peer, the quickest: nobody notices
    be done in half the slack
    within it, otherwise           whoever will be done first, the edge included

A download has no slack to lose: peers first, the edge only where no peer holds the piece.
"""

from __future__ import annotations

from collections.abc import Iterable

from peer.core.source import Source

EDGE_WINDOW_SECONDS = 8.0  # an edge needs about 1 s for a piece on a bad day; the rest is calm
COMFORT = 0.5  # of the slack: a peer twice too slow by our estimate is still in time
PREFETCH_SECONDS = 40.0  # further ahead nothing is asked: most viewers leave before the end


def choose(sources: Iterable[Source], piece: int, size: int, slack: float, now: float) -> Source | None:
    """The source to ask now, or None to leave the piece for a later look."""
    able = [s for s in sources if s.has(piece) and s.has_room(size, now)]
    peers = [s for s in able if not s.is_edge]
    if slack > EDGE_WINDOW_SECONDS:
        return _quickest(peers, size)
    comfortable = [s for s in peers if s.queue_seconds(size) < COMFORT * slack]
    return _quickest(comfortable or able, size)


def choose_for_download(sources: list[Source], piece: int, size: int, now: float) -> Source | None:
    """The same for a file nobody plays: an edge only if no peer we know has the piece."""
    holders = [s for s in sources if s.joined and s.has(piece)]
    peers = [s for s in holders if not s.is_edge]
    able = [s for s in (peers or holders) if s.has_room(size, now)]
    return _quickest(able, size)


def _quickest(sources: list[Source], size: int) -> Source | None:
    return min(sources, key=lambda s: s.queue_seconds(size), default=None)
