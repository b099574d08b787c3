"""Ten peers download a file of 68 MB at once, from an edge that could send it once in half a minute.

The edge sends 20 Mbit/s, each peer 10 and takes 50, 30 ms apart; with the cap kept, and with it lifted.
The fluid bound is 45 s, and 67 s under the cap.
"""

from __future__ import annotations

from benchmarks.report import Goal, Report, median, number
from tests.lab import swarm
from tests.lab.windows import UNDER_CAP, percent

FILM_BYTES = 68_000_000  # just above 64 MiB
RUNS = 3
GOALS: dict[str, Goal] = {
    "bulk_kept_last_seconds": ("<=", 78.0),
    "bulk_kept_beyond": ("<=", 0.08),
    "bulk_kept_worst_1s": ("<=", UNDER_CAP),
    "bulk_kept_worst_10s": ("<=", UNDER_CAP),
    "bulk_lifted_last_seconds": ("<=", 52.0),
    "bulk_lifted_offload": (">=", 0.82),
}
COLUMNS = (
    "cap", "last peer, s", "of runs", "first", "offload", "beyond payload", "twice",
    "worst 1 s", "worst 10 s", "processors",
)  # fmt: skip


def run(report: Report, *, is_quick: bool) -> None:
    """Both; figures are medians of the runs."""
    rows = []
    for name, is_capped in (("kept", True), ("lifted", False)):
        plan = swarm.Plan("download", FILM_BYTES, capped=is_capped)
        found = [swarm.run(plan, seed) for seed in range(1 if is_quick else RUNS)]
        last = [max(one.noticed("seconds")) for one in found]
        figures = {
            "last_seconds": median(last),
            "first_seconds": median([min(one.noticed("seconds")) for one in found]),
            "offload": median([one.offload for one in found]),
            "beyond": median([one.beyond for one in found]),
            "twice": median([one.twice for one in found]),
            "worst_1s": max(one.worst_1s for one in found),
            "worst_10s": max(one.worst_10s for one in found),
            "processors": max(one.processors for one in found),
        }
        for figure, value in figures.items():
            report.figure(f"bulk_{name}_{figure}", value)
        rows.append([
            name, number(figures["last_seconds"]), " ".join(f"{each:.0f}" for each in sorted(last)),
            number(figures["first_seconds"]),
            *(percent(figures[each]) for each in list(figures)[2:]),
        ])  # fmt: skip
    report.table("A file of 68 MB to ten at once, edge 20 Mbit/s, peers 10 up and 50 down", COLUMNS, rows)
