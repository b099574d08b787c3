"""Titles, their renditions, and the nodes that were here."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress

from shared.core.errors import Reason, Refused
from shared.core.ids import InfoHash, NodeId, TitleId
from shared.core.messages import Entry, Rendition
from tracker.core.nodes import Node
from tracker.dbs.schema import transaction

MAX_NODES = 100_000  # rows kept, latest connected first: strangers must not fill the disk


def read_entries(database: sqlite3.Connection) -> list[Entry]:
    """Every title, oldest first."""
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


def write_title(database: sqlite3.Connection, entry: Entry) -> None:
    """Adds or replaces a title; its groups and plans stay. Raises Refused if it is somebody else's."""
    with suppress(sqlite3.IntegrityError), transaction(database):
        database.execute(
            "INSERT INTO publishers VALUES (?, '') ON CONFLICT (publisher) DO NOTHING", (entry.signer,)
        )
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


def write_nodes(database: sqlite3.Connection, nodes: Sequence[Node]) -> None:
    """Remembers that these nodes were here, and forgets the oldest over MAX_NODES."""
    rows = [
        (n.id, n.kind.value, n.mode.value, n.region, str(n.at), n.software, n.since, n.since) for n in nodes
    ]
    with transaction(database):
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
