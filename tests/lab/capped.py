"""A home whose peer is asked for all it may give, and what was counted at its modem.

A tracker and an edge stand on a fast line; the peer `pc` shares its line with `tv`, and holds a
film from the start; leechers are elsewhere. They are full peers (one a line), or many light
ones in one process (`tests.lab.leecher`), which ask the same without hashing or a disk.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.daemons import PENSTOCK, ROOT, Daemons, end, environment, first_line, make_film
from tests.lab.lab import Lab, open_lab
from tests.lab.line import LabError, Line, mbit
from tests.lab.samples import Recording, Sample, between, in_ip_bytes
from tests.lab.windows import Shares, shares

FILM_BYTES = 24 << 20
SAMPLE_SECONDS = 0.002
SETTLE_SECONDS = 4.0  # from the first leecher's joining on: slow start, requests, tickets
JOIN_SECONDS = 60.0
CORE = Line("core", up_rate=mbit(1000), down_rate=mbit(1000))
NARROW = mbit(1)  # the core's uplink, where leechers could be served by the edge instead
CROWD = Line("crowd", up_rate=mbit(1000), down_rate=mbit(1000))


@dataclass(frozen=True, slots=True)
class Home:
    """The line of the peer that uploads; rates are megabits per second."""

    uplink: float
    said: float | str = ""  # what its user configured: another rate, or a word; by default the truth
    delay_seconds: float = 0.015
    loss: float = 0.0
    ipv6: bool = False

    def setting(self) -> str:
        """The setting `uplink` of its peer."""
        said = self.said or self.uplink
        return said if isinstance(said, str) else f"{said:g} Mbit/s"

    def lines(self) -> tuple[Line, ...]:
        """Of the laboratory, but for the leechers'."""
        up_rate = mbit(self.uplink)
        down_rate = max(mbit(50), up_rate)
        home = Line(
            "home", up_rate, down_rate, self.delay_seconds,
            queue_seconds=0.2, up_loss=self.loss, hosts=("pc", "tv"),
        )  # fmt: skip
        return CORE, home


