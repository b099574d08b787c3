"""Segments out of fragments: where a player may start, and what it costs to keep up.

A segment ends at the first key frame at or after TARGET_SECONDS. Four seconds keep playlists
short while a seek still lands within one group of pictures or two. A tail shorter than
TAIL_SECONDS joins the segment before it, because a request costs more than it holds.
"""

from __future__ import annotations

from itertools import pairwise

from edge.media.film import Prepared
from edge.media.layout import Fragment, Layout, Track
from shared.core.errors import Reason, Refused

TARGET_SECONDS = 4.0
TAIL_SECONDS = 1.0
_SLACK_SECONDS = 0.05  # 3.97 s of 29.97 frames per second is four seconds to everybody


def describe_film(layout: Layout) -> Prepared:
    """What a manifest says about a file with this layout. Raises Refused when it plays nothing."""
    lead = next((track for track in layout.tracks if track.handler == b"vide"), layout.tracks[0])
    cuts = _cuts(layout, lead)
    if not cuts:
        raise Refused(Reason.NOT_A_FILM, "nothing in it can be played")
    edges = [round(1000 * at) for _, at in cuts] + [round(1000 * _end(layout))]
    offsets = [at for at, _ in cuts] + [layout.fragments[-1].at + layout.fragments[-1].size_bytes]
    spans = [max(0, after - before) for before, after in pairwise(edges)]
    segments = tuple(zip((b - a for a, b in pairwise(offsets)), spans, strict=True))
    duration_ms = max(1, sum(spans))
    total_bytes = sum(size_bytes for size_bytes, _ in segments)
    average = max(1, 8000 * total_bytes // duration_ms)
    return Prepared(
        codecs=",".join(track.codec for track in layout.tracks),
        width=lead.width,
        height=lead.height,
        duration_ms=duration_ms,
        bandwidth=max(average, _peak(segments)),
        average_bandwidth=average,
        init_bytes=layout.init_bytes,
        segments=segments,
    )


def _start(fragment: Fragment, lead: Track, layout: Layout, alone: bool) -> float | None:
    """Seconds at which a segment could start with this fragment; None where none can.

    `alone`: no picture follows, and sound that goes on by itself can be entered anywhere.
    """
    run = fragment.runs.get(lead.track_id)
    if run is not None and run.samples:
        return run.start / lead.timescale if run.starts_with_key else None
    if not alone:
        return None
    return min(
        (
            fragment.runs[track.track_id].start / track.timescale
            for track in layout.tracks
            if track.track_id in fragment.runs
        ),
        default=None,
    )


def _cuts(layout: Layout, lead: Track) -> list[tuple[int, float]]:
    """(file offset, seconds) at which each segment starts; the first takes all before a key frame."""
    leading = [at for at, fragment in enumerate(layout.fragments) if lead.track_id in fragment.runs]
    cuts: list[tuple[int, float]] = []
    for index, fragment in enumerate(layout.fragments):
        alone = not leading or index > leading[-1] or index < leading[0]
        at = _start(fragment, lead, layout, alone)
        if not cuts:
            if at is None:
                raise Refused(Reason.NOT_A_FILM, "it does not start with a key frame")
            cuts.append((fragment.at, at))
        elif at is not None and at - cuts[-1][1] >= TARGET_SECONDS - _SLACK_SECONDS:
            cuts.append((fragment.at, at))
    if len(cuts) > 1 and _end(layout) - cuts[-1][1] < TAIL_SECONDS:
        cuts.pop()
    return cuts


def _end(layout: Layout) -> float:
    """Seconds at which the last sample of any track ends."""
    return max(
        (
            (run.start + run.duration) / track.timescale
            for fragment in layout.fragments
            for track in layout.tracks
            if (run := fragment.runs.get(track.track_id)) is not None
        ),
        default=0.0,
    )


def _peak(segments: tuple[tuple[int, int], ...]) -> int:
    """Bits per second of the costliest segment of at least half the target (RFC 8216 4.3.4.2)."""
    return max(
        (8000 * size // ms for size, ms in segments if ms >= 500 * TARGET_SECONDS),
        default=0,
    )
