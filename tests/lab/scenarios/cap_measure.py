"""With `uplink = "measure"` a line of 10 and one of 20 Mbit/s are found within 10 %, and the cap holds.

The peer is told nothing. Once it has fetched a film from the edge, and so is connected to it, it sends
its trains; then five leechers ask for all they can get. A measurement is used at 80 %, so less of the line
is used than where it is known. Windows count from before the peer's start, trains included.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.report import Goal, Report
from tests.lab.capped import CROWD, SETTLE_SECONDS, Home, Scene, open_scene
from tests.lab.line import LabError, mbit
from tests.lab.samples import between
from tests.lab.windows import COLUMNS, Shares, goals, percent, shares

OTHER_FILM_BYTES = 4 << 20
ROUND_SECONDS = 45.0  # five trains that told something, with what is saved up before each
ERROR = 0.10
LEAST_MEAN = 0.41  # 80 % of the cap, of an estimate that is 10 % too low
ASK = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:8480/api/v1/statistics", timeout=10).read().decode())
"""
LINES = {"ten": 10.0, "twenty": 20.0}  # Mbit/s
GOALS: dict[str, Goal] = {}
for _name, _uplink in LINES.items():
    GOALS |= goals(_name, mbit(_uplink), mean=LEAST_MEAN)
    GOALS[f"{_name}_error"] = ("<=", ERROR)


def run(report: Report, *, is_quick: bool) -> None:
    """See above."""
    chosen = {"ten": LINES["ten"]} if is_quick else LINES
    if is_quick:
        report.skip([name for name in GOALS if not name.startswith("ten")], "not in the quick form")
    rows = []
    for name, uplink in chosen.items():
        error, found = measured(uplink, 12.0 if is_quick else 20.0)
        report.figure(f"{name}_error", abs(error))
        for figure, value in found.figures(name).items():
            report.figure(figure, value)
        rows.append([*found.row(f"{uplink:g} Mbit/s"), percent(error)])
    report.table("Shares of a measured line", [*COLUMNS, "estimate is off by"], rows)


def measured(uplink: float, seconds: float) -> tuple[float, Shares]:
    """How far the estimate is off, as a share of the line, and what was sent."""
    with open_scene(Home(uplink, said="measure"), CROWD, film_for_edge=OTHER_FILM_BYTES) as scene:
        other = scene.daemons.folder / "other.mp4"
        scene.daemons.command("pc", "fetch", scene.titles["other"], "--output", str(other))
        capacity = _wait_measured(scene)
        scene.light_leechers("crowd", 5)
        scene.rest(SETTLE_SECONDS)
        begin_at = time.monotonic()
        scene.rest(seconds)
        sent = scene.sent()
        steady = shares(between(sent, begin_at, time.monotonic()), mbit(uplink)).mean
        return capacity / mbit(uplink) - 1.0, Shares(shares(sent, mbit(uplink)).worst, steady)


def _wait_measured(scene: Scene) -> float:
    """What the peer takes the line for, in bytes/s, after a round. Raises LabError if it told nothing."""
    give_up_at = time.monotonic() + ROUND_SECONDS
    while time.monotonic() < give_up_at:
        scene.rest(1.0)
        cap = json.loads(scene.lab.run("pc", [sys.executable, "-c", ASK]).stdout)["cap"]
        if cap["grounds"] == "measured":
            return float(cap["uplink_rate"])
    raise LabError(f"the line was not measured within {ROUND_SECONDS:g} seconds: {cap}")
