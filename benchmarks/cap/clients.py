"""The clients that are compared, each with its own limit at 60 % of the uplink, asked by five leechers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.cap.torrent import PAYLOAD, PORT, SLOTS
from tests.lab.capped import FILM_BYTES, stocked
from tests.lab.daemons import ROOT, Daemons, end, environment, first_line
from tests.lab.lab import Lab
from tests.lab.line import LabError

SHARE = 0.60  # of the line: everybody's limit
PAYLOAD_BYTES = 64 << 20
START_SECONDS = 20.0
CHECK_SECONDS = 5.0  # for a client that first reads what it seeds
SEEDER = "pc"
LEECHERS = tuple(f"far{number}" for number in range(5))


@dataclass(frozen=True, slots=True)
class Job:
    """Where a client runs, what it shares, and its limit in bytes per second."""

    lab: Lab
    folder: Path  # with the payload and its torrent
    scratch: Path  # of this client alone
    limit: int

    @property
    def torrent(self) -> Path:
        """Of the payload."""
        return self.folder / "payload.torrent"


class Client(Protocol):
    """One of the compared."""

    name: str
    package: str | None  # of Debian, where it is a program

    def upload(self, job: Job) -> list[subprocess.Popen[str]]:
        """Starts it and its leechers; the processes to end afterwards, the uploading one first."""
        ...


class Libtorrent:
    """libtorrent, over uTP and TCP as it likes."""

    name = "libtorrent"
    package: str | None = None

    def upload(self, job: Job) -> list[subprocess.Popen[str]]:
        """See Client."""
        at = job.lab.address(SEEDER)
        seeder = torrent(job.lab, SEEDER, "seed", str(job.torrent), str(job.folder), at, str(job.limit))
        return [seeder, *leechers(job)]


class Aria2:
    """aria2."""

    name = "aria2"
    package: str | None = "aria2"
    program = "aria2c"

    def upload(self, job: Job) -> list[subprocess.Popen[str]]:
        """See Client."""
        flags = (
            "--no-conf", "--quiet", "--seed-ratio=0", "--check-integrity=true",
            "--enable-dht=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false",
            f"--listen-port={PORT}", f"--dir={job.folder}", f"--max-upload-limit={job.limit}",
        )  # fmt: skip
        seeder = background(job.lab, [self.program, *flags, str(job.torrent)])
        time.sleep(CHECK_SECONDS)
        return [seeder, *leechers(job)]


class Transmission:
    """Transmission; its limit is in kB/s."""

    name = "transmission"
    package: str | None = "transmission-daemon"
    program = "transmission-daemon"

    def upload(self, job: Job) -> list[subprocess.Popen[str]]:
        """See Client."""
        settings = {
            "speed-limit-up-enabled": True, "speed-limit-up": job.limit // 1000,
            "upload-slots-per-torrent": SLOTS, "port-forwarding-enabled": False,
            "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False,
            "peer-port": PORT, "rpc-enabled": False, "watch-dir-enabled": True, "start-added-torrents": True,
            "watch-dir": str(job.scratch / "watch"), "download-dir": str(job.folder),
        }  # fmt: skip
        (job.scratch / "watch").mkdir()
        (job.scratch / "settings.json").write_text(json.dumps(settings))
        shutil.copy(job.torrent, job.scratch / "watch")
        seeder = background(job.lab, [self.program, "--foreground", "--config-dir", str(job.scratch)])
        time.sleep(CHECK_SECONDS)
        return [seeder, *leechers(job)]


class Penstock:
    """Penstock: a tracker, an edge too narrow to serve, a peer that has a film, and five that want it."""

    name = "penstock"
    package: str | None = None

    def upload(self, job: Job) -> list[subprocess.Popen[str]]:
        """See Client."""
        daemons = Daemons(job.lab, job.scratch)
        scene = stocked(daemons, f"{8 * job.limit / SHARE / 1e6:g} Mbit/s", FILM_BYTES)
        fetches = scene.full_leechers(LEECHERS)
        others = [daemon for name, daemon in daemons.running.items() if name != SEEDER]
        return [daemons.running[SEEDER], *others, *fetches]


CLIENTS: tuple[Client, ...] = (Penstock(), Libtorrent(), Aria2(), Transmission())


def missing(client: Client) -> str | None:
    """Why a client cannot be measured here; None if it can."""
    program = getattr(client, "program", None)
    if program is None or shutil.which(program):
        return None
    return f"{program} is not installed: apt install {client.package}"


@contextmanager
def uploading(client: Client, job: Job) -> Iterator[None]:
    """The client uploads as long as this context is open."""
    processes = client.upload(job)
    try:
        yield
        for process in processes[:1]:
            if process.poll() is not None:
                raise LabError(f"{client.name} ended with {process.returncode}")
    finally:
        for process in reversed(processes):
            end(process)


def torrent(lab: Lab, host: str, *arguments: str) -> subprocess.Popen[str]:
    """libtorrent in a host, once it is ready."""
    process = lab.popen(
        host,
        [sys.executable, "-m", "benchmarks.cap.torrent", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
    )  # fmt: skip
    if not first_line(process, START_SECONDS):
        raise LabError(f"libtorrent in {host} did not start")
    return process


def leechers(job: Job) -> list[subprocess.Popen[str]]:
    """Five that download all they can from the seeder."""
    at = f"{job.lab.address(SEEDER)}:{PORT}"
    started = []
    for host in LEECHERS:
        folder = job.scratch / host
        folder.mkdir()
        started.append(torrent(job.lab, host, "leech", str(job.torrent), str(folder), at))
    return started


def background(lab: Lab, argv: Sequence[str]) -> subprocess.Popen[str]:
    """A program in the seeder's host that says nothing."""
    return lab.popen(
        SEEDER,
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def make_payload(lab: Lab, folder: Path) -> None:
    """What the others seed."""
    process = torrent(lab, SEEDER, "make", str(folder), str(PAYLOAD_BYTES))
    process.wait()
    assert (folder / PAYLOAD).exists()
