"""The DBS: one SQLite file, written by one thread at a time. Its SQL is in `tracker.dbs`.

What is acknowledged to anybody is committed with a full sync before the call returns: a title, a
group, a plan survive kill -9 and a power cut. Nodes and placement are a record for operators and
may lag a few seconds, and so does usage (`tracker.dbs.usage` says what that costs).
Swarms are not here: they are announced again within one interval.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import trio

from shared.core import codec
from shared.core.errors import LocalError, StoreError
from shared.core.messages import Entry
from tracker.core.nodes import Node
from tracker.dbs import schema, titles

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

READ_SECONDS = 5.0  # the longest a question may take
STEPS_BETWEEN_LOOKS = 100_000  # of SQLite's machine, until it looks at the clock again


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Rows in the database, and its size on disk without the write-ahead log."""

    titles: int
    nodes: int
    file_bytes: int


class Store:
    """An open database; use `open_store`. Writers queue up in one thread, readers in another."""

    def __init__(self, path: Path, writing: sqlite3.Connection, reading: sqlite3.Connection) -> None:
        self._path = path
        self._database, self._turn = writing, trio.CapacityLimiter(1)
        self._reader, self._readers_turn = reading, trio.CapacityLimiter(1)

    async def entries(self) -> list[Entry]:
        """Every title, oldest first. Raises StoreError if one of them is damaged."""
        entries = await self.write(titles.read_entries)
        try:
            for entry in entries:
                codec.to_wire(entry)  # an edited row is found now, not when a viewer asks for it
        except LocalError as error:
            raise StoreError(
                f"{self._path}: holds a title that cannot be used: {error}; restore a backup"
            ) from None
        return entries

    async def store_title(self, entry: Entry) -> None:
        """Adds or replaces a title; when this returns, it is on the disk.

        Raises Refused if the title or a rendition belongs to somebody else, StoreFull if the
        disk is full, StoreError if it fails otherwise; then nothing has changed.
        """
        await self.write(titles.write_title, entry)

    async def store_nodes(self, nodes: Sequence[Node]) -> None:
        """Remembers that these nodes were here, in one transaction. Raises StoreError."""
        await self.write(titles.write_nodes, nodes)

    async def statistics(self) -> StoreStatistics:
        """Counts, for operators."""
        return await self.read(_count)

    async def write(self, work: Callable[[sqlite3.Connection, *Ts], T], *arguments: *Ts) -> T:
        """Does `work` with the database, after those who came before. Raises what it raises,
        and StoreError for SQLite's errors."""

        def in_thread() -> T:
            with schema.named_errors(self._path):
                return work(self._database, *arguments)

        # Not abandoned when cancelled: a half-known commit would be worse than a short wait.
        return await trio.to_thread.run_sync(in_thread, limiter=self._turn)

    async def read(self, work: Callable[[sqlite3.Connection, *Ts], T], *arguments: *Ts) -> T:
        """As `write`, for questions: they see what is committed, and keep no writer waiting.

        Raises StoreError after READ_SECONDS.
        """

        def in_thread() -> T:
            until = time.monotonic() + READ_SECONDS
            self._reader.set_progress_handler(lambda: time.monotonic() > until, STEPS_BETWEEN_LOOKS)
            with schema.named_errors(self._path):
                return work(self._reader, *arguments)

        return await trio.to_thread.run_sync(in_thread, limiter=self._readers_turn)


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[Store]:
    """The database at `path`, made or brought up to date if need be.

    The caller holds its folder (`shared.data_folder`). Raises LocalError naming the file and the
    cure if it is damaged, is somebody else's, is newer than this program or cannot be written.
    """
    writing, reading = await trio.to_thread.run_sync(_open, path)
    try:
        yield Store(path, writing, reading)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_close, path, reading, writing)


def _open(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    with schema.named_errors(path):
        writing = schema.connect(path)
        try:
            return writing, schema.connect_reader(path)
        except BaseException:
            writing.close()
            raise


def _close(path: Path, *databases: sqlite3.Connection) -> None:
    with schema.named_errors(path):
        for database in databases:
            database.close()


def _count(database: sqlite3.Connection) -> StoreStatistics:
    counts = "SELECT (SELECT count(*) FROM titles), (SELECT count(*) FROM nodes)"
    title_count, node_count = database.execute(counts).fetchone()
    pages, page_bytes = schema.pragma(database, "page_count"), schema.pragma(database, "page_size")
    return StoreStatistics(title_count, node_count, pages * page_bytes)
