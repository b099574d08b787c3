"""The same ten viewers before an edge with enough for all: peers must not make the start slower.

Beside the swarm, in the same run, stands the edge alone: the same viewers with peers that share nothing.
"""

from __future__ import annotations

from benchmarks.report import Goal, Report
from tests.lab import audience, swarm

RUNS = 3
EDGE_UP = 100.0
GOALS: dict[str, Goal] = {
    "ample_startup_beyond_edge_seconds": ("<=", 0.1),
    "ample_swarm_startup_max_seconds": ("<=", 1.0),
    "ample_swarm_rebuffer": ("<=", 0.001),
}


def run(report: Report, *, is_quick: bool) -> None:
    """Both. Of ten viewers the slowest stands for the 95th percentile."""
    rows = []
    for name, is_sharing in (("swarm", True), ("edge", False)):
        plan = audience.plan(edge_up=EDGE_UP, sharing=is_sharing)
        found = [swarm.run(plan, seed) for seed in range(1 if is_quick else RUNS)]
        rows.append(audience.tell(report, f"ample_{name}", found))
    slowest = "startup_max_seconds"
    beyond = report.figures[f"ample_swarm_{slowest}"] - report.figures[f"ample_edge_{slowest}"]
    report.figure("ample_startup_beyond_edge_seconds", beyond)
    report.table("Ten viewers 3 s apart at 4 Mbit/s, edge 100 Mbit/s", audience.COLUMNS, rows)
