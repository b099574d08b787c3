"""When a request under way is taken from its source, and who takes it over."""

from __future__ import annotations

from collections.abc import Iterable

from peer.core.chunks import Chunk
from peer.core.source import Source

SNUBBED_AFTER_SECONDS = 4.0  # without a single leaf, of what is needed soon
LONGEST_SILENCE_SECONDS = 20.0  # of what is not: a full uplink serves ten who ask in turn
RELIEVED_AFTER_SECONDS = 0.3  # an edge that has time begins sooner
RESCUE_MARGIN_SECONDS = 1.0


def too_late(chunk: Chunk, ahead_bytes: int, source: Source, other: Source, slack: float, now: float) -> bool:
    """Whether `other` must take over now for the piece to be in time. Who has been silent
    for some time is expected to be silent for as long again, whatever its rate was."""
    silence = chunk.silence(source, now)
    if source.is_edge and silence < RESCUE_MARGIN_SECONDS:
        return False  # nobody is surer than an edge that delivers
    by_other = other.queue_seconds(chunk.size)
    by_source = max(ahead_bytes / source.rate_seen(now), silence)
    return slack < by_other + RESCUE_MARGIN_SECONDS and by_source > max(slack, by_other)


def rescuer(sources: Iterable[Source], chunk: Chunk, source: Source, now: float) -> Source | None:
    """Edges rescue everybody's chunks; peers rescue those of an edge that fell silent."""
    able = [
        s
        for s in sources
        if s is not source
        and (s.is_edge or source.is_edge)
        and s.has(chunk.piece)
        and s.has_room(chunk.size, now)
    ]
    return min(able, key=lambda s: s.queue_seconds(chunk.size), default=None)


def silence_allowed(need_seconds: float) -> float:
    """How long a source may be silent that owes a piece needed in `need_seconds`."""
    return max(SNUBBED_AFTER_SECONDS, min(LONGEST_SILENCE_SECONDS, need_seconds / 2))


def reliever(sources: Iterable[Source], chunk: Chunk, source: Source, now: float) -> Source | None:
    """A peer that got the piece while our request for it waits at a crowded edge: of many viewers who
    start together one gets it there, and the others from that one. Nothing is fetched twice."""
    if not source.is_edge or chunk.arrived or now - chunk.asked_at < RELIEVED_AFTER_SECONDS:
        return None
    able = [s for s in sources if not s.is_edge and s.has(chunk.piece) and s.has_room(chunk.size, now)]
    quicker = [s for s in able if s.queue_seconds(chunk.size) < source.queue_seconds()]
    return min(quicker, key=lambda s: s.queue_seconds(chunk.size), default=None)
