"""Which source a piece is asked from: the trade between the picture and the edge's bill.

    slack   = time until the player needs the piece
    window  = the slack below which an edge may be asked

    alone                    8 s: an edge needs about 1 s for a piece on a bad day; the rest is calm
    some peer has it         4 s: the peer may still find time for it
    peers, none has it       4 to 24 s, drawn for each piece by each viewer for itself: of those
                             who watch the same moment one comes first, and the others get it
                             from that one; the edge sends it once instead of to each
    ... but one leads, or    8 s: whoever is ahead in the film needs all of it before us and will fetch
    all are far behind       it; and whoever is ahead of all has nobody to wait for

    slack beyond the window  peers only
    within it, and a peer    that peer, the quickest: nobody notices
      done in half the slack
    within it, otherwise     whoever will be done first, the edge included

Early, beyond 8 s, an edge is asked for one piece after the other. What the first picture waits for comes
from the edge: a newcomer's peers are busy with what others want later. Where viewers start together and
the edge is *crowded* (it gives us less than a film needs), each asks it in an order of its own (`spread`) and
the others for what they got. A download has no slack to lose: peers first, rarest pieces first, the edge
only for what few peers hold.
The draw is p2p-media-loader's random HTTP download, tied to the piece so that it is made once.

The second edge of a redirect is for when the first is busy or gone: load is shared out and titles are
placed on that ground, and the first may be fetching the title for this very viewer. It is
asked only where the first could not be done within the slack, or within four seconds without any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from peer.core.source import Source
from shared.core.bitfield import Bitfield
from shared.core.shape import PIECE_BYTES

EDGE_WINDOW_SECONDS = 8.0
SHARED_WINDOW_SECONDS = 4.0
SPREAD_SECONDS = 20.0  # against about 1 s from the first to have a piece to the others' knowing it
AHEAD_PIECES = 4  # more than what comes while the news of it is on its way
FIRST_EDGE_SECONDS = 4.0  # queue time that a first edge is allowed even without slack
LET_IN_SECONDS = 1.0  # a first edge that has not let us in for so long is passed over
COMFORT = 0.5  # of the slack: a peer twice too slow by our estimate is still in time
START_SPREAD_SECONDS = 1.5  # see `slack_at_edge`
CROWD_PIECES, CROWD_SECONDS = 24, 12.0  # that viewers who start together share out; the same at 4 Mbit/s
QUICK_EDGE_RATE = 750_000.0  # bytes/s; an edge that gives us less is crowded
COMMON_SHARE = 0.75  # of the peers we know: what more of them hold, they pass on without the edge
BEHIND_PIECES = 16  # less than what a viewer gathers before the edge stops helping
PREFETCH_SECONDS = 40.0  # further ahead nothing is asked: most viewers leave before the end


def edge_window(sources: Iterable[Source], piece: int, held: int, luck: float) -> float:
    """Seconds of slack below which an edge may be asked; `luck` is this viewer's draw, 0 to 1."""
    peers = [s for s in sources if s.joined and not s.is_edge]
    if not peers:
        return EDGE_WINDOW_SECONDS
    if any(s.has(piece) for s in peers):
        return SHARED_WINDOW_SECONDS
    if any(s.leads(held + AHEAD_PIECES) for s in peers):
        return EDGE_WINDOW_SECONDS
    if all(s.held is None or len(s.held) <= held - BEHIND_PIECES for s in peers):
        return EDGE_WINDOW_SECONDS
    return SHARED_WINDOW_SECONDS + luck * SPREAD_SECONDS


def choose(
    sources: Iterable[Source], piece: int, size: int, slack: float, window: float, now: float
) -> Source | None:
    """The source to ask now, or None to leave the piece for a later look."""
    able = [s for s in _without_second(sources, piece, size, slack, now) if s.has_room(size, now)]
    peers = [s for s in able if not s.is_edge]
    if slack > window:
        return _quickest(peers, size)
    if slack > EDGE_WINDOW_SECONDS:
        able = [s for s in able if not (s.is_edge and s.outstanding_bytes)]  # early: one by one
    comfortable = [s for s in peers if s.queue_seconds(size) < COMFORT * slack]
    return _quickest(comfortable or able, size)


