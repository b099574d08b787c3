"""Every older database opens with all that was in it, and a step that fails changes nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from shared.core.errors import LocalError, StoreError
from tests.tracker_parts import entry, infohash, node, title_id
from tracker.dbs import groups, placement, plans, schema, titles, usage
from tracker.store import open_store

EDGE, OTHER = node("edge"), node("other")
LATEST = len(schema.STEPS)

# What a tracker of each version may have written, by its own statements: these stay as they are.
RENDITION = (
    "INSERT INTO renditions VALUES (?, ?, 0, 'film.mp4', 60000000, 4000000, 'avc1', 1280, 720, 120000)"
)
WRITTEN: dict[int, list[tuple[str, tuple[object, ...]]]] = {
    1: [
        ("INSERT INTO titles (title_id, title, signer) VALUES (?, 'A', ?)", (title_id("a"), EDGE)),
        ("INSERT INTO titles (title_id, title, signer) VALUES (?, 'B', ?)", (title_id("b"), EDGE)),
        ("INSERT INTO titles (title_id, title, signer) VALUES (?, 'C', ?)", (title_id("c"), OTHER)),
        *((RENDITION, (infohash(name), title_id(name))) for name in "abc"),
        ("INSERT INTO nodes VALUES (?, 'pc', 'shared', 'north', '192.0.2.1:4430', 'x', 1, 2)", (EDGE,)),
    ],
    2: [
        ("INSERT OR REPLACE INTO publishers VALUES (?, 'Studio')", (EDGE,)),
        ("INSERT INTO groups VALUES (7, ?, 'family')", (EDGE,)),
        ("INSERT INTO members VALUES (7, ?)", (OTHER,)),
        ("UPDATE titles SET is_kept = 1 WHERE title_id = ?", (title_id("a"),)),
        ("INSERT INTO kept_to VALUES (?, 7)", (title_id("a"),)),
    ],
    3: [
        (
            "INSERT INTO plans (title_id, release_at, edges, regions, made_at) VALUES (?, 9e9, 0, ?, 1)",
            (title_id("a"), "north\nsouth"),
        ),
        ("INSERT INTO placement VALUES (?, ?, 'held', '', 1, 2, 3)", (EDGE, infohash("a"))),
    ],
    4: [
        ("INSERT INTO usage VALUES (20000, ?, 'north', 1, 2, 3, 4, 5)", (title_id("a"),)),
        ("INSERT INTO runs VALUES (1, ?, 5, 6.0, 0)", (OTHER,)),
        ("INSERT INTO marks VALUES (1, ?, 1, 2, 3)", (infohash("a"),)),
    ],
}


def written(path: Path, version: int) -> None:
    """A database as a tracker of this version leaves it."""
    database = sqlite3.connect(path, isolation_level=None)
    for step in range(1, version + 1):
        schema.upgrade(database, to=step)
        for statement, values in WRITTEN[step]:
            database.execute(statement, values)
    database.close()


def test_what_each_version_wrote_is_listed_here() -> None:
    """A new step needs its rows above, or it is not tried with data in the database."""
    assert sorted(WRITTEN) == list(range(1, LATEST + 1))


@pytest.mark.parametrize("version", range(1, LATEST + 1))
async def test_a_database_of_every_version_opens_with_all_that_was_in_it(
    tmp_path: Path, version: int
) -> None:
    written(tmp_path / "t.db", version)
    for _ in range(2):  # and opens again
        async with open_store(tmp_path / "t.db") as store:
            assert [one.title for one in await store.entries()] == ["A", "B", "C"]
            assert (await store.statistics()).nodes == 1
            total, publishers = await store.read(groups.list_publishers, 0, 10)
            named = "Studio" if version >= 2 else ""
            assert total == 2
            assert {(one.publisher, one.name, one.titles) for one in publishers} == {
                (EDGE, named, 2),
                (OTHER, "", 1),
            }
            kept = {title_id("a"): frozenset({7})} if version >= 2 else {}
            assert await store.read(groups.read_kept) == kept
            assert await store.read(groups.read_members) == ({7: frozenset({OTHER})} if version >= 2 else {})
            known = [(one.title_id, set(one.regions)) for one in await store.read(plans.read_plans)]
            assert known == ([(title_id("a"), {"north", "south"})] if version >= 3 else [])
            assert (await store.read(placement.list_placement, 0, 10))[0] == (version >= 3)
            total, _ = await store.read(usage.ask_usage, "title", 0, 30_000, 0, 10)
            assert total == (version >= 4)
    with sqlite3.connect(tmp_path / "t.db") as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert schema.pragma(database, "user_version") == LATEST
    database.close()


def shape_of(database: sqlite3.Connection) -> list[tuple[str, ...]]:
    return database.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY type, name"
    ).fetchall()


def test_old_and_new_databases_have_the_same_shape(tmp_path: Path) -> None:
    """However a database came to the latest version, its tables are the same."""
    new = sqlite3.connect(":memory:", isolation_level=None)
    schema.upgrade(new)
    for version in range(1, LATEST):
        path = tmp_path / f"{version}.db"
        written(path, version)
        old = schema.connect(path)
        assert shape_of(old) == shape_of(new)
        old.close()
    new.close()


@pytest.mark.parametrize("version", range(1, LATEST))
async def test_a_step_that_fails_in_the_middle_changes_nothing(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.db"
    written(path, version)
    broken = schema.STEPS[version] + "; CREATE TABLE titles (twice TEXT)"
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS[:version], broken, *schema.STEPS[version + 1 :]))
    with pytest.raises(StoreError, match="already exists"):
        async with open_store(path):
            pass
    monkeypatch.undo()
    with sqlite3.connect(path) as database:
        assert schema.pragma(database, "user_version") == version
    database.close()
    async with open_store(path) as store:
        assert len(await store.entries()) == 3


async def test_a_newer_database_is_refused_by_name_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    written(path, LATEST)
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {LATEST + 1}")
    database.close()
    before = path.read_bytes()
    with pytest.raises(LocalError, match=r"t\.db: was written by a newer Penstock; run that one"):
        async with open_store(path):
            pass
    assert path.read_bytes() == before


async def test_a_question_that_takes_too_long_ends_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.store.READ_SECONDS", 0.05)

    def ask(database: sqlite3.Connection) -> None:
        database.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
        ).fetchone()

    async with open_store(tmp_path / "t.db") as store:
        with pytest.raises(StoreError, match="the question takes too long; ask for fewer days"):
            await store.read(ask)
        await store.store_title(entry("film", EDGE))  # and nobody else is kept waiting
        assert await store.read(titles.read_entries) == [entry("film", EDGE)]


async def test_readers_can_change_nothing(tmp_path: Path) -> None:
    async with open_store(tmp_path / "t.db") as store:
        with pytest.raises(StoreError, match="readonly"):
            await store.read(titles.write_title, entry("film", EDGE))
