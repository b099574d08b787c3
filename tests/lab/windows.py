"""Windows of an upload, held against what the line had available, as tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.report import Goal
from tests.lab.samples import Sample, bytes_at, mean_rate, worst_window

NAMES = {0.1: "100ms", 1.0: "1s", 10.0: "10s"}  # by seconds
UNDER_CAP = 0.5999  # figures have four digits
LEAST_MEAN = 0.57  # 95 % of the cap
FAST_LINE = 1_250_000.0  # bytes/s; below it 100 ms are too few packets to be held against anything
COLUMNS = ("", "worst 100 ms", "worst 1 s", "worst 10 s", "mean")


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the available rate: the worst window of each length in seconds, and the mean."""

    worst: dict[float, float]
    mean: float

    def row(self, name: str) -> list[str]:
        """Of a table under COLUMNS."""
        return [name, *(percent(self.worst.get(seconds)) for seconds in NAMES), percent(self.mean)]

    def figures(self, name: str) -> dict[str, float]:
        """By name, as `goals` names them."""
        worst = {f"{name}_worst_{NAMES[seconds]}": share for seconds, share in self.worst.items()}
        return worst | {f"{name}_mean": self.mean}


def shares(samples: Sequence[Sample], available_rate: float) -> Shares:
    """Of what was sent, in bytes, at an available rate in bytes/s; windows longer than it are left out."""
    recorded_seconds = samples[-1].at - samples[0].at
    worst = {
        seconds: worst_window(samples, seconds) / available_rate
        for seconds in NAMES
        if seconds <= recorded_seconds
    }
    return Shares(worst, mean_rate(samples) / available_rate)


def goals(name: str, line_rate: float, *, mean: float | None = LEAST_MEAN) -> dict[str, Goal]:
    """Every window that counts on such a line stays under the cap, and nearly all of it is used."""
    lengths = [seconds for seconds in NAMES if seconds > 0.1 or line_rate >= FAST_LINE]
    bounds: dict[str, Goal] = {f"{name}_worst_{NAMES[each]}": ("<=", UNDER_CAP) for each in lengths}
    return bounds if mean is None else bounds | {f"{name}_mean": (">=", mean)}


def percent(share: float | None) -> str:
    """One digit after the point, as 59.8 %."""
    return "-" if share is None else f"{100 * share:.1f} %"


def share_over(samples: Sequence[Sample], seconds: float, rate: float) -> float:
    """The share of the windows of that length, one after the other, that held more than a rate in bytes/s."""
    times, totals = [sample.at for sample in samples], [sample.bytes for sample in samples]
    count = int((times[-1] - times[0]) / seconds)
    marks = [bytes_at(times, totals, times[0] + number * seconds) for number in range(count + 1)]
    over = sum(end - begin > rate * seconds for begin, end in pairwise(marks))
    return over / count if count else 0.0
