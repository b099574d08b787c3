"""What the tracker's benchmarks share: CPU time of a process, and a tracker as its operator starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PENSTOCK = Path(sys.executable).with_name("penstock")
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process: int) -> float:
    """CPU time that a process took so far, in user and system mode."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@dataclass(frozen=True, slots=True)
class RunningTracker:
    """A tracker's process."""

    pid: int
    address: str
    api: str


@contextmanager
def running_tracker(*flags: str) -> Iterator[RunningTracker]:
    """`penstock tracker`, open to edges, on free ports, ended with the context."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        command = [PENSTOCK, "tracker", "--data", folder]
        command += ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", *flags]
        environment = {**os.environ, "PENSTOCK_TRACKER_OPEN_TO_EDGES": "true"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        ) as tracker:
            try:
                assert tracker.stdout is not None
                words = tracker.stdout.readline().split()
                if len(words) != 5:
                    raise RuntimeError(f"the tracker did not start: {' '.join(words)}")
                yield RunningTracker(tracker.pid, words[2], words[4])
            finally:
                tracker.terminate()
                try:
                    tracker.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    tracker.kill()
