"""The processes of a house on loopback: tracker, edge, peers. Each is the real `penstock` command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from shared.core.errors import LocalError
from shared.core.ids import Address, parse_address

START_SECONDS = 60.0  # eight interpreters start at once on a small machine
STOP_SECONDS = 5.0
PENSTOCK = (sys.executable, "-c", "import sys; from shared.cli import main; sys.exit(main())")


@dataclass(slots=True)
class Running:
    """A process, the line it said when it was ready, and where it logs."""

    name: str
    process: trio.Process
    ready: list[str]
    log: Path


@dataclass(slots=True)
class House:
    """Made by `open_house`."""

    folder: Path
    tracker: Address | None = None
    api: str = ""
    edge: Address | None = None
    doors: dict[str, str] = field(default_factory=dict)  # of peers, by name
    processes: dict[str, Running] = field(default_factory=dict)

    async def start_tracker(
        self, listen: str = "127.0.0.1:0", api: str = "127.0.0.1:0", **settings: object
    ) -> None:
        """A tracker at which this house's edge may publish."""
        edge_id = await self._edge_id()
        config = self.folder / "tracker.toml"
        lines = [f'edges = ["{edge_id}"]', *(f"{key} = {value}" for key, value in settings.items())]
        config.write_text("[tracker]\n" + "\n".join(lines) + "\n")
        running = await self._start(
            "tracker", "tracker", "--config", str(config), "--listen", listen, "--api", api,
            "--data", str(self.folder / "tracker"),
        )  # fmt: skip
        self.tracker, self.api = parse_address(running.ready[2]), running.ready[4]

    async def _edge_id(self) -> str:
        command = [*PENSTOCK, "edge", "--data", str(self.folder / "edge"), "--print-id"]
        done = await trio.run_process(command, capture_stdout=True, env=environment())
        return done.stdout.decode().strip()

    async def start_edge(self, listen: str = "127.0.0.1:0") -> None:
        """The edge."""
        running = await self._start(
            "edge", "edge", "--tracker", str(self.tracker), "--listen", listen,
            "--data", str(self.folder / "edge"),
        )  # fmt: skip
        self.edge = parse_address(running.ready[2])

    async def start_peer(
        self, name: str, kind: str = "pc", uplink: str = "20 Mbit/s", mode: str = "shared"
    ) -> str:
        """A peer, or the one of that name again; the http URL of its door."""
        running = await self._start(
            name, "peer", "--tracker", str(self.tracker), "--kind", kind, "--mode", mode, "--uplink", uplink,
            "--listen", "127.0.0.1:0", "--player", "127.0.0.1:0", "--data", str(self.folder / name),
        )  # fmt: skip
        self.doors[name] = running.ready[4]
        return running.ready[4]

    async def publish(self, film: Path, title: str) -> Address:
        """The address of the published title. Raises LocalError with what the command said."""
        command = [*PENSTOCK, "publish", str(film), "--title", title, "--edge", str(self.edge)]
        command += ["--data", str(self.folder / "publisher")]
        done = await trio.run_process(
            command, capture_stdout=True, capture_stderr=True, check=False, env=environment()
        )
        if done.returncode:
            raise LocalError(f"publishing failed: {_last_line(done.stderr)}")
        return parse_address(done.stdout.decode().strip())

    async def _start(self, name: str, *arguments: str) -> Running:
        log = self.folder / f"{name}.log"
        with log.open("ab") as errors:
            process = await trio.lowlevel.open_process(
                [*PENSTOCK, *arguments], stdout=subprocess.PIPE, stderr=errors, env=environment()
            )
        running = Running(name, process, [], log)
        self.processes[name] = running
        with trio.move_on_after(START_SECONDS):
            running.ready = await _first_line(process)
        if not running.ready:
            raise LocalError(f"{name} did not start: {_last_line(log.read_bytes())}")
        return running

    async def kill(self, name: str) -> None:
        """Ends a process as a power cut would: nothing is said, nothing is flushed."""
        process = self.processes[name].process
        process.kill()
        await process.wait()

    async def stop(self) -> None:
        """Ends everything that still runs."""
        for running in self.processes.values():
            if running.process.returncode is None:
                running.process.terminate()
        with trio.move_on_after(STOP_SECONDS):
            for running in self.processes.values():
                await running.process.wait()
        for running in self.processes.values():
            if running.process.returncode is None:
                running.process.kill()
                await running.process.wait()


async def _first_line(process: trio.Process) -> list[str]:
    assert process.stdout is not None
    said = b""
    while not said.endswith(b"\n"):
        part = await process.stdout.receive_some(1024)
        if not part:
            return []
        said += part
    return said.decode().split()


def _last_line(said: bytes) -> str:
    """The error among what a process said, without the command's own prefix."""
    lines = said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return lines[-1].removeprefix("penstock: error: ")[:300]


def environment() -> dict[str, str]:
    """Ours, without settings of the person who runs the demo."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[House]:
    """An empty house in a folder; whatever was started in it is ended when the context is left."""
    house = House(folder)
    try:
        yield house
    finally:
        with trio.CancelScope(shield=True):
            await house.stop()


async def make_film(
    path: Path, seconds: int, progress: Callable[[float], object], width: int = 1280, height: int = 720
) -> None:
    """A film with moving picture and sound, made in a child. Raises LocalError."""
    command = [sys.executable, "-P", "-m", "edge.media", "clip", str(path), "--seconds", str(seconds)]
    command += ["--width", str(width), "--height", str(height)]
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        async for part in process.stdout:
            progress(_share(part))
        error = (await process.stderr.receive_some(2000)) or b""
        if await process.wait():
            raise LocalError(f"the film could not be made: {error.decode(errors='replace').strip()}")
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def _share(said: bytes | bytearray) -> float:
    percents = re.findall(rb"([0-9]{1,3}) %", said)
    return int(percents[-1]) / 100 if percents else 0.0
