"""`penstock publish` as a person meets it: checks, a progress bar, and the title's address."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from peer.config import PeerConfig
from peer.publish import publish, read_film
from shared import config as settings
from shared.cli import run_trio
from shared.core.errors import ConfigError
from shared.core.ids import parse_address
from shared.identity import Identity


def run(file: Path | None, title: str | None, edge: str | None, data: str | None, print_id: bool) -> None:
    """Publishes one file. Raises PenstockError."""
    chosen = settings.load(PeerConfig, "peer", None, {"data": data})
    identity = Identity.load(chosen.data / "key")
    if print_id:
        print(identity.id.hex())
        return
    if file is None or edge is None:
        missing = "FILE" if file is None else "--edge"
        raise ConfigError(f"publish: {missing} is missing; penstock publish FILE --title NAME --edge ADDRESS")
    address = parse_address(edge)
    with _bar() as bar:
        show = _Show(bar, file.name)
        film = read_film(file, title or file.stem, show)
        published = run_trio(publish, film, address, identity, show)
    print(published)


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
    )
    console = Console(file=sys.stderr)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class _Show:
    """Moves the bar; without a terminal, one line per stage on stderr."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar = bar
        self._name = name
        self._task = bar.add_task(name, total=1.0)
        self._stage = ""

    def __call__(self, stage: str, share: float) -> None:
        if stage != self._stage:
            self._stage = stage
            self._bar.reset(self._task, description=f"{self._name}: {stage}")
            if not self._bar.console.is_terminal:
                print(f"{self._name}: {stage}", file=sys.stderr, flush=True)
        self._bar.update(self._task, completed=share)
