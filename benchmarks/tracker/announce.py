"""Plain BEP 15 announces with 30 peers: CPU of the tracker per answer, beside opentracker's."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.report import Report, median
from benchmarks.tracker.processes import build_load, cpu_seconds, missing_tools, opentracker, torrent_door

PEERS, TORRENTS = 1000, 10
IN_FLIGHT = {256: 0.75, 16: 1.4}  # and the goal: our CPU per answer over opentracker's


def torrent_names(count: int) -> list[bytes]:
    """The torrents that the load asks for."""
    return [number.to_bytes(4, "little") + b"T" * 16 for number in range(count)]


def measure(report: Report, is_quick: bool) -> None:
    """Adds a table, and a ratio for each number of requests under way."""
    names = {count: f"announce_{count}_cpu_vs_opentracker" for count in IN_FLIGHT}
    for count, bound in IN_FLIGHT.items():
        report.goal(names[count], "<=", bound)
    if missing := missing_tools():
        report.skip(names.values(), f"not installed: {', '.join(missing)}")
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        load = build_load(Path(folder))
        for count, name in names.items():
            ours, theirs = _compare(load, Path(folder), count, rounds=3 if is_quick else 7)
            report.ratio(name, median(ours), median(theirs))
            rows += [[f"opentracker, {count}", *figures(theirs)], [f"Penstock, {count}", *figures(ours)]]
    columns = ["in flight", "CPU us an answer", "least", "most"]
    report.table("Announces told of 30 peers of a hundred, one core for the tracker", columns, rows)


def figures(values: list[float]) -> list[str]:
    """Median, least and most, for a table."""
    return [f"{value:.2f}" for value in (median(values) or 0.0, min(values), max(values))]


def _compare(load: Path, folder: Path, in_flight: int, rounds: int) -> tuple[list[float], list[float]]:
    """CPU microseconds an answer, of us and of opentracker, in turns."""
    torrents = torrent_names(TORRENTS)
    found: list[list[float]] = [[], []]
    with torrent_door(torrents) as us, opentracker(folder, torrents) as them:
        for tracker, _ in (us, them):
            os.sched_setaffinity(tracker.pid, {0})
        for _ in range(rounds):
            for values, (tracker, port) in zip(found, (us, them), strict=True):
                values.append(cost_of(load, tracker.pid, port, in_flight))
    return found[0], found[1]


def cost_of(load: Path, tracker: int, port: int, in_flight: int) -> float:
    """CPU microseconds of a tracker for an answer."""
    before = cpu_seconds(tracker)
    command = ["taskset", "-c", "1", str(load), str(port), str(in_flight), "2", str(PEERS), str(TORRENTS)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    answered, _, mean_bytes, _ = said.split()
    if float(mean_bytes) < 190:
        raise RuntimeError(f"answers of {mean_bytes} bytes have no 30 peers")
    return (cpu_seconds(tracker) - before) * 1e6 / max(1, int(answered))
