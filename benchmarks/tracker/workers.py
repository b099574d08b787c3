"""Plain announces at two workers, each with its own torrents: CPU per answer beside one process, and strays.

`python -m benchmarks.tracker.workers` is a lead with two workers; it says port and process ids,
and, when its input ends, how many announces came and how many of them were astray.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio

from benchmarks.report import Report, median
from benchmarks.tracker.announce import PEERS, TORRENTS, figures, torrent_names
from benchmarks.tracker.processes import ROOT, build_load, cpu_seconds, torrent_door
from shared.core.ids import HostPort
from tracker.torrent_crew import open_torrent_crew

WORKERS, IN_FLIGHT = 2, 256
SECONDS = 2


def measure(report: Report, is_quick: bool) -> None:
    """Adds a table, the ratio, and the announces that were astray."""
    report.goal("workers_cpu_vs_one", "<=", 1.05)
    report.goal("workers_astray", "<=", 0)
    if shutil.which("cc") is None:
        report.skip(("workers_cpu_vs_one", "workers_astray"), "not installed: cc")
        return
    torrents, rounds = torrent_names(TORRENTS), 3 if is_quick else 9
    one: list[float] = []
    two: list[float] = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        load = build_load(Path(folder))
        with torrent_door(torrents) as (alone, port), _crew() as (lead, crew_port, pids):
            for pid in (alone.pid, *pids):
                os.sched_setaffinity(pid, {0})
            for _ in range(rounds):
                one.append(_cost(load, [alone.pid], port, 1))
                two.append(_cost(load, pids, crew_port, WORKERS))
            came, astray = (int(word) for word in lead.communicate(timeout=20)[0].split())
    report.ratio("workers_cpu_vs_one", median(two), median(one))
    report.figure("workers_astray", astray)
    rows = [["one process", *figures(one), "", ""], ["two workers", *figures(two), f"{came:,}", str(astray)]]
    columns = ["", "CPU us an answer", "least", "most", "announces", "astray"]
    report.table(f"Announces, {IN_FLIGHT} under way for each process, all on one core", columns, rows)


def _cost(load: Path, pids: list[int], port: int, loads: int) -> float:
    """CPU microseconds of these processes for an answer, under so many loads, each with its own torrents."""
    before = sum(map(cpu_seconds, pids))
    command = ["taskset", "-c", "1", str(load), str(port), str(IN_FLIGHT), str(SECONDS), str(PEERS)]
    running = [
        subprocess.Popen([*command, str(TORRENTS), str(first), str(loads)], stdout=subprocess.PIPE, text=True)
        for first in range(loads)
    ]
    said = [one.communicate(timeout=30)[0].split() for one in running]
    if any(float(mean_bytes) < 190 for _, _, mean_bytes, _ in said):
        raise RuntimeError(f"answers have no 30 peers: {said}")
    answered = sum(int(count) for count, *_ in said)
    return (sum(map(cpu_seconds, pids)) - before) * 1e6 / max(1, answered)


@contextmanager
def _crew() -> Iterator[tuple[subprocess.Popen[str], int, list[int]]]:
    """A lead's process, its port, and the ids of all its processes."""
    command = [sys.executable, "-m", "benchmarks.tracker.workers"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as lead:
        try:
            assert lead.stdout is not None
            port, *pids = (int(word) for word in lead.stdout.readline().split())
            yield lead, port, [lead.pid, *pids]
        finally:
            lead.kill()


async def _lead() -> None:
    async with open_torrent_crew(HostPort("127.0.0.1", 0), "bittorrent", WORKERS, "error") as crew:
        await crew.know(torrent_names(WORKERS * TORRENTS))
        await crew.scrape(torrent_names(WORKERS * TORRENTS))  # what was said before it has been heard
        print(crew.port, *crew.pids(), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        done = await crew.done()
        print(sum(one.door.announces for one in done), sum(one.astray for one in done), flush=True)


if __name__ == "__main__":
    trio.run(_lead)
