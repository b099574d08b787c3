"""Thousands of viewers in one swarm, connected as peers are and telling the tracker as much: its CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.request import urlopen

from benchmarks.report import Report, number
from benchmarks.tracker.processes import ROOT, RunningTracker, cpu_seconds, running_tracker

PROCESSES = 4
JOINS_A_SECOND = 100.0  # of all together
SETTLE_SECONDS = 5.0
LEAST_OF_PACE = 0.85  # of the messages that a pace means; fewer, and the load was not what it says
ANNOUNCE_SECONDS = 60


def measure(report: Report, is_quick: bool) -> None:
    """Adds a table, and the tracker's CPU as a share of one core."""
    viewers, seconds = (1000, 20.0) if is_quick else (4000, 60.0)
    report.goal("live_cores", "<=", 0.5)
    if is_quick:
        report.skip(["live_cores"], "needs 4,000 viewers")
    with running_tracker() as tracker:
        joined = _join(tracker, viewers)
        with joined as (join_seconds, join_cpu):
            time.sleep(SETTLE_SECONDS)
            before, at, announces = (
                cpu_seconds(tracker.pid),
                time.monotonic(),
                _overview(tracker)["announces"],
            )
            time.sleep(seconds)
            cores = (cpu_seconds(tracker.pid) - before) / (time.monotonic() - at)
            after = _overview(tracker)
    heard = after["announces"] - announces
    if after["nodes"] != viewers + 1 or heard < LEAST_OF_PACE * viewers * seconds / ANNOUNCE_SECONDS:
        raise RuntimeError(
            f"{after['nodes']} nodes, {heard} announces in {seconds:.0f} s: not the load meant"
        )
    report.table(
        f"{viewers:,} viewers of one film over connections of their own, at default pace",
        ["", "figure"],
        [
            ["tracker, share of a core", f"{cores:.3f}"],
            [f"announces in {seconds:.0f} s", str(heard)],
            ["joining all, seconds", number(join_seconds)],
            ["joining, CPU ms a viewer", number(join_cpu * 1000 / viewers)],
        ],
    )
    report.figure("live_cores", cores)
    report.figure("live_join_cpu_ms", join_cpu * 1000 / viewers)


@contextmanager
def _join(tracker: RunningTracker, viewers: int) -> Iterator[tuple[float, float]]:
    """While it is open all are connected; how long that took, and the tracker's CPU seconds for it."""
    with ExitStack() as stack:
        before, at = cpu_seconds(tracker.pid), time.monotonic()
        _heard(stack.enter_context(_crowd(tracker, 0)))
        crowds = [stack.enter_context(_crowd(tracker, viewers // PROCESSES)) for _ in range(PROCESSES)]
        for crowd in crowds:
            _heard(crowd)
        yield time.monotonic() - at, cpu_seconds(tracker.pid) - before


@contextmanager
def _crowd(tracker: RunningTracker, count: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.tracker.crowd", tracker.address, str(count)]
    command += [str(JOINS_A_SECOND / PROCESSES), "230"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as crowd:
        try:
            yield crowd
        finally:
            crowd.kill()


def _heard(crowd: subprocess.Popen[str]) -> None:
    assert crowd.stdout is not None
    if not crowd.stdout.readline().startswith("joined"):
        raise RuntimeError("a process of the crowd ended before it had joined")


def _overview(tracker: RunningTracker) -> dict[str, int]:
    with urlopen(f"{tracker.api}/api/v1/overview", timeout=10) as answer:  # our own
        found: dict[str, int] = json.load(answer)
        return found