def spread(
    urgent: Iterable[tuple[int, float]], sources: list[Source], luck: Callable[[int], float]
) -> Iterator[tuple[int, float]]:
    """Wanted pieces, each with its slack. Where the edge is crowded and others are there, the nearest that
    nobody has come in this viewer's own order: else all would get the same ones at the same time, and have
    nothing to give each other."""
    crowded = any(s.is_edge and s.joined and s.rate < QUICK_EDGE_RATE for s in sources)
    peers = [s for s in sources if s.joined and not s.is_edge]
    if not crowded or not peers:
        yield from urgent
        return
    rest = iter(urgent)
    near = list(islice(rest, CROWD_PIECES))
    offered = [one for one in near if any(s.has(one[0]) for s in peers)]
    yield from offered
    yield from sorted((one for one in near if one not in offered), key=lambda one: luck(one[0]))
    yield from rest


def slack_at_edge(edge: Source, slack: float, luck: float, *, is_start: bool) -> float:
    """The slack that an edge is told. It serves the nearest deadline first, which would undo `spread`: so
    what a crowd shares out, and what the first picture waits for after its first moments, get a drawn one."""
    is_crowded = edge.rate < QUICK_EDGE_RATE and slack < CROWD_SECONDS
    if is_crowded:
        return START_SPREAD_SECONDS * luck
    if is_start and slack > START_SPREAD_SECONDS:
        return START_SPREAD_SECONDS + (slack - START_SPREAD_SECONDS) * luck
    return slack


def choose_for_start(sources: Iterable[Source], piece: int, size: int, now: float) -> Source | None:
    """The same for what the first picture waits for: the edge, unless it is seen to be crowded."""
    able = [s for s in _without_second(sources, piece, size, 0.0, now) if s.has_room(size, now)]
    quick = [s for s in able if s.is_edge and s.rate >= QUICK_EDGE_RATE]
    return _quickest(quick or [s for s in able if not s.is_edge] or able, size)


def choose_for_download(sources: list[Source], piece: int, size: int, now: float) -> Source | None:
    """The same for a file nobody plays: peers first, an edge only for a piece that few of them have."""
    peers = [s for s in sources if s.joined and not s.is_edge]
    holders = [s for s in peers if s.has(piece)]
    able = [s for s in holders if s.has_room(size, now)]
    if not able and len(holders) <= COMMON_SHARE * len(peers):
        holders = _without_second(sources, piece, size, 0.0, now)
        able = [s for s in holders if s.is_edge and s.has_room(size, now)]
    return _quickest(able, size)


def anybody_free(sources: list[Source], now: float) -> bool:
    """Whether anybody can be asked for anything: looked at first, since mostly nobody can."""
    return any(s.has_room(PIECE_BYTES, now) for s in sources)


def offered(sources: list[Source], now: float) -> list[Bitfield]:
    """What each peer holds that can be asked."""
    able = (s for s in sources if not s.is_edge and s.has_room(PIECE_BYTES, now))
    return [s.held for s in able if s.held is not None]


def rarest_first(pieces: list[int], sources: list[Source]) -> list[int]:
    """Pieces that few peers hold first, equals in the order they came in."""
    peers = [s for s in sources if s.joined and not s.is_edge]
    return sorted(pieces, key=lambda piece: sum(s.has(piece) for s in peers))


def _without_second(
    sources: Iterable[Source], piece: int, size: int, slack: float, now: float
) -> list[Source]:
    """Who says that it has the piece, the second edge only if no first one will do."""
    everybody = list(sources)
    patience = max(slack, FIRST_EDGE_SECONDS)
    firsts = [s for s in everybody if s.is_edge and not s.is_second]
    first_will_do = any(_will_do(s, piece, size, patience, now) for s in firsts)
    return [s for s in everybody if s.has(piece) and not (s.is_second and first_will_do)]


def _will_do(first: Source, piece: int, size: int, patience: float, now: float) -> bool:
    if not first.joined:
        return now - first.named_at < LET_IN_SECONDS
    # Told BUSY for asking too much at once it still delivers what it was asked.
    delivers = first.outstanding_bytes > 0 and now - first.progress_at < LET_IN_SECONDS
    return (
        first.has(piece) and first.queue_seconds(size) <= patience and (delivers or now >= first.busy_until)
    )


def _quickest(sources: list[Source], size: int) -> Source | None:
    return min(sources, key=lambda s: s.queue_seconds(size), default=None)
