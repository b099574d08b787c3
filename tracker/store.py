"""The DBS: titles and nodes in one SQLite file, written by one thread at a time.

A title is committed with a full sync before `store_title` returns: what an edge was told is
published survives kill -9 and a power cut. Nodes are a record for operators and may lag.
Swarms are not here: they are announced again within one interval.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import trio

from shared.core import codec
from shared.core.errors import LocalError, Reason, Refused, StoreError, StoreFull
from shared.core.ids import InfoHash, NodeId, TitleId
from shared.core.messages import Entry, Rendition
from tracker.core.nodes import Node

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

APPLICATION_ID = 0x50454E53  # "PENS" in the file's header: whose database it is
MAX_NODES = 100_000  # rows kept, latest connected first: strangers must not fill the disk

# Each step brings a database from the version of its place to the next; never edit one that
# was released, add another. STRICT: a column holds what it says or the write fails.
STEPS = (
    """
    CREATE TABLE titles (
        number INTEGER PRIMARY KEY,
        title_id BLOB NOT NULL UNIQUE,
        title TEXT NOT NULL,
        signer BLOB NOT NULL
    ) STRICT;
    CREATE TABLE renditions (
        infohash BLOB PRIMARY KEY,
        title_id BLOB NOT NULL REFERENCES titles (title_id) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        name TEXT NOT NULL,
        length INTEGER NOT NULL,
        bandwidth INTEGER NOT NULL,
        codecs TEXT NOT NULL,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL,
        duration_ms INTEGER NOT NULL,
        UNIQUE (title_id, place)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE nodes (
        node BLOB PRIMARY KEY,
        kind TEXT NOT NULL,
        mode TEXT NOT NULL,
        region TEXT NOT NULL,
        at TEXT NOT NULL,
        software TEXT NOT NULL,
        first_connected_at REAL NOT NULL,
        last_connected_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX nodes_by_last_connected ON nodes (last_connected_at);
    """,
)


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Rows in the database, and its size on disk without the write-ahead log."""

    titles: int
    nodes: int
    file_bytes: int


class Store:
    """An open database; use `open_store`. Calls queue up behind each other in one thread."""

    def __init__(self, database: sqlite3.Connection, path: Path, turn: trio.CapacityLimiter) -> None:
        self._database = database
        self._path = path
        self._turn = turn

    async def entries(self) -> list[Entry]:
        """Every title, oldest first. Raises StoreError if one of them is damaged."""
        entries = await self._run(_read_entries)
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
        await self._run(_write_title, entry)

    async def store_nodes(self, nodes: Sequence[Node]) -> None:
        """Remembers that these nodes were here, in one transaction. Raises StoreError."""
        await self._run(_write_nodes, nodes)

    async def statistics(self) -> StoreStatistics:
        """Counts, for operators."""
        return await self._run(_count)

    async def _run(self, work: Callable[[sqlite3.Connection, *Ts], T], *arguments: *Ts) -> T:
        def in_thread() -> T:
            with _named_errors(self._path):
                return work(self._database, *arguments)

        # Not abandoned when cancelled: a half-known commit would be worse than a short wait.
        return await trio.to_thread.run_sync(in_thread, limiter=self._turn)


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[Store]:
    """The database at `path`, made or brought up to date if need be.

    The caller holds its folder (`shared.data_folder`). Raises LocalError naming the file and the
    cure if it is damaged, is somebody else's, is newer than this program or cannot be written.
    """
    turn = trio.CapacityLimiter(1)
    database = await trio.to_thread.run_sync(_open, path, limiter=turn)
    try:
        yield Store(database, path, turn)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_close, database, path, limiter=turn)


def _open(path: Path) -> sqlite3.Connection:
    with _named_errors(path):
        return _connect(path)


def _connect(path: Path) -> sqlite3.Connection:
    # isolation_level=None: transactions begin and end where `_transaction` says, not by guess.
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _check_ours(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        _upgrade(database)
    except BaseException:
        database.close()
        raise
    return database


def _check_ours(database: sqlite3.Connection, path: Path) -> None:
    application = _pragma(database, "application_id")
    version = _pragma(database, "user_version")
    if application not in (0, APPLICATION_ID) or (application == 0 and _pragma(database, "schema_version")):
        raise LocalError(f"{path}: is the database of another program; choose another `data` folder")
    if version > len(STEPS):
        raise LocalError(f"{path}: was written by a newer Penstock; run that one, or restore a backup")
    if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise LocalError(_damaged(path))


def _upgrade(database: sqlite3.Connection) -> None:
    for version in range(_pragma(database, "user_version"), len(STEPS)):
        with _transaction(database):
            for statement in STEPS[version].split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {version + 1}")


def _pragma(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


def _close(database: sqlite3.Connection, path: Path) -> None:
    with _named_errors(path):
        database.close()


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite itself rolls back after some failures
            database.execute("ROLLBACK")
        raise


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """SQLite's errors stop here and become ours."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            raise  # misuse of the module: a fault in this file, not on the disk
        raise _named(code & 0xFF, str(error), path) from error


def _named(code: int, text: str, path: Path) -> StoreError:
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"{path}: the disk is full; make room and try again")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StoreError(_damaged(path))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(f"{path}: another program keeps it locked; stop that one")
    return StoreError(f"{path}: {text}; check the disk and who may write there")


def _damaged(path: Path) -> str:
    return (
        f"{path}: is damaged or no database; restore a backup, or move it away, with its -wal "
        "and -shm, to start without titles"
    )


def _read_entries(database: sqlite3.Connection) -> list[Entry]:
    renditions: dict[bytes, list[Rendition]] = {}
    for title_id, infohash, *rest in database.execute(
        "SELECT title_id, infohash, name, length, bandwidth, codecs, width, height, duration_ms "
        "FROM renditions ORDER BY title_id, place"
    ):
        renditions.setdefault(title_id, []).append(Rendition(InfoHash(infohash), *rest))
    return [
        Entry(TitleId(title_id), title, NodeId(signer), tuple(renditions.get(title_id, ())))
        for title_id, title, signer in database.execute(
            "SELECT title_id, title, signer FROM titles ORDER BY number"
        )
    ]


def _write_title(database: sqlite3.Connection, entry: Entry) -> None:
    with suppress(sqlite3.IntegrityError), _transaction(database):
        # Two edges may register at once: what the core checked, it checked before either was stored.
        changed = database.execute(
            "INSERT INTO titles (title_id, title, signer) VALUES (?, ?, ?) "
            "ON CONFLICT (title_id) DO UPDATE SET title = excluded.title WHERE signer = excluded.signer",
            (entry.title_id, entry.title, entry.signer),
        ).rowcount
        if not changed:
            raise Refused(Reason.NOT_ALLOWED, "the title belongs to another edge")
        database.execute("DELETE FROM renditions WHERE title_id = ?", (entry.title_id,))
        database.executemany(
            "INSERT INTO renditions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_row(entry.title_id, place, rendition) for place, rendition in enumerate(entry.renditions)],
        )
        return
    raise Refused(Reason.NOT_ALLOWED, "a rendition belongs to another title")


def _row(title_id: TitleId, place: int, rendition: Rendition) -> tuple[bytes | int | str, ...]:
    return (
        rendition.infohash,
        title_id,
        place,
        rendition.name,
        rendition.length,
        rendition.bandwidth,
        rendition.codecs,
        rendition.width,
        rendition.height,
        rendition.duration_ms,
    )


def _write_nodes(database: sqlite3.Connection, nodes: Sequence[Node]) -> None:
    rows = [
        (n.id, n.kind.value, n.mode.value, n.region, str(n.at), n.software, n.since, n.since) for n in nodes
    ]
    with _transaction(database):
        database.executemany(
            "INSERT INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (node) DO UPDATE SET "
            "kind = excluded.kind, mode = excluded.mode, region = excluded.region, at = excluded.at, "
            "software = excluded.software, last_connected_at = excluded.last_connected_at",
            rows,
        )
        database.execute(
            "DELETE FROM nodes WHERE node IN "
            "(SELECT node FROM nodes ORDER BY last_connected_at DESC LIMIT -1 OFFSET ?)",
            (MAX_NODES,),
        )


def _count(database: sqlite3.Connection) -> StoreStatistics:
    titles, nodes = database.execute(
        "SELECT (SELECT count(*) FROM titles), (SELECT count(*) FROM nodes)"
    ).fetchone()
    pages, page_bytes = _pragma(database, "page_count"), _pragma(database, "page_size")
    return StoreStatistics(titles, nodes, pages * page_bytes)
