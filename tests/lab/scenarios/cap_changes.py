"""A line that falls from 20 to 5 Mbit/s, and one that was never what its user said, are noticed in 10 s.

From ten seconds after the change (or after the leechers came, where the line was said to carry twice
what it does) no window reaches 60 % of what the line really carries.
"""

from __future__ import annotations

import time

from benchmarks.report import Goal, Report
from tests.lab.capped import CROWD, Home, open_scene
from tests.lab.line import mbit
from tests.lab.samples import Sample, between
from tests.lab.windows import COLUMNS, Shares, goals, shares

NOTICED_SECONDS = 10.0
BEFORE_SECONDS = 12.0
GOALS: dict[str, Goal] = {
    **goals("fallen", mbit(5), mean=None),
    **goals("wrong", mbit(10), mean=None),
}


def run(report: Report, *, is_quick: bool) -> None:
    """See above."""
    seconds = 11.0 if is_quick else 40.0
    found = {"wrong": wrong(seconds)}
    if is_quick:
        report.skip([name for name in GOALS if name.startswith("fallen")], "not in the quick form")
    else:
        found["fallen"] = fallen(seconds)
    report.table(
        "Shares of what the line carries, from 10 s after it changed",
        COLUMNS,
        (each.row(name) for name, each in found.items()),
    )
    for name, each in found.items():
        for figure, value in each.figures(name).items():
            report.figure(figure, value)


def fallen(seconds: float) -> Shares:
    """20 Mbit/s that are 5 from one moment on."""
    with open_scene(Home(20), CROWD) as scene:
        scene.light_leechers("crowd", 5)
        scene.rest(BEFORE_SECONDS)
        scene.lab.set_line("home", up_rate=mbit(5))
        changed_at = time.monotonic()
        scene.rest(NOTICED_SECONDS + seconds)
        return _since(scene.sent(), changed_at, mbit(5))


def wrong(seconds: float) -> Shares:
    """10 Mbit/s that were said to be 20."""
    with open_scene(Home(10, said=20), CROWD) as scene:
        scene.light_leechers("crowd", 5)
        came_at = time.monotonic()
        scene.rest(NOTICED_SECONDS + seconds)
        return _since(scene.sent(), came_at, mbit(10))


def _since(sent: tuple[Sample, ...], changed_at: float, line_rate: float) -> Shares:
    return shares(between(sent, changed_at + NOTICED_SECONDS, time.monotonic()), line_rate)
