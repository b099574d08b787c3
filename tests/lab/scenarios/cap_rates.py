"""On 2, 50 and 200 Mbit/s, with five leechers, no window that counts reaches 60 % and 57 % are used.

On 2 Mbit/s 100 ms are nine packets, so there only 1 s and 10 s count. On 200 Mbit/s the line has no
delay: the process that delays packets would need the core that the peer needs.
"""

from __future__ import annotations

from benchmarks.report import Goal, Report
from tests.lab.capped import Home, run_light
from tests.lab.line import mbit
from tests.lab.scenarios.cap_windows import tell
from tests.lab.windows import goals

HOMES = {"rate2": Home(2), "rate50": Home(50), "rate200": Home(200, delay_seconds=0.0)}
GOALS: dict[str, Goal] = {
    figure: goal for name, home in HOMES.items() for figure, goal in goals(name, mbit(home.uplink)).items()
}


def run(report: Report, *, is_quick: bool) -> None:
    """See above."""
    chosen = ["rate50"] if is_quick else list(HOMES)
    runs = {
        name: (HOMES[name].uplink, run_light(HOMES[name], 5, 8.0 if is_quick else 25.0)) for name in chosen
    }
    report.skip([name for name in GOALS if name.partition("_")[0] not in chosen], "not in the quick form")
    tell(report, "Shares of the uplink, by its Mbit/s, five leechers", runs)
