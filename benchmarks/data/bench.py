"""One run of the benchmark: where it works, how long it may, and rounds of interleaved transfers."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.data import stock, torrent
from benchmarks.data.children import Child, ChildFailed
from benchmarks.data.competitors import NGINX, Competitor, Place, Transfer, transfer
from benchmarks.data.nginx import missing as nginx_missing
from benchmarks.data.orders import Order, Ready
from benchmarks.report import Report, median, number

MEGA = 1e6
COLUMNS = ["", "MB/s", "range", "sender s/GB", "receiver s/GB", "MB/s a core", "runs"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured, and how long the whole may take."""

    budget_seconds: float
    payload_bytes: int  # of the torrent and of nginx: more than is moved while measuring
    rounds: int
    few_rounds: int  # where the figure is no ratio between competitors
    seconds: float  # of one transfer
    path_seconds: float  # of one transfer over a lossy or long path
    idle_connections: int


FULL = Scale(660.0, 1 << 30, 5, 2, 1.5, 6.0, 10_000)
QUICK = Scale(100.0, 1 << 29, 3, 1, 0.8, 2.5, 300)


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to measure in every round."""

    label: str
    who: Competitor
    order: Order
    relayed: bool = False


@dataclass(slots=True)
class Bench:
    """What scenarios work with."""

    scale: Scale
    place: Place
    report: Report
    is_quick: bool
    started_at: float = field(default_factory=time.monotonic)

    def rounds(self, entries: Sequence[Entry], count: int, place: Place | None = None) -> Measured:
        """Measure each entry in turn, and all of them so many times, so that all meet the same weather."""
        measured = Measured({entry.label: [] for entry in entries})
        for number_of_round in range(count):
            for entry in entries:
                if entry.label not in measured.failures:
                    self._measure(entry, measured, place or self.place, f"{number_of_round + 1}/{count}")
        return measured

    def check_time(self) -> None:
        """Raises ChildFailed if the time for the whole is used up."""
        if time.monotonic() - self.started_at > self.scale.budget_seconds:
            raise ChildFailed("no time left")

    def _measure(self, entry: Entry, measured: Measured, place: Place, which: str) -> None:
        why_not = nginx_missing() if entry.who is NGINX else None
        try:
            self.check_time()
            if why_not is not None:
                raise ChildFailed(why_not)
            found = transfer(entry.who, entry.order, place, relayed=entry.relayed)
        except ChildFailed as error:
            measured.failures[entry.label] = str(error)
            progress(f"  {which} {entry.label}: {error}")
            return
        measured.runs[entry.label].append(found)
        progress(f"  {which} {entry.label}: {number(found.rate / MEGA)} MB/s")


@dataclass(slots=True)
class Measured:
    """All runs of some entries, by label; and why some could not be measured."""

    runs: dict[str, list[Transfer]]
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, more: Measured) -> None:
        """Take in the runs of another round."""
        for label, runs in more.runs.items():
            self.runs.setdefault(label, []).extend(runs)
        self.failures |= more.failures

    def failed(self) -> Iterator[str]:
        """What could not be measured and why, a line each."""
        for label, runs in self.runs.items():
            if not runs:
                yield f"{label}: {self.failures.get(label, 'no time left')}"

    def rate(self, label: str) -> float | None:
        """Median, bytes/s."""
        return median([run.rate for run in self.runs[label]])

    def cpu_per_gb(self, label: str) -> float | None:
        """Median of both ends together, CPU seconds per 10^9 bytes."""
        return median([run.sender_per_gb + run.receiver_per_gb for run in self.runs[label]])

    def core_rate(self, label: str) -> float | None:
        """Median of what the busier end could move with a core of its own, bytes/s."""
        return median([1e9 / max(run.sender_per_gb, run.receiver_per_gb) for run in self.runs[label]])

    def sender_share(self, label: str) -> float | None:
        """Median, of a core."""
        return median([run.sender_share for run in self.runs[label]])

    def rows(self) -> Iterator[list[str]]:
        """For a table with COLUMNS; entries that could not be measured say why."""
        for label, runs in self.runs.items():
            if not runs:
                yield [f"{label}: {self.failures.get(label, 'no time left')}", *[""] * (len(COLUMNS) - 1)]
                continue
            rates = [run.rate / MEGA for run in runs]
            yield [
                label,
                number(median(rates)),
                f"{number(min(rates))}-{number(max(rates))}" if len(rates) > 1 else "",
                number(median([run.sender_per_gb for run in runs])),
                number(median([run.receiver_per_gb for run in runs])),
                number((self.core_rate(label) or 0.0) / MEGA),
                str(len(runs)),
            ]


@contextmanager
def prepared(scale: Scale, report: Report, is_quick: bool) -> Iterator[Bench]:
    """A folder with payload, torrent and certificate, removed afterwards."""
    with tempfile.TemporaryDirectory(
        prefix=f"penstock-bench-{os.getpid()}-", dir=_roomy(scale.payload_bytes)
    ) as name:
        folder = Path(name)
        progress("preparing the payload")
        stock.write_certificate(folder)
        torrent.write_payload(folder, scale.payload_bytes)
        with Child("torrent", "make", Order(folder=name)) as maker:
            maker.hear(Ready, 60.0)
        sender, receiver = _cores()
        yield Bench(scale, Place(folder, sender, receiver), report, is_quick)


def progress(line: str) -> None:
    """What happens now, for whoever waits."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Weather:
    """How busy the machine was with other things: the reason why two runs differ."""

    at: float
    busy_seconds: float  # all cores
    own_seconds: float

    @classmethod
    def now(cls) -> Weather:
        """Since the machine's start."""
        first = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
        user, nice, system, _, _, hard, soft, steal = (int(ticks) for ticks in first[:8])
        busy = (user + nice + system + hard + soft + steal) / os.sysconf("SC_CLK_TCK")
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(time.monotonic(), busy, sum(one.ru_utime + one.ru_stime for one in used))

    def others_share(self, later: Weather) -> float:
        """Share of all cores that went to others between this moment and a later one."""
        others = (later.busy_seconds - self.busy_seconds) - (later.own_seconds - self.own_seconds)
        return max(0.0, others / (later.at - self.at) / (os.cpu_count() or 1))


def with_seconds(seconds: float, **changes: float) -> Order:
    """An order to measure for so long."""
    return replace(Order(seconds=seconds), **changes)  # type: ignore[arg-type]


def _roomy(payload_bytes: int) -> str | None:
    """Memory rather than a disk, if it holds the payload and a copy; else the usual place."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        return None
    room = os.statvfs(memory)
    return str(memory) if room.f_bavail * room.f_frsize > 3 * payload_bytes else None


def _cores() -> tuple[int | None, int | None]:
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)
