"""Plans of pre-distribution. A title has one open plan at most; those that ended are kept for a while."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from shared.core.ids import TitleId
from tracker.core.plans import Plan
from tracker.dbs.refusals import NotSo, NotThere
from tracker.dbs.schema import transaction

MAX_OPEN = 10_000
MAX_ENDED = 10_000  # latest ended first
CANCELLED, REPLACED, RELEASED = "cancelled", "replaced", "released"


@dataclass(frozen=True, slots=True)
class EndedPlan:
    """A plan that is over, and how that came."""

    plan: Plan
    title: str
    ended_at: float
    how_ended: str


def add_plan(
    database: sqlite3.Connection,
    title_id: TitleId,
    release_at: float,
    edges: int,
    regions: Collection[str],
    now: float,
) -> Plan:
    """A plan for a title, instead of the one it may have. Raises NotThere, NotSo."""
    with transaction(database):
        if database.execute("SELECT 1 FROM titles WHERE title_id = ?", (title_id,)).fetchone() is None:
            raise NotThere(f"there is no title {title_id.hex()} in the database")
        _end(database, "title_id = ?", title_id, REPLACED, now)
        if database.execute("SELECT count(*) FROM plans WHERE how_ended = ''").fetchone()[0] >= MAX_OPEN:
            raise NotSo(f"there are {MAX_OPEN} plans, as many as may be; cancel one")
        number = database.execute(
            "INSERT INTO plans (title_id, release_at, edges, regions, made_at) VALUES (?, ?, ?, ?, ?)",
            (title_id, release_at, edges, "\n".join(sorted(regions)), now),
        ).lastrowid
    assert number is not None
    return Plan(number, title_id, release_at, now, edges, frozenset(regions))


def cancel_plan(database: sqlite3.Connection, title_id: TitleId, now: float) -> None:
    """The title's plan is taken back. Raises NotThere if it has none."""
    with transaction(database):
        if not _end(database, "title_id = ?", title_id, CANCELLED, now):
            raise NotThere("the title has no plan; `penstock place` lists the plans")


def end_plan(database: sqlite3.Connection, number: int, now: float) -> None:
    """A plan's release is long past."""
    with transaction(database):
        _end(database, "number = ?", number, RELEASED, now)


def _end(database: sqlite3.Connection, which: str, value: bytes | int, how: str, now: float) -> int:
    ended = database.execute(
        f"UPDATE plans SET ended_at = ?, how_ended = ? WHERE how_ended = '' AND {which}", (now, how, value)
    ).rowcount
    if ended:
        database.execute(
            "DELETE FROM plans WHERE number IN (SELECT number FROM plans WHERE how_ended <> '' "
            "ORDER BY ended_at DESC, number DESC LIMIT -1 OFFSET ?)",
            (MAX_ENDED,),
        )
    return ended


def read_plans(database: sqlite3.Connection) -> list[Plan]:
    """Every open plan, for the core at the start."""
    return [
        _plan(row)
        for row in database.execute(f"SELECT {_COLUMNS} FROM plans WHERE how_ended = '' ORDER BY number")
    ]


def list_ended(database: sqlite3.Connection, skip: int, limit: int) -> tuple[int, list[EndedPlan]]:
    """How many are over, and a page of them, the latest first."""
    total = database.execute("SELECT count(*) FROM plans WHERE how_ended <> ''").fetchone()[0]
    rows = database.execute(
        f"SELECT {_COLUMNS}, title, ended_at, how_ended FROM plans JOIN titles USING (title_id) "
        "WHERE how_ended <> '' ORDER BY ended_at DESC, plans.number DESC LIMIT ? OFFSET ?",
        (limit, skip),
    )
    return total, [EndedPlan(_plan(row[:6]), *row[6:]) for row in rows]


_COLUMNS = "plans.number, title_id, release_at, made_at, edges, regions"


def _plan(row: tuple[int, bytes, float, float, int, str]) -> Plan:
    number, title_id, release_at, made_at, edges, regions = row
    names = frozenset(regions.split("\n")) if regions else frozenset[str]()
    return Plan(number, TitleId(title_id), release_at, made_at, edges, names)
