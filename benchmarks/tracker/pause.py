"""A million peers of BitTorrent while announces arrive: the longest anybody waits, beside opentracker."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.report import Report, number
from benchmarks.tracker.announce import torrent_names
from benchmarks.tracker.processes import build_load, missing_tools, opentracker, torrent_door

TORRENTS = 100
IN_FLIGHT = 64
GOAL_MS = 20.0


def measure(report: Report, is_quick: bool) -> None:
    """Adds a table: longest waits of clients while the peers come, and while they say so again."""
    peers, seconds = (100_000, (4, 3)) if is_quick else (1_000_000, (25, 10))
    names = ["pause_inside_ms", "pause_answer_ms"]
    for name in names:
        report.goal(name, "<=", GOAL_MS)
    if missing := missing_tools():
        report.skip(names, f"not installed: {', '.join(missing)}")
        return
    if is_quick:
        report.skip(names, "needs a million peers")
    torrents = torrent_names(TORRENTS)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        load = build_load(Path(folder))
        with opentracker(Path(folder), torrents) as (tracker, port):
            theirs = [_longest(load, tracker.pid, port, peers, span) for span in seconds]
        with torrent_door(torrents, watched=True) as (tracker, port):
            ours = [_longest(load, tracker.pid, port, peers, span) for span in seconds]
            inside = float(tracker.communicate(timeout=20)[0])
    rows = [
        [name, *(number(value) for value in found)]
        for name, found in (("opentracker", theirs), ("Penstock", ours))
    ]
    report.table(
        f"Longest wait for an answer, ms: {IN_FLIGHT} announces under way for {peers:,} peers",
        ["", "while they come", "while they come again"],
        [*rows, ["Penstock, longest pause of its loop", number(inside), ""]],
    )
    report.figure("pause_inside_ms", inside)
    report.figure("pause_answer_ms", max(ours))
    report.figure("pause_opentracker_answer_ms", max(theirs))


def _longest(load: Path, tracker: int, port: int, peers: int, seconds: int) -> float:
    os.sched_setaffinity(tracker, {0})
    command = [
        "taskset",
        "-c",
        "1",
        str(load),
        str(port),
        str(IN_FLIGHT),
        str(seconds),
        str(peers),
        str(TORRENTS),
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=90).stdout
    answered, _, _, longest = said.split()
    if int(answered) < peers * seconds / 40:
        raise RuntimeError(f"only {answered} announces were answered in {seconds} s")
    return float(longest)
