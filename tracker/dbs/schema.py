"""The tables, and the steps that bring an older database to them.

Each step is one transaction and brings a database from the version of its place to the next. Never
edit one that was released, add another. STRICT: a column holds what it says or the write fails. Ids
and hashes are raw bytes, times seconds since 1970, days whole days since 1970 in UTC.

Manifests are not kept. What is needed to check one again is: the rendition's infohash is the hash of
what the manifest describes, and the title's signer is the hash of the key that must have signed it. So
whoever brings a manifest, an edge or a backup, can be checked against these rows, and half a megabyte
for every film, which no tracker ever serves, stays where the film is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.core.errors import LocalError, StoreError, StoreFull

APPLICATION_ID = 0x50454E53  # "PENS" in the file's header: whose database it is

TITLES_AND_NODES = """
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
"""

# A publisher is who signs titles, an edge today; its name is what people call it, or empty.
PUBLISHERS_AND_GROUPS = """
    CREATE TABLE publishers (
        publisher BLOB PRIMARY KEY,
        name TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE UNIQUE INDEX publishers_by_name ON publishers (name) WHERE name <> '';
    INSERT INTO publishers SELECT DISTINCT signer, '' FROM titles;
    CREATE INDEX titles_by_signer ON titles (signer);
    ALTER TABLE titles ADD COLUMN is_kept INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE groups (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        publisher BLOB NOT NULL REFERENCES publishers (publisher),
        name TEXT NOT NULL,
        UNIQUE (publisher, name)
    ) STRICT;
    CREATE TABLE members (
        number INTEGER NOT NULL REFERENCES groups (number) ON DELETE CASCADE,
        node BLOB NOT NULL,
        PRIMARY KEY (number, node)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE kept_to (
        title_id BLOB NOT NULL REFERENCES titles (title_id) ON DELETE CASCADE,
        number INTEGER NOT NULL REFERENCES groups (number),
        PRIMARY KEY (title_id, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX kept_to_by_group ON kept_to (number);
"""

# `placement` has the latest order of each edge and rendition, or that it is held without one.
PLANS_AND_PLACEMENT = """
    CREATE TABLE plans (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        title_id BLOB NOT NULL REFERENCES titles (title_id) ON DELETE CASCADE,
        release_at REAL NOT NULL,
        edges INTEGER NOT NULL,
        regions TEXT NOT NULL,
        made_at REAL NOT NULL,
        ended_at REAL NOT NULL DEFAULT 0,
        how_ended TEXT NOT NULL DEFAULT ''
    ) STRICT;
    CREATE UNIQUE INDEX open_plans ON plans (title_id) WHERE how_ended = '';
    CREATE TABLE placement (
        edge BLOB NOT NULL,
        infohash BLOB NOT NULL,
        stage TEXT NOT NULL,
        reason TEXT NOT NULL,
        ordered_at REAL NOT NULL,
        before_at REAL NOT NULL,
        changed_at REAL NOT NULL,
        PRIMARY KEY (edge, infohash)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX placement_by_change ON placement (changed_at);
"""

# `runs` and `marks` are how far nodes' own counters have been counted: see `tracker.dbs.usage`.
USAGE = """
    CREATE TABLE usage (
        day INTEGER NOT NULL,
        title_id BLOB NOT NULL,
        region TEXT NOT NULL,
        edge_bytes INTEGER NOT NULL,
        peer_bytes INTEGER NOT NULL,
        uploaded_bytes INTEGER NOT NULL,
        redirects INTEGER NOT NULL,
        viewers INTEGER NOT NULL,
        PRIMARY KEY (day, title_id, region)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE regions (region TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY,
        node BLOB NOT NULL,
        run INTEGER NOT NULL,
        seen_at REAL NOT NULL,
        is_old INTEGER NOT NULL,
        UNIQUE (node, run)
    ) STRICT;
    CREATE INDEX runs_by_seen ON runs (seen_at);
    CREATE TABLE marks (
        number INTEGER NOT NULL REFERENCES runs (number) ON DELETE CASCADE,
        infohash BLOB NOT NULL,
        edge_bytes INTEGER NOT NULL,
        peer_bytes INTEGER NOT NULL,
        uploaded_bytes INTEGER NOT NULL,
        PRIMARY KEY (number, infohash)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE viewers (
        title_id BLOB NOT NULL,
        node BLOB NOT NULL,
        day INTEGER NOT NULL,
        PRIMARY KEY (title_id, node)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX viewers_by_day ON viewers (day);
"""

STEPS = (TITLES_AND_NODES, PUBLISHERS_AND_GROUPS, PLANS_AND_PLACEMENT, USAGE)


def connect(path: Path) -> sqlite3.Connection:
    """The database for writing, made or brought up to date. Raises LocalError, or what SQLite raises."""
    # isolation_level=None: transactions begin and end where `transaction` says, not by guess.
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _check_ours(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        upgrade(database)
    except BaseException:
        database.close()
        raise
    return database


def connect_reader(path: Path) -> sqlite3.Connection:
    """A second connection that changes nothing: long questions keep no writer waiting."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA query_only = ON")
    return database


def _check_ours(database: sqlite3.Connection, path: Path) -> None:
    application = pragma(database, "application_id")
    version = pragma(database, "user_version")
    if application not in (0, APPLICATION_ID) or (application == 0 and pragma(database, "schema_version")):
        raise LocalError(f"{path}: is the database of another program; choose another `data` folder")
    if version > len(STEPS):
        raise LocalError(f"{path}: was written by a newer Penstock; run that one, or restore a backup")
    if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise LocalError(_damaged(path))


def upgrade(database: sqlite3.Connection, to: int = len(STEPS)) -> None:
    """Takes the steps that are missing, up to a version."""
    for version in range(pragma(database, "user_version"), to):
        with transaction(database):
            for statement in STEPS[version].split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {version + 1}")


def pragma(database: sqlite3.Connection, name: str) -> int:
    """A whole number that SQLite keeps of the database."""
    return int(database.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of it or, after an exception, nothing; on the disk when it is left."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # SQLite itself rolls back after some failures
            database.execute("ROLLBACK")
        raise


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """SQLite's errors stop here and become ours."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            raise  # misuse of the module: a fault of ours, not on the disk
        raise _named(code & 0xFF, str(error), path) from error


def _named(code: int, text: str, path: Path) -> StoreError:
    if code == sqlite3.SQLITE_FULL:
        return StoreFull(f"{path}: the disk is full; make room and try again")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return StoreError(_damaged(path))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreError(f"{path}: another program keeps it locked; stop that one")
    if code == sqlite3.SQLITE_INTERRUPT:
        return StoreError("the question takes too long; ask for fewer days")
    return StoreError(f"{path}: {text}; check the disk and who may write there")


def _damaged(path: Path) -> str:
    return (
        f"{path}: is damaged or no database; restore a backup, or move it away, with its -wal "
        "and -shm, to start without titles"
    )
