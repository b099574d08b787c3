"""A film and its audience: an edge with a narrow line, and peers with a client each behind their own lines.

The tracker stands apart, so that the edge's line carries only what the edge sends. Every peer is a `penstock
peer` as users start it, every client a process that goes through its door. Bytes are counted at the lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from shared.core.manifest import Manifest
from tests.lab.daemons import ROOT, Daemons, environment, first_line, make_film
from tests.lab.lab import Lab, open_lab
from tests.lab.line import LabError, Line, mbit
from tests.lab.samples import Sample, between, bytes_at, in_ip_bytes, total_bytes, worst_window

DELAY_SECONDS = 0.0075  # of a line, each way: 30 ms for a round trip between two of them
SAMPLE_SECONDS = 0.02
READY_SECONDS = 60.0
DOOR = "http://127.0.0.1:8480"
LIFTED = 1.6  # times its line is what a peer is told where the cap is lifted: 93 % of the line may then leave
BUSY = 0.85  # of the processors: beyond it a run says more of them than of the programs


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Rates are Mbit/s; `gap_seconds` lie between one client's start and the next one's."""

    what: str  # play or download
    film_bytes: int
    gap_seconds: float = 0.0
    limit_seconds: float = 200.0
    peers: int = 10
    up: float = 10.0
    down: float = 50.0
    edge_up: float = 20.0
    capped: bool = True
    sharing: bool = True  # else every byte comes from the edge

    @property
    def names(self) -> list[str]:
        """Of the peers' hosts."""
        return [f"peer{number}" for number in range(self.peers)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run came to. Shares of payload are of all that the clients got."""

    clients: list[dict[str, Any]]  # what each said, in the order of their starts
    offload: float  # 1 less the share of payload that the edge's line carried, headers and all
    beyond: float  # what the peers' lines carried down beyond payload, headers and all
    twice: float  # film that arrived and was not wanted any more
    worst_1s: float  # of a peer's uplink, the worst of all
    worst_10s: float
    processors: float  # share of them that was in use
    uploads: list[float]  # what each peer sent, as a multiple of the film
    rates: dict[str, list[float]]  # Mbit/s that each line carried up, the edge's first, second by second

    def noticed(self, name: str) -> list[float]:
        """One figure of every client."""
        return [float(client[name]) for client in self.clients]


def run(plan: Plan, seed: int = 1) -> Outcome:
    """Builds the lines, starts everything, lets the clients go. Raises LabError if that is not possible."""
    edge = Line("edge", mbit(plan.edge_up), mbit(100), DELAY_SECONDS, queue_seconds=0.2)
    hub = Line("hub", mbit(100), mbit(100), DELAY_SECONDS)
    homes = [
        Line(name, mbit(plan.up), mbit(plan.down), DELAY_SECONDS, queue_seconds=0.2) for name in plan.names
    ]
    with (
        tempfile.TemporaryDirectory(prefix="penstock-lab-") as folder,
        open_lab(edge, hub, *homes, seed=seed) as lab,
    ):
        daemons = Daemons(lab, Path(folder))
        film = _start(plan, daemons)
        clients = [_client(lab, name, film, plan.what) for name in plan.names]
        return _measure(plan, lab, film, clients)


def _start(plan: Plan, daemons: Daemons) -> Manifest:
    film, pieces = make_film(daemons.folder / "edge", plan.film_bytes)
    daemons.stock(film, pieces, "edge")
    daemons.catalogue(film)
    daemons.start_core("edge", "hub")
    told = plan.up if plan.capped else plan.up * LIFTED
    flags = ("--uplink", f"{told:g} Mbit/s", "--mode", "shared" if plan.sharing else "direct")
    for name in plan.names:
        daemons.start_peer(name, *flags)
    return film


def _client(lab: Lab, host: str, film: Manifest, what: str) -> subprocess.Popen[str]:
    return lab.popen(
        host,
        [sys.executable, "-m", "tests.lab.viewer", DOOR, film.title_id.hex(), what],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
    )  # fmt: skip


def _measure(plan: Plan, lab: Lab, film: Manifest, clients: Sequence[subprocess.Popen[str]]) -> Outcome:
    for client in clients:
        if not first_line(client, READY_SECONDS):
            raise LabError("a client did not start")
    with lab.record(SAMPLE_SECONDS) as recording:
        began_at, busy_before = time.monotonic(), _busy_seconds()
        for client in clients:
            assert client.stdin
            client.stdin.write("go\n")
            client.stdin.flush()
            time.sleep(plan.gap_seconds)
        said = [_answer(client, began_at + plan.limit_seconds) for client in clients]
        ended_at, busy_after = time.monotonic(), _busy_seconds()
        overruns = lab.delay_statistics().overruns
    if overruns:
        raise LabError("the laboratory was too slow: packets were lost that should not have been")
    payload = sum(answer["received_bytes"] for answer in said) or 1
    ups = {name: in_ip_bytes(recording.host(name).up) for name in plan.names}
    downs = [total_bytes(in_ip_bytes(recording.line(name).down)) for name in plan.names]
    from_edge = total_bytes(between(in_ip_bytes(recording.line("edge").up), began_at, ended_at))
    rate = mbit(plan.up)
    return Outcome(
        clients=said,
        offload=1 - from_edge / payload,
        beyond=sum(downs) / payload - 1,
        twice=sum(answer["peer"]["wasted_bytes"] for answer in said) / payload,
        worst_1s=max(worst_window(samples, 1.0) for samples in ups.values()) / rate,
        worst_10s=max(worst_window(samples, 10.0) for samples in ups.values()) / rate,
        processors=(busy_after - busy_before) / (ended_at - began_at),
        uploads=[total_bytes(samples) / film.length for samples in ups.values()],
        rates={name: _by_second(recording.line(name).up, began_at) for name in ("edge", *plan.names)},
    )


def _by_second(samples: Sequence[Sample], began_at: float) -> list[float]:
    times, totals = [sample.at for sample in samples], [sample.bytes for sample in samples]
    marks = [bytes_at(times, totals, began_at + second) for second in range(int(times[-1] - began_at) + 1)]
    return [8e-6 * (after - before) for before, after in pairwise(marks)]


def _answer(client: subprocess.Popen[str], give_up_at: float) -> dict[str, Any]:
    line = first_line(client, max(0.1, give_up_at - time.monotonic()))
    if not line:
        raise LabError("a client did not come to its end in time")
    answer: dict[str, Any] = json.loads(line)
    if answer["failure"]:
        raise LabError(f"a client failed: {answer['failure']}")
    return answer


def _busy_seconds() -> float:
    """Processor time that the machine used so far, as a share of all processors."""
    with Path("/proc/stat").open(encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return (1 - idle / sum(ticks)) * sum(ticks) / 100 / _processors()


def _processors() -> int:
    rows = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    return sum(row.startswith("cpu") for row in rows) - 1
