"""The household sends 4 of its 10 Mbit/s: within 2 s we are under 60 % of the rest, 10 s later back.

Its own traffic comes from the peer's host, where the interface counts it, or from another host behind the
same modem, of which only delay could tell.
"""

from __future__ import annotations

import time

from benchmarks.report import Goal, Report
from tests.lab.capped import CROWD, Home, open_scene
from tests.lab.line import mbit
from tests.lab.samples import between, mean_rate
from tests.lab.traffic import start_flow
from tests.lab.windows import COLUMNS, Shares, goals, shares

LINE, HOUSEHOLD = mbit(10), mbit(4)
YIELD_SECONDS, RETURN_SECONDS = 2.0, 10.0
FLOW_RATE = mbit(4) * 1448 / 1500  # of payload, so that IP packets are 4 Mbit/s
BACK_SECONDS = 3.0  # over which the rate is taken when it should have returned
LEAST_BACK = 0.55  # of the line
GOALS: dict[str, Goal] = {
    **goals("same_host", mbit(6), mean=0.40),
    **goals("other_host", mbit(6), mean=0.40),
    "same_host_back": (">=", LEAST_BACK),
    "other_host_back": (">=", LEAST_BACK),
}


def run(report: Report, *, is_quick: bool) -> None:
    """See above."""
    hosts = {"same_host": "pc"} if is_quick else {"same_host": "pc", "other_host": "tv"}
    report.skip(
        [name for name in GOALS if is_quick and name.startswith("other_host")], "not in the quick form"
    )
    rows = []
    for name, host in hosts.items():
        found, back = measure(host, 11.0 if is_quick else 15.0)
        rows.append([*found.row(name), f"{100 * back:.1f} %"])
        for figure, value in found.figures(name).items():
            report.figure(figure, value)
        report.figure(f"{name}_back", back)
    title = "Shares of the 6 Mbit/s that the household leaves, from 2 s after it began"
    report.table(title, [*COLUMNS, "of the line, 10 s after"], rows)


def measure(host: str, seconds: float) -> tuple[Shares, float]:
    """Shares of what is left while the household sends from `host`, and of the line when it has stopped."""
    with open_scene(Home(10), CROWD) as scene:
        scene.light_leechers("crowd", 5)
        scene.rest(6.0)
        began_at = time.monotonic()
        flow = start_flow(scene.lab, host, "core", seconds=seconds + YIELD_SECONDS, rate=FLOW_RATE)
        scene.rest(seconds + YIELD_SECONDS)
        ended_at = time.monotonic()
        flow.result()
        scene.rest(RETURN_SECONDS + BACK_SECONDS)
        # Where both leave by one port, what arrives at the leechers is ours; the household sends elsewhere.
        sent = scene.received("crowd") if host == "pc" else scene.sent()
    ours = between(sent, began_at + YIELD_SECONDS, ended_at)
    back = mean_rate(between(sent, ended_at + RETURN_SECONDS, time.monotonic())) / LINE
    return shares(ours, LINE - HOUSEHOLD), back
