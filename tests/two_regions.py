"""Two regions and a central tracker as real processes on loopback; one edge, at the north."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from peer.demo.house import PENSTOCK, House, environment
from shared.core.ids import Address, parse_address

HERE = "127.0.0.1:0"


@dataclass(slots=True)
class TwoRegions(House):
    """Trackers by name: central, north, south."""

    trackers: dict[str, Address] = field(default_factory=dict)
    apis: dict[str, str] = field(default_factory=dict)

    async def begin(self) -> None:
        """Starts the trackers, and the north's edge."""
        regionals = [await self._id_of(name) for name in ("north", "south")]
        await self.start_tracker_of("central", tier='"central"', regionals=str(regionals).replace("'", '"'))
        for name in ("north", "south"):
            more = {"edges": f'["{await self._edge_id()}"]'} if name == "north" else {}
            await self.start_tracker_of(
                name, tier='"regional"', region=f'"{name}"', central=f'"{self.trackers["central"]}"',
                report_seconds=1, **more,
            )  # fmt: skip
        self.tracker, self.api = self.trackers["north"], self.apis["north"]
        await self.start_edge()

    async def start_tracker_of(self, name: str, **settings: object) -> None:
        """One tracker with these settings, as they stand in a file."""
        config = self.folder / f"{name}.toml"
        lines = [f"{key} = {value}" for key, value in settings.items()]
        config.write_text("[tracker]\n" + "\n".join(lines) + "\n")
        running = await self._start(
            name, "tracker", "--config", str(config), "--listen", HERE, "--api", HERE,
            "--data", str(self.folder / name),
        )  # fmt: skip
        self.trackers[name], self.apis[name] = parse_address(running.ready[2]), running.ready[4]

    async def _id_of(self, name: str) -> str:
        command = [*PENSTOCK, "tracker", "--data", str(self.folder / name), "--print-address"]
        done = await trio.run_process(command, capture_stdout=True, env=environment())
        return parse_address(done.stdout.decode()).node.hex()

    async def start_viewer(self, name: str, *trackers: str) -> str:
        """A peer of these trackers; the URL of its door."""
        addresses = ",".join(str(self.trackers[tracker]) for tracker in trackers)
        running = await self._start(
            name, "peer", "--tracker", addresses, "--uplink", "20 Mbit/s", "--listen", HERE,
            "--player", HERE, "--data", str(self.folder / name),
        )  # fmt: skip
        self.doors[name] = running.ready[4]
        return running.ready[4]


@asynccontextmanager
async def open_regions(folder: Path) -> AsyncIterator[TwoRegions]:
    """Running; everything is ended when the context is left."""
    house = TwoRegions(folder)
    try:
        await house.begin()
        yield house
    finally:
        with trio.CancelScope(shield=True):
            await house.stop()
