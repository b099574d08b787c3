"""Pause pressed, the day's budget used up, a quiet hour begun: 100 ms later no data leaves; downloads go on.

What still leaves are answers that say no, acknowledgements and keep-alives: no 100 ms hold as much as
two datagrams of data, and all together are under 1 % of the line.
"""

from __future__ import annotations

import time

from benchmarks.report import Goal, Report
from tests.lab.capped import CROWD, Home, Scene, open_scene
from tests.lab.line import LabError, mbit
from tests.lab.samples import Sample, between
from tests.lab.windows import percent, shares

HOME = Home(10)
GRACE_SECONDS = 0.1
BUDGET_BYTES = 6_000_000
OTHER_FILM_BYTES = 4 << 20
MINUTE = 60
MOST_IN_100_MS, MOST_MEAN = 0.02, 0.01  # of the line
CASES = ("pause", "budget", "quiet")
GOALS: dict[str, Goal] = {
    **{f"{case}_worst_100ms": ("<=", MOST_IN_100_MS) for case in CASES},
    **{f"{case}_mean": ("<=", MOST_MEAN) for case in CASES},
    "pause_downloads": (">=", 1.0),  # of another film, while paused
    "budget_overrun": ("<=", 0.03),  # of the budget
}


def run(report: Report, *, is_quick: bool) -> None:
    """See above."""
    rows = [_judge(report, "pause", paused(report))]
    if is_quick:
        skipped = [name for name in GOALS if not name.startswith("pause")]
        report.skip(skipped, "not in the quick form")
    else:
        rows.append(_judge(report, "budget", budget_used_up(report)))
        rows.append(_judge(report, "quiet", quiet_hour_begun()))
    report.table("Shares of the line from 100 ms after", ["", "worst 100 ms", "mean"], rows)


def _judge(report: Report, case: str, after: tuple[Sample, ...]) -> list[str]:
    found = shares(after, mbit(HOME.uplink))
    report.figure(f"{case}_worst_100ms", found.worst[0.1])
    report.figure(f"{case}_mean", found.mean)
    return [case, percent(found.worst[0.1]), percent(found.mean)]


def paused(report: Report) -> tuple[Sample, ...]:
    """`penstock peer pause`, and then a download."""
    with open_scene(HOME, CROWD, film_for_edge=OTHER_FILM_BYTES) as scene:
        scene.light_leechers("crowd", 5)
        scene.rest(5.0)
        scene.daemons.command("pc", "peer", "pause")
        after = _after(scene, time.monotonic(), 4.0)
        other = scene.daemons.folder / "other.mp4"
        scene.daemons.command("pc", "fetch", scene.titles["other"], "--output", str(other))
        report.figure("pause_downloads", float(other.stat().st_size > 0))
        return after


def budget_used_up(report: Report) -> tuple[Sample, ...]:
    """A budget of a few seconds of upload."""
    budget = f"{BUDGET_BYTES // 1_000_000} MB"
    with open_scene(HOME, CROWD, PENSTOCK_PEER_DAY_BUDGET=budget) as scene:
        scene.light_leechers("crowd", 5)
        scene.rest(16.0)
        sent = scene.sent()
        used_up = next((one.at for one in sent if one.bytes - sent[0].bytes >= BUDGET_BYTES), None)
        if used_up is None:  # a little under is as good
            used_up = next(one.at for one in sent if one.bytes >= 0.999 * sent[-1].bytes)
        over = (sent[-1].bytes - sent[0].bytes) / BUDGET_BYTES - 1.0
        report.figure("budget_overrun", over)
        return between(sent, used_up + GRACE_SECONDS, time.monotonic())


def quiet_hour_begun() -> tuple[Sample, ...]:
    """It begins with the next minute that is far enough away."""
    now = time.time()
    begins_at = (now // MINUTE + (1 if now % MINUTE < MINUTE / 2 else 2)) * MINUTE
    hours = "-".join(time.strftime("%H:%M", time.localtime(at)) for at in (begins_at, begins_at + 3600))
    with open_scene(HOME, CROWD, PENSTOCK_PEER_QUIET_HOURS=hours) as scene:
        scene.light_leechers("crowd", 5)
        scene.rest(max(0.0, begins_at - time.time()))
        begun_at = time.monotonic()
        sent = scene.sent()
        if shares(between(sent, begun_at - 2.0, begun_at), mbit(HOME.uplink)).mean < 0.3:
            raise LabError("the peer did not upload before the quiet hour")
        return _after(scene, begun_at, 6.0)


def _after(scene: Scene, moment: float, seconds: float) -> tuple[Sample, ...]:
    scene.rest(seconds)
    return between(scene.sent(), moment + GRACE_SECONDS, time.monotonic())
