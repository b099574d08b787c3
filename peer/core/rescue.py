"""When a request under way is taken from its source, and who takes it over."""

from __future__ import annotations

from collections.abc import Iterable

from peer.core.chunks import Chunk
from peer.core.source import Source

SNUBBED_AFTER_SECONDS = 4.0  # without a single leaf
RESCUE_MARGIN_SECONDS = 1.0


def too_late(chunk: Chunk, ahead_bytes: int, source: Source, other: Source, slack: float, now: float) -> bool:
    """Whether `other` must take over now for the piece to be in time. Who has been silent
    for some time is expected to be silent for as long again, whatever its rate was."""
    silence = chunk.silence(source, now)
    if source.is_edge and silence < RESCUE_MARGIN_SECONDS:
        return False  # nobody is surer than an edge that delivers
    by_other = other.queue_seconds(chunk.size)
    by_source = max(ahead_bytes / source.rate, silence)
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
