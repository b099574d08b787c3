"""What an audience noticed, as tables and figures of the film scenarios."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report import Report, median, number
from tests.lab.swarm import Outcome, Plan
from tests.lab.windows import percent

FILM_BYTES = 30_000_000  # 60 s at 4 Mbit/s
FILM_SECONDS = 60.0
GAP_SECONDS = 3.0
COLUMNS = (
    "", "start-up mean, s", "max", "of runs", "stalls", "stalled", "offload", "twice",
    "worst 1 s", "worst 10 s", "processors",
)  # fmt: skip


def plan(*, edge_up: float = 20.0, capped: bool = True, sharing: bool = True) -> Plan:
    """Ten viewers, three seconds apart."""
    return Plan("play", FILM_BYTES, GAP_SECONDS, edge_up=edge_up, capped=capped, sharing=sharing)


def tell(report: Report, name: str, found: Sequence[Outcome]) -> list[str]:
    """Figures of runs of one plan, medians but for what must never happen; a row under COLUMNS."""
    startups = [sorted(one.noticed("startup_seconds")) for one in found]
    watched = FILM_SECONDS * len(startups[0])
    figures = {
        "startup_mean_seconds": median([sum(each) / len(each) for each in startups]),
        "startup_max_seconds": median([each[-1] for each in startups]),
        "stalls": max(sum(one.noticed("stalls")) for one in found),
        "rebuffer": max(sum(one.noticed("stall_seconds")) / watched for one in found),
        "offload": median([one.offload for one in found]),
        "twice": median([one.twice for one in found]),
        "worst_1s": max(one.worst_1s for one in found),
        "worst_10s": max(one.worst_10s for one in found),
        "processors": max(one.processors for one in found),
    }
    for figure, value in figures.items():
        report.figure(f"{name}_{figure}", value)
    return [
        name,
        number(figures["startup_mean_seconds"]),
        number(figures["startup_max_seconds"]),
        " ".join(f"{each[-1]:.1f}" for each in startups),
        f"{figures['stalls']:g}",
        *(percent(figures[each]) for each in list(figures)[3:]),
    ]