@dataclass(slots=True)
class Scene:
    """Everything in place; the peer is there, nobody asks it yet."""

    lab: Lab
    daemons: Daemons
    infohash: str
    titles: dict[str, str]  # their addresses, by name
    recording: Recording | None = None

    def light_leechers(self, host: str, count: int, *churn: float) -> subprocess.Popen[str]:
        """Starts them, and waits until all have joined; churn is seconds of staying and of being away."""
        address = self.lab.address6(host) if self.daemons.ipv6 else self.lab.address(host)
        arguments = (self.daemons.tracker, self.infohash, address, str(count), *map(str, churn))
        process = self.lab.popen(
            host,
            [sys.executable, "-m", "tests.lab.leecher", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
        )  # fmt: skip
        if not first_line(process, JOIN_SECONDS):
            end(process)
            raise LabError(f"{count} leechers did not join within {JOIN_SECONDS:g} seconds")
        return process

    def full_leechers(self, hosts: Sequence[str]) -> list[subprocess.Popen[str]]:
        """Peers that only download and want the whole film, as the edge's line is too narrow for it.

        What they fetch with is returned.
        """
        self.lab.set_line("core", up_rate=NARROW)
        for host in hosts:
            self.daemons.start_peer(host, "--mode", "direct")
        return [self._fetch(host) for host in hosts]

    def _fetch(self, host: str) -> subprocess.Popen[str]:
        folder = self.daemons.folder
        # A fetch gives up when its first byte takes half a minute, as on a line that many share it may.
        fetch = (
            "fetch",
            self.titles["film"],
            "--output",
            str(folder / f"{host}.film"),
            "--data",
            str(folder / host),
        )
        with (folder / f"{host}.fetch.log").open("ab") as errors:
            return self.lab.popen(
                host,
                ["sh", "-c", f"until {shlex.join([*PENSTOCK, *fetch])}; do sleep 1; done"],
                stdout=subprocess.DEVNULL, stderr=errors, text=True, env=environment(),
            )  # fmt: skip

    def rest(self, seconds: float) -> None:
        """The length of a measurement; raises LabError if a daemon ended meanwhile."""
        time.sleep(seconds)
        for name, daemon in self.daemons.running.items():
            if daemon.poll() is not None:
                log = (self.daemons.folder / f"{name}.log").read_text(errors="replace").strip()
                raise LabError(f"{name} ended: {log[-500:]}")

    def sent(self, host: str = "pc") -> tuple[Sample, ...]:
        """What a host sent so far, in IP bytes, at the modem's port."""
        return in_ip_bytes(self._recorded().host(host).up)

    def received(self, host: str) -> tuple[Sample, ...]:
        """What a host was sent so far, in IP bytes, behind its modem."""
        return in_ip_bytes(self._recorded().host(host).down)

    def _recorded(self) -> Recording:
        assert self.recording is not None, "open_scene records"
        self.recording.refresh()
        return self.recording


@contextmanager
def open_scene(
    home: Home, *leecher_lines: Line, seed: int = 1, film_for_edge: int = 0, **settings: str
) -> Iterator[Scene]:
    """The home with its peer, and what it needs; recording begins before the peer does.

    With `film_for_edge` the edge has another film of so many bytes, `other`.
    """
    with (
        tempfile.TemporaryDirectory(prefix="penstock-lab-") as folder,
        open_lab(*home.lines(), *leecher_lines, seed=seed) as lab,
        lab.record(SAMPLE_SECONDS) as recording,
    ):
        daemons = Daemons(lab, Path(folder), ipv6=home.ipv6)
        scene = stocked(daemons, home.setting(), FILM_BYTES, film_for_edge, **settings)
        scene.recording = recording
        yield scene


def stocked(daemons: Daemons, uplink: str, film_bytes: int, film_for_edge: int = 0, **settings: str) -> Scene:
    """Starts a tracker, an edge and the peer `pc`, which holds a film; `uplink` is its setting."""
    film, pieces = make_film(daemons.folder / "edge", film_bytes)
    daemons.stock(film, pieces, "edge", "pc")
    films = {"film": film}
    if film_for_edge:
        films["other"], pieces = make_film(daemons.folder / "edge", film_for_edge, "other")
        daemons.stock(films["other"], pieces, "edge")
    daemons.catalogue(*films.values())
    daemons.start_core("core")
    daemons.start_peer("pc", "--uplink", uplink, **settings)
    titles = {name: f"{daemons.tracker}/{each.title_id.hex()}" for name, each in films.items()}
    return Scene(daemons.lab, daemons, film.infohash.hex(), titles)


@dataclass(frozen=True, slots=True)
class Run:
    """What a peer sent: from before its start, and from when all leechers were served."""

    whole: tuple[Sample, ...]
    steady: tuple[Sample, ...]

    def shares(self, line_rate: float) -> Shares:
        """The worst windows of all the time, the mean of the steady part."""
        return Shares(shares(self.whole, line_rate).worst, shares(self.steady, line_rate).mean)


def run_light(home: Home, leechers: int, seconds: float, churn: tuple[float, ...] = ()) -> Run:
    """Light leechers ask for so many seconds."""
    with open_scene(home, CROWD) as scene:
        scene.light_leechers("crowd", leechers, *churn)
        return _steady(scene, seconds)


def run_full(home: Home, leechers: int, seconds: float) -> Run:
    """Full peers, each behind a line of its own, ask for so many seconds."""
    names = [f"far{number}" for number in range(leechers)]
    with open_scene(home, *(Line(name, mbit(10), mbit(50)) for name in names)) as scene:
        scene.full_leechers(names)
        return _steady(scene, seconds)


def _steady(scene: Scene, seconds: float) -> Run:
    scene.rest(SETTLE_SECONDS)
    begin_at = time.monotonic()
    scene.rest(seconds)
    sent = scene.sent()
    return Run(sent, between(sent, begin_at, time.monotonic()))
