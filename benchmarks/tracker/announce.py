"""Plain BEP 15 announces with 30 peers: CPU of the tracker per answer, beside opentracker's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.report import Report, median
from benchmarks.tracker.processes import cpu_seconds

PEERS, TORRENTS = 1000, 10
IN_FLIGHT = {256: 0.75, 16: 1.4}  # and the goal: our CPU per answer over opentracker's
SOURCE = Path(__file__).with_name("load.c")
DOOR = """
import sys, trio
from shared import garbage
from shared.core.ids import HostPort
from tracker.torrent_door import open_torrent_door
async def main():
    async with open_torrent_door(HostPort("127.0.0.1", int(sys.argv[1])), "bittorrent") as door:
        for torrent in sys.stdin.read().split():
            door.core.know(bytes.fromhex(torrent))
        garbage.settle()
        await trio.sleep_forever()
trio.run(main)
"""


def measure(report: Report, is_quick: bool) -> None:
    """Adds a table, and a ratio for each number of requests under way."""
    names = {count: f"announce_{count}_cpu_vs_opentracker" for count in IN_FLIGHT}
    for count, bound in IN_FLIGHT.items():
        report.goal(names[count], "<=", bound)
    missing = [tool for tool in ("cc", "opentracker") if shutil.which(tool) is None]
    if missing:
        report.skip(names.values(), f"not installed: {', '.join(missing)}")
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        load = Path(folder) / "load"
        subprocess.run(["cc", "-O2", "-o", load, SOURCE], check=True)
        for count, name in names.items():
            ours, theirs = _compare(load, Path(folder), count, rounds=3 if is_quick else 7)
            report.ratio(name, median(ours), median(theirs))
            rows += [[f"opentracker, {count}", *_figures(theirs)], [f"Penstock, {count}", *_figures(ours)]]
    columns = ["in flight", "CPU us an answer", "least", "most"]
    report.table("Announces told of 30 peers of a hundred, one core for the tracker", columns, rows)


def _figures(values: list[float]) -> list[str]:
    return [f"{value:.2f}" for value in (median(values) or 0.0, min(values), max(values))]


def _compare(load: Path, folder: Path, in_flight: int, rounds: int) -> tuple[list[float], list[float]]:
    """CPU microseconds an answer, of us and of opentracker, in turns."""
    torrents = [(number.to_bytes(4, "big") + b"T" * 16).hex() for number in range(TORRENTS)]
    folder.chmod(0o755)  # opentracker reads it as nobody
    allowed = folder / "allowed"
    allowed.write_text("".join(f"{torrent}\n" for torrent in torrents))
    ports = [_free_port(), _free_port()]
    theirs = ["opentracker", "-i", "127.0.0.1", "-P", str(ports[1]), "-p", str(ports[1]), "-w", str(allowed)]
    found: list[list[float]] = [[], []]
    with (
        subprocess.Popen([sys.executable, "-c", DOOR, str(ports[0])], stdin=subprocess.PIPE, text=True) as us,
        subprocess.Popen(theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder) as them,
    ):
        with suppress(subprocess.TimeoutExpired):  # it goes on, as it should
            us.communicate("\n".join(torrents), timeout=0.1)
        pids = (us.pid, them.pid)
        time.sleep(2.0)
        try:
            for pid in pids:
                os.sched_setaffinity(pid, {0})
            for _ in range(rounds):
                for place, pid in enumerate(pids):
                    found[place].append(_one(load, pid, ports[place], in_flight))
        finally:
            us.kill()
            them.kill()
    return found[0], found[1]


def _one(load: Path, tracker: int, port: int, in_flight: int) -> float:
    before = cpu_seconds(tracker)
    command = ["taskset", "-c", "1", str(load), str(port), str(in_flight), "2", str(PEERS), str(TORRENTS)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    answered, _, mean_bytes = said.split()
    if float(mean_bytes) < 190:
        raise RuntimeError(f"answers of {mean_bytes} bytes have no 30 peers")
    return (cpu_seconds(tracker) - before) * 1e6 / max(1, int(answered))


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
