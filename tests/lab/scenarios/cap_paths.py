"""With IPv6, and with 2 % of the packets lost, no window reaches 60 % of 10 Mbit/s and 57 % are used."""

from __future__ import annotations

from benchmarks.report import Goal, Report
from tests.lab.capped import Home, run_light
from tests.lab.line import mbit
from tests.lab.scenarios.cap_windows import tell
from tests.lab.windows import goals

HOMES = {"ipv6": Home(10, ipv6=True), "loss": Home(10, loss=0.02)}
GOALS: dict[str, Goal] = {figure: goal for name in HOMES for figure, goal in goals(name, mbit(10)).items()}


def run(report: Report, *, is_quick: bool) -> None:
    """See above."""
    seconds = 8.0 if is_quick else 25.0
    runs = {name: (10.0, run_light(home, 5, seconds)) for name, home in HOMES.items()}
    tell(report, "Shares of a 10 Mbit/s uplink, five leechers", runs)
