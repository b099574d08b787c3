"""The fullest window of a recording: samples of a counter, and the rate that follows from them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Fullest:
    """The fullest window, in bytes per second, of the share of windows that could be seen."""

    rate: float
    seen_share: float


def worst_window(times: Sequence[float], totals: Sequence[int], seconds: float) -> float:
    """The highest rate, in bytes per second, of any window of that length inside the recording.

    `totals` are bytes so far at `times`. Between two samples bytes are taken to flow evenly. Then
    the highest window starts or ends at a sample, so that all there are to try are tried. Raises
    ValueError if the recording is shorter.
    """
    return fullest(times, totals, seconds, inf).rate


def fullest(times: Sequence[float], totals: Sequence[int], seconds: float, longest_gap: float) -> Fullest:
    """The same, without windows that begin or end between samples more than `longest_gap` seconds apart."""
    if len(times) < 2 or times[-1] - times[0] < seconds or seconds <= 0:
        raise ValueError(f"the recording has no window of {seconds} seconds")
    spans = [(at, at + seconds) for at in times if at + seconds <= times[-1]]
    spans += [(at - seconds, at) for at in times if at - seconds >= times[0]]
    seen, most = 0, 0.0
    for begin, end in spans:
        before, after = _at(times, totals, begin, longest_gap), _at(times, totals, end, longest_gap)
        if before is not None and after is not None:
            seen += 1
            most = max(most, after - before)
    return Fullest(most / seconds, seen / len(spans))


def _at(times: Sequence[float], totals: Sequence[int], at: float, longest_gap: float) -> float | None:
    place = min(max(bisect_right(times, at), 1), len(times) - 1)
    begin, end = times[place - 1], times[place]
    if end - begin > longest_gap and begin < at < end:
        return None
    share = (at - begin) / (end - begin)
    return totals[place - 1] + min(max(share, 0.0), 1.0) * (totals[place] - totals[place - 1])
