"""The fullest window of a recording: samples of a counter, and the rate that follows from them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

ROUNDING_SECONDS = 1e-6  # no clock that is read here is finer


@dataclass(frozen=True, slots=True)
class Fullest:
    """The fullest window, in bytes per second, of the share of windows that could be seen."""

    rate: float
    seen_share: float


def fullest(times: Sequence[float], totals: Sequence[int], seconds: float, slack_seconds: float) -> Fullest:
    """What certainly passed in windows from one sample to another, shorter by `slack_seconds` at most.

    `totals` are bytes so far at `times`. Where samples come in time this is a little low; where they do
    not it is never too high. Raises ValueError if the recording is shorter.
    """
    if len(times) < 2 or times[-1] - times[0] < seconds or seconds <= 0:
        raise ValueError(f"the recording has no window of {seconds} seconds")
    seen, most, count = 0, 0, 0
    for begin, at in enumerate(times):
        if at + seconds > times[-1] + ROUNDING_SECONDS:
            break
        count += 1
        end = bisect_right(times, at + seconds + ROUNDING_SECONDS) - 1
        if times[end] >= at + seconds - slack_seconds:
            seen += 1
            most = max(most, totals[end] - totals[begin])
    return Fullest(most / seconds, seen / count)
