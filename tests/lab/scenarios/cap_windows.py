"""On 10 Mbit/s, no window of 100 ms, 1 s or 10 s reaches 60 % of the line, and 57 % are used.

Asked by five full peers, by one and by fifty light leechers, and by twenty that come and go.
"""

from __future__ import annotations

from benchmarks.report import Goal, Report
from tests.lab.capped import Home, Run, run_full, run_light
from tests.lab.line import mbit
from tests.lab.windows import COLUMNS, goals

HOME = Home(10)
GOALS: dict[str, Goal] = {
    **goals("five", mbit(10)),
    **goals("one", mbit(10)),
    **goals("fifty", mbit(10)),
    **goals("churn", mbit(10)),
}


def run(report: Report, *, is_quick: bool) -> None:
    """See above."""
    seconds = 10.0 if is_quick else 40.0
    runs = {"five": run_full(HOME, 5, seconds)}
    if is_quick:
        report.skip([name for name in GOALS if not name.startswith("five")], "not in the quick form")
    else:
        runs["one"] = run_light(HOME, 1, 20.0)
        runs["fifty"] = run_light(HOME, 50, 30.0)
        runs["churn"] = run_light(HOME, 20, 30.0, churn=(4.0, 1.0))
    tell(
        report, "Shares of a 10 Mbit/s uplink, by leechers", {name: (10, each) for name, each in runs.items()}
    )


def tell(report: Report, title: str, runs: dict[str, tuple[float, Run]]) -> None:
    """A table and figures of runs by name, each on a line of so many Mbit/s."""
    found = {name: each.shares(mbit(uplink)) for name, (uplink, each) in runs.items()}
    report.table(title, COLUMNS, (each.row(name) for name, each in found.items()))
    for name, each in found.items():
        for figure, value in each.figures(name).items():
            report.figure(figure, value)
