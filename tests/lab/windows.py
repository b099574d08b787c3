"""Windows of an upload, held against what the line had available."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.lab.samples import Sample, mean_rate, worst_window

WINDOWS = (0.1, 1.0, 10.0)  # seconds


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the available rate: the worst window of each length, and the mean."""

    worst: dict[float, float]
    mean: float


def shares(samples: Sequence[Sample], available_rate: float) -> Shares:
    """Of what was sent, in bytes, at an available rate in bytes/s; windows longer than it are left out."""
    seconds = samples[-1].at - samples[0].at
    worst = {
        length: worst_window(samples, length) / available_rate for length in WINDOWS if length <= seconds
    }
    return Shares(worst, mean_rate(samples) / available_rate)


def share_over(samples: Sequence[Sample], seconds: float, rate: float) -> float:
    """The share of the windows of that length, one after the other, that went over a rate in bytes/s."""
    over = total = 0
    start = samples[0]
    for sample in samples:
        if sample.at - start.at >= seconds:
            over += sample.bytes - start.bytes > rate * (sample.at - start.at)
            total += 1
            start = sample
    return over / total if total else 0.0
