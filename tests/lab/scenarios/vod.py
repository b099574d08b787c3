"""Ten viewers of a film of 4 Mbit/s come 3 s apart, to an edge that carries half of what they need.

The edge sends 20 Mbit/s, each peer 10 and takes 50, 30 ms apart; with the cap kept, and with it lifted.
"""

from __future__ import annotations

from benchmarks.report import Goal, Report
from tests.lab import audience, swarm
from tests.lab.windows import UNDER_CAP

RUNS = 3
GOALS: dict[str, Goal] = {
    "vod_kept_startup_mean_seconds": ("<=", 2.0),
    "vod_kept_startup_max_seconds": ("<=", 3.0),
    "vod_kept_stalls": ("<=", 0),
    "vod_kept_offload": (">=", 0.75),
    "vod_kept_twice": ("<=", 0.03),
    "vod_kept_worst_1s": ("<=", UNDER_CAP),
    "vod_kept_worst_10s": ("<=", UNDER_CAP),
    "vod_lifted_startup_mean_seconds": ("<=", 1.5),
    "vod_lifted_startup_max_seconds": ("<=", 2.5),
    "vod_lifted_stalls": ("<=", 0),
    "vod_lifted_offload": (">=", 0.80),
    "vod_lifted_twice": ("<=", 0.03),
}


def run(report: Report, *, is_quick: bool) -> None:
    """Both."""
    rows = []
    for name, is_capped in (("kept", True), ("lifted", False)):
        plan = audience.plan(capped=is_capped)
        found = [swarm.run(plan, seed) for seed in range(1 if is_quick else RUNS)]
        rows.append(audience.tell(report, f"vod_{name}", found))
    report.table("Ten viewers 3 s apart at 4 Mbit/s, edge 20 Mbit/s", audience.COLUMNS, rows)
