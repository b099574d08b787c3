"""The log of redirects: one line of JSON each, in a file that is begun anew when it is long."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
import trio

from shared.core.errors import LocalError
from tracker.core.answers import Answer, Trace

log = logging.getLogger("penstock.tracker")

WAITING = 10_000  # answers between two writes; a disk that is slower loses lines, never viewers
WRITE_EVERY_SECONDS = 0.5
MAX_FILE_BYTES = 64 << 20  # then it is renamed to NAME.1, instead of the one before
MAX_LINE_BYTES = 1 << 20


class RedirectLog:
    """Lines for a file, written by `run`."""

    def __init__(self, path: Path) -> None:
        """Raises LocalError if the file cannot be written."""
        self._path = path
        self._waiting: deque[Answer] = deque()
        self._lost = 0
        self._write(b"")

    def add(self, answer: Answer) -> None:
        """Takes an answer; never waits."""
        if len(self._waiting) < WAITING:
            self._waiting.append(answer)
        else:
            self._lost += 1

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await trio.sleep(WRITE_EVERY_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Writes what waits."""
        batch, self._waiting = self._waiting, deque()
        if self._lost:
            log.warning("%d redirects are not in %s: too many at once", self._lost, self._path)
            self._lost = 0
        if not batch:
            return
        lines = b"".join(msgspec.json.encode(answer.trace()) + b"\n" for answer in batch)
        try:
            await trio.to_thread.run_sync(self._write, lines)
        except LocalError as error:
            log.warning("%d redirects are not logged: %s", len(batch), error)

    def _write(self, lines: bytes) -> None:
        try:
            if self._path.exists() and self._path.stat().st_size + len(lines) > MAX_FILE_BYTES:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            with self._path.open("ab") as file:
                file.write(lines)
        except OSError as error:
            raise LocalError(
                f"tracker.redirect_log: {self._path} cannot be written: {error.strerror}"
            ) from None


def read(path: Path) -> Iterator[Trace]:
    """The redirects of a log, first to last. Raises LocalError that names the line."""
    decoder = msgspec.json.Decoder(Trace)
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                yield _parsed(decoder, line, f"{path}: line {number}")
    except OSError as error:
        raise LocalError(f"{path}: cannot be read: {error.strerror}; give the log of a tracker") from None


def _parsed(decoder: msgspec.json.Decoder[Trace], line: bytes, where: str) -> Trace:
    try:
        trace = decoder.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise LocalError(f"{where} is not a redirect: {error}") from None
    if not 1 <= trace.connections <= 32 or any(not 0 <= peer.spare <= 7 for peer in trace.peers):
        raise LocalError(f"{where} is not a redirect: a number is out of range")
    if any(edge.capacity_rate <= 0 for edge in trace.edges) or not all(0 <= roll < 1 for roll in trace.dice):
        raise LocalError(f"{where} is not a redirect: a number is out of range")
    return trace
