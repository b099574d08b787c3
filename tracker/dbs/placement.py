"""The record of placement: what each edge holds or was ordered, since when, and how it ended."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from shared.core.ids import InfoHash, NodeId
from tracker.core.placement_record import Change
from tracker.dbs.schema import transaction

MAX_ROWS = 1_000_000  # those that changed last


@dataclass(frozen=True, slots=True)
class PlacementRow:
    """How one edge stands to one rendition."""

    edge: NodeId
    infohash: InfoHash
    change: Change


def write_changes(database: sqlite3.Connection, changes: Mapping[tuple[NodeId, InfoHash], Change]) -> None:
    """Brings the record up to date; a stage that stays as it was keeps its moment."""
    rows = [
        (edge, infohash, c.stage, c.reason, c.ordered_at, c.before_at, c.at, c.has_moved)
        for (edge, infohash), c in changes.items()
    ]
    with transaction(database):
        database.executemany(
            "INSERT INTO placement VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) "
            "ON CONFLICT (edge, infohash) DO UPDATE SET "
            "changed_at = iif(stage = excluded.stage AND NOT ?8, changed_at, excluded.changed_at), "
            "stage = excluded.stage, reason = excluded.reason, "
            "before_at = iif(excluded.ordered_at, excluded.before_at, before_at), "
            "ordered_at = iif(excluded.ordered_at, excluded.ordered_at, ordered_at)",
            rows,
        )
        database.execute(
            "DELETE FROM placement WHERE (edge, infohash) IN (SELECT edge, infohash FROM placement "
            "ORDER BY changed_at DESC LIMIT -1 OFFSET ?)",
            (MAX_ROWS,),
        )


def list_placement(database: sqlite3.Connection, skip: int, limit: int) -> tuple[int, list[PlacementRow]]:
    """How many rows there are, and a page of them, what changed last first."""
    total = database.execute("SELECT count(*) FROM placement").fetchone()[0]
    rows = database.execute(
        "SELECT edge, infohash, stage, changed_at, reason, ordered_at, before_at FROM placement "
        "ORDER BY changed_at DESC, edge, infohash LIMIT ? OFFSET ?",
        (limit, skip),
    )
    return total, [PlacementRow(NodeId(e), InfoHash(i), Change(*rest)) for e, i, *rest in rows]
