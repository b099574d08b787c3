"""The region table's file: read at the start, and again when it changes or on SIGHUP."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path

import trio

from shared.core.errors import LocalError
from tracker.core import regions
from tracker.core.regions import RegionTable

log = logging.getLogger("penstock.tracker")

LOOK_EVERY_SECONDS = 2.0
MAX_FILE_BYTES = 256 << 20
Mark = tuple[int, int, int]  # of a file's state: it is another when the file is


def load(path: Path) -> RegionTable:
    """The table in a file. Raises LocalError that names the file and the line or entry."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise LocalError(f"{path}: over {MAX_FILE_BYTES} bytes; give a coarser table")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LocalError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise LocalError(f"{path}: line {line}: not UTF-8") from None
    try:
        return regions.parse(text)
    except LocalError as error:
        raise LocalError(f"{path}: {error}") from None


async def watch(path: Path, use: Callable[[RegionTable], None]) -> None:
    """Gives every new table to `use`, until cancelled; a file with an error changes nothing."""
    before = _mark(path)
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        while True:
            is_told = False
            with trio.move_on_after(LOOK_EVERY_SECONDS):
                await hangups.__anext__()
                is_told = True
            now = _mark(path)
            if is_told or now != before:
                before = now
                await _reload(path, use)


async def _reload(path: Path, use: Callable[[RegionTable], None]) -> None:
    try:
        table = await trio.to_thread.run_sync(load, path)
    except LocalError as error:
        log.error("tracker.regions: the old table stays in use: %s", error)
    else:
        use(table)
        log.info("tracker.regions: %d prefixes in %d regions", table.prefixes, len(table.regions))


def _mark(path: Path) -> Mark | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
