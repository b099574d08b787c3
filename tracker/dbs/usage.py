"""Usage per title, region and day: adding up, and questions.

Nodes tell counters that run from their start. A *run* is a start of a node; a *mark* is how far one of
its counters has been counted. A batch adds, in one transaction, the differences to the marks and the
new marks, so no byte is counted twice: not when a tracker dies between two batches and hears the same
counter again, not when a batch is tried again. What kill -9 costs is the redirects and viewers of the
last two seconds, and the bytes of nodes that never report again.

A run is remembered for a week after it was last seen. One that began before that and is not known may
have been counted: of each of its counters, what it tells first is taken as counted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from shared.core.ids import NodeId
from tracker.core.usage import DAY_SECONDS, Batch
from tracker.dbs.schema import transaction

RUN_SECONDS = 7 * 86400.0  # after which a run that is not seen is forgotten
MAX_RUNS = 1_000_000
MAX_REGIONS = 1000  # names of regions; nodes may state any, so others are counted as OTHER
OTHER = "(other)"
AT_ONCE = 512  # counters of up to 2^53 that SQLite adds up without leaving 64 bits
MOST = 1 << 62  # a sum stays here: it can only be a lie
BY = ("title", "publisher", "region", "day")

_HEARD = """
    CREATE TEMP TABLE IF NOT EXISTS heard (
        node BLOB, run INTEGER, infohash BLOB, title_id BLOB, region TEXT, day INTEGER,
        edge_bytes INTEGER, peer_bytes INTEGER, uploaded_bytes INTEGER
    )
"""
_NEW_REGIONS = """
    INSERT OR IGNORE INTO regions SELECT DISTINCT region FROM heard
    WHERE region NOT IN (SELECT region FROM regions)
    LIMIT max(0, ? - (SELECT count(*) FROM regions))
"""
_OTHER_REGIONS = "UPDATE heard SET region = ? WHERE region NOT IN (SELECT region FROM regions)"
_NEW_RUNS = """
    INSERT INTO runs (node, run, seen_at, is_old)
    SELECT DISTINCT node, run, ?1, run < ?2 FROM heard WHERE true
    ON CONFLICT (node, run) DO UPDATE SET seen_at = max(seen_at, excluded.seen_at)
"""
_OLD_RUNS = """
    INSERT OR IGNORE INTO marks SELECT runs.number, infohash, edge_bytes, peer_bytes, uploaded_bytes
    FROM heard JOIN runs USING (node, run) WHERE is_old
"""
_ADD = """
    INSERT INTO usage
    SELECT day, title_id, region,
        sum(max(0, heard.edge_bytes - ifnull(marks.edge_bytes, 0))),
        sum(max(0, heard.peer_bytes - ifnull(marks.peer_bytes, 0))),
        sum(max(0, heard.uploaded_bytes - ifnull(marks.uploaded_bytes, 0))),
        0, 0
    FROM heard JOIN runs USING (node, run)
    LEFT JOIN marks ON marks.number = runs.number AND marks.infohash = heard.infohash
    WHERE true GROUP BY day, title_id, region
    ON CONFLICT (day, title_id, region) DO UPDATE SET
        edge_bytes = min(?1, edge_bytes + excluded.edge_bytes),
        peer_bytes = min(?1, peer_bytes + excluded.peer_bytes),
        uploaded_bytes = min(?1, uploaded_bytes + excluded.uploaded_bytes)
"""
_MARK = """
    INSERT INTO marks SELECT runs.number, infohash, edge_bytes, peer_bytes, uploaded_bytes
    FROM heard JOIN runs USING (node, run) WHERE true
    ON CONFLICT (number, infohash) DO UPDATE SET
        edge_bytes = max(edge_bytes, excluded.edge_bytes),
        peer_bytes = max(peer_bytes, excluded.peer_bytes),
        uploaded_bytes = max(uploaded_bytes, excluded.uploaded_bytes)
"""
_COUNT = """
    INSERT INTO usage VALUES (?, ?, ?, 0, 0, 0, ?, ?) ON CONFLICT (day, title_id, region) DO UPDATE SET
        redirects = redirects + excluded.redirects, viewers = viewers + excluded.viewers
"""
_SAW = """
    INSERT INTO viewers VALUES (?, ?, ?) ON CONFLICT (title_id, node) DO UPDATE SET day = excluded.day
    WHERE excluded.day > day
"""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one title, publisher, region or day was used; `name` is for people, if there is one."""

    key: bytes | str | int
    name: str
    edge_bytes: int
    peer_bytes: int
    uploaded_bytes: int
    redirects: int
    viewers: int


