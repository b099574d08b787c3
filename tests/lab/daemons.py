"""Penstock's own daemons inside a laboratory: a tracker, an edge and peers, as users start them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import trio

from shared.core import manifest, merkle
from shared.core.entries import entry_of
from shared.core.ids import TitleId
from shared.core.manifest import Manifest
from shared.core.segments import Media, lay_out
from shared.core.shape import PIECE_BYTES
from shared.identity import Identity
from shared.piece_store import PieceStore
from tests.lab.lab import Lab
from tests.lab.line import LabError
from tracker.store import open_store

ROOT = Path(__file__).parents[2]
PENSTOCK = (sys.executable, "-c", "import sys; from shared.cli import main; sys.exit(main())")
START_SECONDS = 60.0
STORE_BYTES = 10**9
INIT_BYTES, SEGMENT_BYTES, SEGMENT_MS = 1000, 2_000_000, 4000


@dataclass(slots=True)
class Daemons:
    """What runs in one laboratory; their folders are below `folder`. They end with the laboratory."""

    lab: Lab
    folder: Path
    ipv6: bool = False
    tracker: str = ""  # address strings
    edge: str = ""
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def at(self, host: str, port: int) -> str:
        """host:port to listen at, of the IP version that this laboratory uses."""
        return f"[{self.lab.address6(host)}]:{port}" if self.ipv6 else f"{self.lab.address(host)}:{port}"

    def stock(self, film: Manifest, pieces: Sequence[bytes], *names: str) -> None:
        """Puts a film into the stores of daemons that have not started yet."""
        for name in names:
            store = PieceStore(self.folder / name / "pieces", STORE_BYTES)
            store.add_manifest(film)
            for index, piece in enumerate(pieces):
                store.put(film.infohash, index, piece)

    def catalogue(self, *films: Manifest, tracker: str = "tracker") -> None:
        """Puts films into the catalogue of a tracker, which has not started yet."""

        async def store_title() -> None:
            folder = self.folder / tracker
            folder.mkdir(exist_ok=True)
            async with open_store(folder / "tracker.db") as store:
                for film in films:
                    await store.store_title(entry_of(film))

        trio.run(store_title)

    def start_core(self, host: str, tracker_host: str = "") -> None:
        """A tracker and an edge, on one host if no other is named for the tracker."""
        at = tracker_host or host
        self.tracker = self.start(
            at, "tracker", "tracker", "--listen", self.at(at, 4430), PENSTOCK_TRACKER_OPEN_TO_EDGES="true"
        )
        self.edge = self.start(
            host, "edge", "edge", "--listen", self.at(host, 4431), "--tracker", self.tracker
        )

    def start_peer(self, host: str, *flags: str, name: str = "", **settings: str) -> str:
        """A peer; its address string. `settings` are environment variables."""
        at = ("--listen", self.at(host, 4432), "--tracker", self.tracker)
        return self.start(host, name or host, "peer", *at, *flags, **settings)

    def start(self, host: str, name: str, role: str, *flags: str, **settings: str) -> str:
        """A daemon; its address string, once it is ready. Raises LabError with its last words."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as errors:
            daemon = self.lab.popen(
                host,
                [*PENSTOCK, role, "--data", str(self.folder / name), *flags],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment() | settings,
            )
        self.running[name] = daemon
        said = first_line(daemon, START_SECONDS)
        if not said:
            raise LabError(f"{name} did not start: {log.read_text(errors='replace').strip()[-500:]}")
        return next(word for word in said.split() if word.startswith("penstock://"))

    def command(self, host: str, *arguments: str, timeout: float = 60.0, check: bool = True) -> str:
        """What a `penstock` command prints, run on a host. Raises LabError."""
        done = self.lab.run(host, [*PENSTOCK, *arguments], timeout, check, env=environment())
        return done.stdout


def first_line(process: subprocess.Popen[str], seconds: float) -> str:
    """What a process says first; empty if it ends, or says nothing for so long."""
    assert process.stdout
    give_up_at = time.monotonic() + seconds
    while not select.select([process.stdout], [], [], 0.05)[0]:
        if time.monotonic() > give_up_at:
            return ""
    return process.stdout.readline()


def end(process: subprocess.Popen[str], seconds: float = 5.0) -> None:
    """Asks a process to end, and makes it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return
    process.kill()
    process.wait()


def environment() -> dict[str, str]:
    """Ours, without settings of the person who runs the laboratory."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}


def make_film(edge_folder: Path, length: int, name: str = "film") -> tuple[Manifest, list[bytes]]:
    """Random bytes, in segments as a film's, that this edge has published; and its pieces."""
    segments = lay_out(INIT_BYTES, [(SEGMENT_BYTES, SEGMENT_MS)] * (length // SEGMENT_BYTES))
    length = INIT_BYTES + SEGMENT_BYTES * len(segments)
    data = Random(name).randbytes(length)
    pieces = [data[at : at + PIECE_BYTES] for at in range(0, length, PIECE_BYTES)]
    edge_folder.mkdir(parents=True, exist_ok=True)
    edge = Identity.load(edge_folder / "key")
    tree = merkle.layer_of_file(pieces, PIECE_BYTES)
    rate = 8 * SEGMENT_BYTES * 1000 // SEGMENT_MS
    media = Media(
        bandwidth=rate, average_bandwidth=rate, codecs="avc1.64001f",
        duration_ms=len(segments) * SEGMENT_MS, height=720, width=1280,
        init_bytes=INIT_BYTES, segments=segments,
    )  # fmt: skip
    draft = manifest.build(
        f"{name}.mp4", tree, title=name, title_id=TitleId(name.encode().ljust(16)), media=media
    )
    return manifest.parse(manifest.sign(draft, edge.private_key)), pieces
