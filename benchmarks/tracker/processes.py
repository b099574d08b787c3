"""What the tracker's benchmarks share: trackers as processes, the load in C, and CPU time."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

ROOT = Path(__file__).parents[2]
PENSTOCK = Path(sys.executable).with_name("penstock")
_TICKS = os.sysconf("SC_CLK_TCK")
GAP_SECONDS = 0.002
STARTS = 3  # of a tracker that does not answer; opentracker's now and then ends at once
ANSWER_SECONDS = 5.0
_CONNECT = bytes.fromhex("0000041727101980 00000000 00000001")
_DOOR = """
import sys, trio
from benchmarks.tracker.processes import widest_gap
from shared import garbage
from shared.core.ids import HostPort
from tracker.torrent_door import open_torrent_door
async def main():
    async with open_torrent_door(HostPort("127.0.0.1", int(sys.argv[1])), "bittorrent") as door:
        for torrent in sys.argv[2].split(","):
            door.core.know(bytes.fromhex(torrent))
        garbage.settle()
        await (widest_gap() if len(sys.argv) > 3 else trio.sleep_forever())
trio.run(main)
"""


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
        command = [str(PENSTOCK), "tracker", "--data", folder]
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


def missing_tools() -> list[str]:
    """What the comparison with opentracker needs and is not installed."""
    return [tool for tool in ("cc", "opentracker") if shutil.which(tool) is None]


def build_load(folder: Path) -> Path:
    """The generator of announces."""
    load = folder / "load"
    subprocess.run(["cc", "-O2", "-o", load, Path(__file__).with_name("load.c")], check=True)
    return load


@contextmanager
def opentracker(folder: Path, torrents: Sequence[bytes]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """opentracker and its port."""
    folder.chmod(0o755)  # it reads its list as nobody
    allowed = folder / "allowed"
    allowed.write_text("".join(f"{torrent.hex()}\n" for torrent in torrents))
    with _answering(
        lambda port: ["opentracker", "-i", "127.0.0.1", "-P", str(port), "-p", str(port), "-w", str(allowed)],
        folder,
    ) as found:  # fmt: skip
        yield found


@contextmanager
def torrent_door(
    torrents: Sequence[bytes], *, watched: bool = False
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Our BitTorrent door and its port; `watched`: it says, when its input ends, its longest pause in ms."""
    names = ",".join(torrent.hex() for torrent in torrents)
    with _answering(
        lambda port: [sys.executable, "-c", _DOOR, str(port), names, *(["watched"] if watched else [])], ROOT
    ) as found:
        yield found


async def widest_gap() -> None:
    """Inside a tracker, until standard input ends: prints how late trio woke us at worst, ms."""
    widest = 0.0
    async with trio.open_nursery() as nursery:

        async def wait_for_end() -> None:
            await trio.to_thread.run_sync(sys.stdin.read)
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait_for_end)
        while not nursery.cancel_scope.cancel_called:
            wanted_at = trio.current_time() + GAP_SECONDS
            await trio.sleep_until(wanted_at)
            widest = max(widest, trio.current_time() - wanted_at)
    print(f"{widest * 1000:.2f}", flush=True)


@contextmanager
def _answering(
    command: Callable[[int], list[str]], folder: Path
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    for _ in range(STARTS):
        port = _free_port()
        with subprocess.Popen(
            command(port),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
        ) as tracker:
            try:
                if _answers(port):
                    yield tracker, port
                    return
            finally:
                tracker.kill()
    raise RuntimeError(f"{command(0)[0]} did not answer, started {STARTS} times")


def _answers(port: int) -> bool:
    until = time.monotonic() + ANSWER_SECONDS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.1)
        sock.connect(("127.0.0.1", port))
        while time.monotonic() < until:
            try:
                sock.send(_CONNECT)
                return len(sock.recv(100)) == 16
            except (ConnectionError, TimeoutError):
                time.sleep(0.1)
    return False


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