def write_batch(database: sqlite3.Connection, batch: Batch, now: float) -> None:
    """Adds what was heard; all of it or nothing."""
    with transaction(database):
        database.execute(_HEARD)
        rows = (
            (*key, c.title_id, c.region, c.day, c.edge_bytes, c.peer_bytes, c.uploaded_bytes)
            for key, c in batch.counters.items()
        )
        while some := list(islice(rows, AT_ONCE)):
            _add_counters(database, some, now)
        _add_redirects(database, batch)


def _add_counters(database: sqlite3.Connection, rows: Sequence[tuple[object, ...]], now: float) -> None:
    database.execute("DELETE FROM heard")
    database.executemany("INSERT INTO heard VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    database.execute(_NEW_REGIONS, (MAX_REGIONS,))
    database.execute(_OTHER_REGIONS, (OTHER,))
    database.execute(_NEW_RUNS, (now, int((now - RUN_SECONDS) * 1000)))
    database.execute(_OLD_RUNS)
    database.execute(_ADD, (MOST,))
    database.execute(_MARK)


def _add_redirects(database: sqlite3.Connection, batch: Batch) -> None:
    seen = {key: int(database.execute(_SAW, (key[1], key[2], key[0])).rowcount > 0) for key in batch.viewers}
    known = _known_regions(database, {region for *_, region in batch.redirects} | {*batch.viewers.values()})
    counts = [
        (day, title_id, _named(region, known), count, 0)
        for (day, title_id, region), count in batch.redirects.items()
    ]
    for (day, title_id, node), region in batch.viewers.items():
        if seen[day, title_id, node]:
            counts.append((day, title_id, _named(region, known), 0, 1))
    database.executemany(_COUNT, counts)


def _known_regions(database: sqlite3.Connection, regions: Iterable[str]) -> set[str]:
    for region in sorted(regions):
        database.execute(
            "INSERT OR IGNORE INTO regions SELECT ? WHERE (SELECT count(*) FROM regions) < ?",
            (region, MAX_REGIONS),
        )
    return {region for (region,) in database.execute("SELECT region FROM regions")}


def _named(region: str, known: set[str]) -> str:
    return region if region in known else OTHER


def tidy(database: sqlite3.Connection, here: Sequence[NodeId], now: float) -> None:
    """Once an hour: the runs of nodes that are here are alive, old ones and yesterday's viewers go."""
    with transaction(database):
        database.executemany("UPDATE runs SET seen_at = ? WHERE node = ?", [(now, node) for node in here])
        database.execute("DELETE FROM runs WHERE seen_at < ?", (now - RUN_SECONDS,))
        database.execute(
            "DELETE FROM runs WHERE number IN "
            "(SELECT number FROM runs ORDER BY seen_at DESC LIMIT -1 OFFSET ?)",
            (MAX_RUNS,),
        )
        database.execute("DELETE FROM viewers WHERE day < ?", (int(now // DAY_SECONDS) - 1,))


# -- questions ----------------------------------------------------------------------------------

_KEYS = {
    "title": ("usage.title_id", "max(ifnull(titles.title, ''))", "LEFT JOIN titles USING (title_id)"),
    "publisher": (
        "ifnull(titles.signer, x'')",
        "max(ifnull(publishers.name, ''))",
        "LEFT JOIN titles USING (title_id) LEFT JOIN publishers ON publisher = signer",
    ),
    "region": ("region", "''", ""),
    "day": ("day", "''", ""),
}


def ask_usage(
    database: sqlite3.Connection, by: str, first_day: int, last_day: int, skip: int, limit: int
) -> tuple[int, list[UsageRow]]:
    """How many rows there are from one day to another, both included, and a page of them.

    Days come in their order, others by the bytes delivered, most first.
    """
    key, name, joined = _KEYS[by]
    days = (first_day, last_day)
    inside = f"FROM usage {joined} WHERE day BETWEEN ? AND ? GROUP BY {key}"
    total = database.execute(f"SELECT count(*) FROM (SELECT 1 {inside})", days).fetchone()[0]
    order = "1" if by == "day" else "total(edge_bytes) + total(peer_bytes) DESC, sum(redirects) DESC, 1"
    rows = database.execute(
        f"SELECT {key}, {name}, total(edge_bytes), total(peer_bytes), total(uploaded_bytes), "
        f"sum(redirects), sum(viewers) {inside} ORDER BY {order} LIMIT ? OFFSET ?",
        (*days, limit, skip),
    )
    return total, [UsageRow(k, n, int(e), int(p), int(u), r, v) for k, n, e, p, u, r, v in rows]
