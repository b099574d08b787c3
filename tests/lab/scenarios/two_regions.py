"""Two regions: a miss is served from the other one, and trackers that are killed stop no film.

A central tracker, and two regional ones with an edge each. The film is published in the north only.
Viewers in the south watch it at its own pace: the first is sent to the north's edge (the secondary
redirect), the others find the south's viewers. Then the central tracker is killed, later the south's
(kill -9): its viewers must be at the north's tracker soon, and nobody may stall. The last viewer comes
when the south has no tracker any more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import Goal, Report
from shared.core.ids import parse_address
from tests.lab.daemons import PENSTOCK, Daemons, environment, make_film
from tests.lab.lab import Lab, open_lab
from tests.lab.line import LabError, Line, mbit

GOALS: dict[str, Goal] = {
    "two_regions_stalls": ("<=", 0),
    "two_regions_verified": (">=", 5),  # viewers who saw all of it
    "two_regions_secondary_redirects": (">=", 1),
    "two_regions_offload": (">=", 0.5),  # of what the later viewers of the south took
    "two_regions_alone_seconds": ("<=", 5.0),
    "two_regions_found_seconds": ("<=", 3.0),
    "two_regions_late_startup_seconds": ("<=", 5.0),
}
HOUSE = Line("house", up_rate=mbit(20), down_rate=mbit(100), delay_seconds=0.012)
FAST = mbit(300)
SEGMENT_SECONDS, SEGMENT_BYTES = 4, 2_000_000
FILM_SECONDS, QUICK_SECONDS = 80, 48
GAP_SECONDS = 4.0  # between two viewers
VIEWERS = ("s1", "s2", "s3")
LATE = "s4"
HEAR_SECONDS = 20.0

# What runs in a host: asks a door on its loopback until a condition on the JSON holds; says when that was.
UNTIL = """
import json, sys, time, urllib.request
url, condition, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
give_up_at = time.monotonic() + seconds
while time.monotonic() < give_up_at:
    try:
        told = json.load(urllib.request.urlopen(url, timeout=2))
    except OSError:
        told = None
    if told is not None and eval(condition):
        print(json.dumps([time.monotonic(), told]), flush=True)
        break
    time.sleep(0.05)
"""


@dataclass(slots=True)
class Stage:
    """Everything that runs."""

    lab: Lab
    daemons: Daemons
    trackers: dict[str, str] = field(default_factory=dict)  # addresses by name

    def start_tracker(self, name: str, **settings: str) -> None:
        """A tracker on the host of its name, with its API on the host's loopback."""
        named = {f"PENSTOCK_TRACKER_{key.upper()}": value for key, value in settings.items()}
        at = ("--listen", self.daemons.at(name, 4430))
        self.trackers[name] = self.daemons.start(name, name, "tracker", *at, **named)

    def start_edge(self, name: str, tracker: str) -> None:
        """An edge of this tracker."""
        at = ("--listen", self.daemons.at(name, 4431))
        self.daemons.start(name, name, "edge", *at, "--tracker", self.trackers[tracker])

    def start_peer(self, name: str, *trackers: str) -> None:
        """A peer of these trackers."""
        known = ",".join(self.trackers[tracker] for tracker in trackers)
        at = ("--listen", self.daemons.at(name, 4432), "--tracker", known, "--uplink", "20 Mbit/s")
        self.daemons.start(name, name, "peer", *at)

    def watch(self, name: str, title: str) -> subprocess.Popen[str]:
        """Somebody watches at a peer that runs."""
        command = [*PENSTOCK, "play", title, "--headless", "--json"]
        return self.lab.popen(
            name, command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )

    def until(self, host: str, path: str, condition: str, seconds: float) -> subprocess.Popen[str]:
        """Looks at a door of this host until what it tells meets the condition."""
        port = 8430 if host in self.trackers else 8480
        url = f"http://127.0.0.1:{port}{path}"
        command = [sys.executable, "-S", "-c", UNTIL, url, condition, str(seconds)]
        return self.lab.popen(host, command, stdout=subprocess.PIPE, text=True)

    def tell(self, host: str, path: str) -> Any:
        """What a door of this host tells."""
        return met(self.until(host, path, "True", 5.0), f"{host}{path}")[1]

    def kill(self, name: str) -> float:
        """Ends a tracker as a crash would; when."""
        self.daemons.running[name].kill()
        return time.monotonic()


def met(looking: subprocess.Popen[str], what: str) -> tuple[float, Any]:
    """When a condition was met, and what was told then. Raises LabError if it was not."""
    said, _ = looking.communicate(timeout=60)
    if not said:
        raise LabError(f"{what} was not seen in time")
    at, told = json.loads(said)
    return at, told


