"""`penstock demo`: makes a film, starts a house, publishes, watches, and tells how it went.

On a terminal a live table shows the swarm; elsewhere plain lines are printed, and one line of
JSON last. The exit status is 0 only if every viewer got every byte, verified.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

import trio
from rich.console import Console
from rich.live import Live
from rich.progress import Progress

from peer.demo import tables
from peer.demo.house import House, make_film, open_house
from peer.demo.viewers import Viewer, offload
from shared.cli import configure_logging, run_trio
from shared.core.errors import ConfigError, LocalError, PenstockError
from shared.core.ids import Address, TitleId

TITLE = "The demo film"
ARRIVALS = (("pc1", "pc", 0.0), ("pc2", "pc", 5.0), ("box", "stb", 10.0), ("pc3", "pc", 15.0))
UPLINK = "20 Mbit/s"
LOOK_SECONDS = 1.0
PLAIN_EVERY = 5  # looks between two plain lines


def run_demo(*, keep: bool, seconds: int, work: Path | None) -> None:
    """Runs the demo; leaves with status 1 if a viewer missed a byte. Raises PenstockError."""
    if not 20 <= seconds <= 600:
        raise ConfigError("--seconds: expected a film of 20 to 600 seconds")
    configure_logging("error")
    with ExitStack() as stack:
        if work is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-demo-")))
        try:
            work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LocalError(f"--work: {work} cannot be used: {error.strerror}; name a folder") from None
        whole = run_trio(_Demo(Console(), work).run, seconds, keep)
    if not whole:
        raise SystemExit(1)


class _Demo:
    def __init__(self, console: Console, work: Path) -> None:
        self._console = console
        self._work = work
        self._live = console.is_terminal
        self._names: dict[str, str] = {}
        self._viewers: list[Viewer] = []

    async def run(self, seconds: int, keep: bool) -> bool:
        """Whether every viewer got every byte."""
        film = self._work / "demo.mp4"
        await self._make_film(film, seconds)
        async with open_house(self._work) as house:
            title = await self._open(house, film)
            assert title.title is not None
            await self._watch_all(title.title)
            self._tell()
            if keep:
                self._tell_doors(house, title)
                await trio.sleep_forever()
        return all(viewer.result()["verified"] for viewer in self._viewers)

    async def _make_film(self, film: Path, seconds: int) -> None:
        self._say(f"making a film of {seconds} s: 1280x720, H.264 and AAC")
        with Progress(console=self._console, transient=True, disable=not self._live) as bar:
            task = bar.add_task("film", total=1.0)
            await make_film(film, seconds, lambda share: bar.update(task, completed=share))

    async def _open(self, house: House, film: Path) -> Address:
        self._say(f"starting a tracker, an edge, three PCs and a set-top box in {self._work}")
        await house.start_tracker(report_seconds=1)
        await house.start_edge()
        assert house.edge is not None
        self._names[house.edge.node.hex()] = "edge"
        async with trio.open_nursery() as nursery:
            for name, kind, after in ARRIVALS:
                nursery.start_soon(self._start_peer, house, name, kind, after)
        self._viewers.sort(key=lambda viewer: viewer.arrives_after_seconds)
        self._say("publishing: upload, probe, cut, hash, sign, register")
        title = await house.publish(film, TITLE)
        self._say(f"published as {title}")
        self._say(f"operator's view, in another terminal: penstock top --api {house.api}")
        return title

    async def _start_peer(self, house: House, name: str, kind: str, after: float) -> None:
        door = await house.start_peer(name, kind, UPLINK)
        viewer = Viewer(name, kind, door, after)
        await viewer.ask(TitleId(bytes(16)))
        self._names[str(viewer.peer.get("node", ""))] = name
        self._viewers.append(viewer)

    # -- watching -------------------------------------------------------------------------------

    async def _watch_all(self, title: TitleId) -> None:
        self._say("four viewers arrive, five seconds apart, and watch at normal speed")
        with ExitStack() as stack:
            live = Live(console=self._console, auto_refresh=False, transient=True) if self._live else None
            if live is not None:
                stack.enter_context(live)
            async with trio.open_nursery() as screen:
                screen.start_soon(self._look, title, live)
                async with trio.open_nursery() as audience:
                    for viewer in self._viewers:
                        audience.start_soon(self._watch, viewer, title)
                screen.cancel_scope.cancel()
        for viewer in self._viewers:
            await viewer.ask(title)

    async def _watch(self, viewer: Viewer, title: TitleId) -> None:
        try:
            await viewer.watch(title)
        except PenstockError as error:
            viewer.failure = str(error)

    async def _look(self, title: TitleId, live: Live | None) -> None:
        looks = 0
        while True:
            for viewer in self._viewers:
                await viewer.ask(title)
            if live is not None:
                share, columns = offload(self._viewers), self._console.width
                live.update(tables.swarm(self._viewers, share, self._names, columns), refresh=True)
            elif looks % PLAIN_EVERY == 0:
                self._say(self._line())
            looks += 1
            await trio.sleep(LOOK_SECONDS)

    def _line(self) -> str:
        parts = []
        for viewer in self._viewers:
            shown = viewer.experience.shown_seconds if viewer.experience else 0.0
            parts.append(f"{viewer.name} {shown:.0f} s, holds {viewer.held_share:.0%}")
        return f"{'; '.join(parts)}; offload {offload(self._viewers):.0%}"

    # -- telling --------------------------------------------------------------------------------

    def _tell(self) -> None:
        share = offload(self._viewers)
        results = [viewer.result() for viewer in self._viewers]
        for viewer in self._viewers:
            if viewer.failure:
                self._say(f"{viewer.name}: {viewer.failure}")
        if self._live:
            self._console.print(tables.results(results, share))
        else:
            whole = all(result["verified"] for result in results)
            self._say(json.dumps({"ok": whole, "offload": round(share, 3), "viewers": results}))

    def _tell_doors(self, house: House, title: Address) -> None:
        assert title.title is not None
        self._say(f"\nthe title: {title}\noperator's view: penstock top --api {house.api}")
        for viewer in self._viewers:
            self._say(f"{viewer.name}: browser {viewer.door}/watch/{title.title.hex()}")
            self._say(f"{viewer.name}: mpv {viewer.door}/titles/{title.title.hex()}/master.m3u8")
        self._say("everything runs on; Ctrl-C ends it")

    def _say(self, text: str) -> None:
        if self._live:  # not wrapped by us, so that an address can be copied whole
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)