def run(report: Report, *, is_quick: bool) -> None:
    """See above."""
    lines = [
        Line("centre", up_rate=FAST, down_rate=FAST, hosts=("central",)),
        Line("north", up_rate=FAST, down_rate=FAST, delay_seconds=0.02, hosts=("northern", "nedge")),
        Line("south", up_rate=FAST, down_rate=FAST, delay_seconds=0.02, hosts=("southern", "sedge")),
        *(Line(name, HOUSE.up_rate, HOUSE.down_rate, HOUSE.delay_seconds) for name in (*VIEWERS, LATE, "n1")),
    ]
    seconds = QUICK_SECONDS if is_quick else FILM_SECONDS
    with tempfile.TemporaryDirectory(prefix="penstock-lab-") as folder, open_lab(*lines, seed=7) as lab:
        stage = Stage(lab, Daemons(lab, Path(folder)))
        title_id = set_up(stage, seconds)
        _play(stage, title_id, report)


def set_up(stage: Stage, seconds: int) -> str:
    """Starts trackers, edges and peers; the id of the north's film."""
    daemons = stage.daemons
    film, pieces = make_film(daemons.folder / "nedge", seconds // SEGMENT_SECONDS * SEGMENT_BYTES)
    daemons.stock(film, pieces, "nedge")
    daemons.catalogue(film, tracker="northern")
    ids = [_id_of(stage, name) for name in ("northern", "southern")]
    stage.start_tracker("central", tier="central", regionals=",".join(ids))
    for name in ("northern", "southern"):
        stage.start_tracker(
            name, tier="regional", region=name, central=stage.trackers["central"], open_to_edges="true"
        )
    stage.start_edge("nedge", "northern")
    stage.start_edge("sedge", "southern")
    for name in VIEWERS:
        stage.start_peer(name, "southern")
    stage.start_peer("n1", "northern")
    known = "any(one['swarms'] and one['edges'] for one in told['fellows'])"
    met(stage.until("central", "/api/v1/tiers", known, HEAR_SECONDS), "the north's film at the central tier")
    return film.title_id.hex()


def _id_of(stage: Stage, name: str) -> str:
    data = str(stage.daemons.folder / name)
    return parse_address(stage.daemons.command(name, "tracker", "--data", data, "--print-address")).node.hex()


def _play(stage: Stage, title_id: str, report: Report) -> None:
    title = {name: f"{stage.trackers[name]}/{title_id}" for name in ("northern", "southern")}
    watching = {"n1": stage.watch("n1", title["northern"])}
    for name in VIEWERS:
        watching[name] = stage.watch(name, title["southern"])
        time.sleep(GAP_SECONDS)
    redirects = stage.tell("southern", "/api/v1/redirects")["redirects"]
    report.figure("two_regions_secondary_redirects", sum(bool(one["abroad"]) for one in redirects))

    killed_at = stage.kill("central")
    at, _ = met(stage.until("southern", "/api/v1/overview", "told['alone']", HEAR_SECONDS), "a region alone")
    report.figure("two_regions_alone_seconds", round(at - killed_at, 2))
    time.sleep(GAP_SECONDS)

    north = stage.trackers["northern"]
    moved = f"told['tracker_up'] and told['tracker_used'] == '{north}'"
    looking = {name: stage.until(name, "/api/v1/statistics", moved, HEAR_SECONDS) for name in VIEWERS}
    time.sleep(0.5)
    killed_at = stage.kill("southern")
    found = {name: met(each, f"{name} at the other tracker")[0] - killed_at for name, each in looking.items()}
    report.figure("two_regions_found_seconds", round(max(found.values()), 2))
    stage.start_peer(LATE, "southern", "northern")
    watching[LATE] = stage.watch(LATE, title["southern"])
    _judge(stage, watching, found, report)


def _judge(
    stage: Stage, watching: dict[str, subprocess.Popen[str]], found: dict[str, float], report: Report
) -> None:
    seen = {name: _seen(name, each) for name, each in watching.items()}
    took = {name: stage.tell(name, "/api/v1/statistics") for name in watching}
    report.table(
        "Viewers of a film of the north; s are of the south, whose tracker was killed",
        ("viewer", "start-up, s", "stalls", "from edges, MB", "from peers, MB", "moved after, s"),
        [
            (
                name, f"{one['startup_seconds']:.2f}", str(one["stalls"]),
                f"{took[name]['edge_bytes'] / 1e6:.1f}", f"{took[name]['peer_bytes'] / 1e6:.1f}",
                f"{found[name]:.2f}" if name in found else "-",
            )
            for name, one in seen.items()
        ],
    )  # fmt: skip
    later = [took[name] for name in (*VIEWERS[1:], LATE)]
    peers, edges = (sum(one[key] for one in later) for key in ("peer_bytes", "edge_bytes"))
    report.figure("two_regions_stalls", sum(one["stalls"] for one in seen.values()))
    report.figure("two_regions_verified", sum(one["verified"] for one in seen.values()))
    report.figure("two_regions_offload", round(peers / (peers + edges), 3))
    report.figure("two_regions_late_startup_seconds", seen[LATE]["startup_seconds"])


def _seen(name: str, playing: subprocess.Popen[str]) -> dict[str, Any]:
    said, complaint = playing.communicate(timeout=180)
    if playing.returncode:
        raise LabError(f"{name} could not watch: {complaint.strip()[-300:]}")
    seen: dict[str, Any] = json.loads(said.splitlines()[-1])
    return seen
