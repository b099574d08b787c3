"""The tracker's database: what is acknowledged stays, what is damaged is said."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.errors import LocalError, Reason, Refused, StoreError, StoreFull
from shared.core.ids import HostPort, Kind
from tests.tracker_parts import NOW, entry, hello, node, rendition
from tracker.core.nodes import Node, of_hello
from tracker.dbs import schema, titles
from tracker.dbs.titles import MAX_NODES
from tracker.store import open_store

EDGE = node("edge")
FILM = entry("film", EDGE)


def seen(name: str | int, since: float = NOW) -> Node:
    return of_hello(node(name), HostPort("192.0.2.1", 4430), hello(Kind.PC, "north"), since)


async def test_titles_come_back_in_the_order_they_were_made(tmp_path: Path) -> None:
    several = replace(FILM, renditions=tuple(rendition(n) for n in (3, 1, 2)))
    made = [several, entry("b", EDGE), entry("a", node("other"))]
    async with open_store(tmp_path / "t.db") as store:
        for one in made:
            await store.store_title(one)
        assert await store.entries() == made
    async with open_store(tmp_path / "t.db") as store:
        assert await store.entries() == made
        assert (await store.statistics()).titles == 3


async def test_a_title_registered_again_is_replaced_and_keeps_its_place(tmp_path: Path) -> None:
    again = replace(FILM, title="Other name", renditions=(rendition("new"),))
    async with open_store(tmp_path / "t.db") as store:
        await store.store_title(FILM)
        await store.store_title(entry("later", EDGE))
        await store.store_title(again)
        assert await store.entries() == [again, entry("later", EDGE)]


@pytest.mark.parametrize(
    "thief",
    [
        replace(FILM, signer=node("thief")),
        replace(entry("mine", node("thief")), renditions=FILM.renditions),
        replace(entry("twice", EDGE), renditions=(rendition(1), rendition(1))),
    ],
    ids=["foreign title", "foreign rendition", "one rendition twice"],
)
async def test_a_title_that_is_somebody_elses_changes_nothing(tmp_path: Path, thief: object) -> None:
    async with open_store(tmp_path / "t.db") as store:
        await store.store_title(FILM)
        with pytest.raises(Refused) as refused:
            await store.store_title(thief)  # type: ignore[arg-type]  # parametrized entries
        assert refused.value.reason is Reason.NOT_ALLOWED
        assert await store.entries() == [FILM]


text = st.text(st.characters(exclude_categories=("C", "Zl", "Zp", "Zs")), min_size=1, max_size=200)


@settings(max_examples=40, deadline=None)
@given(title=text, name=text.map(lambda t: t[:60]), length=st.integers(0, (1 << 53) - 1))
def test_every_entry_the_wire_allows_comes_back(title: str, name: str, length: int) -> None:
    """An entry that the protocol can carry is read from the database as it was written."""
    one = replace(FILM, title=title, renditions=(replace(rendition(1), name=name, length=length),))
    database = sqlite3.connect(":memory:", isolation_level=None)
    schema.upgrade(database)
    titles.write_title(database, one)
    assert titles.read_entries(database) == [one]
    database.close()


async def test_nodes_are_remembered_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_NODES > 1000
    monkeypatch.setattr(titles, "MAX_NODES", 3)
    async with open_store(tmp_path / "t.db") as nodes:
        await nodes.store_nodes([seen(n, NOW + n) for n in range(5)])
        await nodes.store_nodes([seen(2, NOW + 50)])
    with sqlite3.connect(tmp_path / "t.db") as database:
        rows = database.execute(
            "SELECT node, at, first_connected_at, last_connected_at FROM nodes ORDER BY last_connected_at"
        ).fetchall()
    database.close()
    at = "192.0.2.1:4430"
    assert rows == [
        (node(3), at, NOW + 3, NOW + 3),
        (node(4), at, NOW + 4, NOW + 4),
        (node(2), at, NOW + 2, NOW + 50),
    ]


WRITER = """
    import sys, trio
    from pathlib import Path
    from tests.tracker_parts import entry, node
    from tracker.store import open_store

    async def write():
        async with open_store(Path(sys.argv[1])) as store:
            for number in range(100_000):
                await store.store_title(entry(number, node("edge")))
                print(number, flush=True)

    trio.run(write)
"""


def write_until_killed(path: Path, wanted: int) -> int:
    """How many titles a writer was told are stored, when it was killed after at least `wanted`."""
    root = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=environment) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(wanted)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    return sum(line.endswith(b"\n") for line in lines)


@pytest.mark.parametrize("wanted", [1, 7])
async def test_kill_9_loses_no_acknowledged_title(tmp_path: Path, wanted: int) -> None:
    acknowledged = write_until_killed(tmp_path / "t.db", wanted)
    assert acknowledged >= wanted
    async with open_store(tmp_path / "t.db") as store:
        entries = await store.entries()
    assert len(entries) >= acknowledged
    assert entries == [entry(number, EDGE) for number in range(len(entries))]


async def open_and_close(path: Path) -> None:
    async with open_store(path) as store:
        await store.entries()


async def test_a_file_that_is_no_database_is_named_with_its_cure(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    path.write_bytes(b"#!/bin/sh\n" * 1000)
    with pytest.raises(LocalError, match=r"t\.db: is damaged or no database; restore a backup") as error:
        await open_and_close(path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == b"#!/bin/sh\n" * 1000


async def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with open_store(path) as store:
        for number in range(50):
            await store.store_title(entry(number, EDGE))
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\xa5" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(LocalError, match="damaged"):
        await open_and_close(path)


@pytest.mark.parametrize(
    "change, says",
    [
        ("CREATE TABLE recipes (cake TEXT)", "is the database of another program"),
        ("PRAGMA application_id = 77", "is the database of another program"),
        ("PRAGMA user_version = 99", "was written by a newer Penstock"),
    ],
)
async def test_a_foreign_or_newer_database_is_left_alone(tmp_path: Path, change: str, says: str) -> None:
    path = tmp_path / "t.db"
    database = sqlite3.connect(path)
    database.execute(change)
    database.commit()
    database.close()
    before = path.read_bytes()
    with pytest.raises(LocalError, match=says):
        await open_and_close(path)
    assert path.read_bytes() == before


async def test_an_edited_row_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with open_store(path) as store:
        await store.store_title(FILM)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE titles SET title = ?", ("x" * 5000,))
    database.close()
    with pytest.raises(LocalError, match=r"t\.db: holds a title .*restore"):
        await open_and_close(path)


async def test_a_full_disk_refuses_the_title_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with open_store(path) as store:
        await store.store_title(FILM)
        pages = store._database.execute("PRAGMA page_count").fetchone()[0]
        store._database.execute(f"PRAGMA max_page_count = {pages}")
        large = replace(
            entry("large", EDGE), renditions=tuple(replace(rendition(n), name="x" * 250) for n in range(16))
        )
        with pytest.raises(StoreFull, match=r"t\.db: the disk is full"):
            await store.store_title(large)
        assert await store.entries() == [FILM]
        store._database.execute("PRAGMA max_page_count = 100000")
        await store.store_title(large)
        assert await store.entries() == [FILM, large]


async def test_a_folder_that_is_a_file_is_named_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(LocalError, match=r"t\.db: unable to open database file; check the disk"):
        await open_and_close(tmp_path / "data" / "t.db")


async def test_a_table_lost_while_running_is_a_store_error(tmp_path: Path) -> None:
    async with open_store(tmp_path / "t.db") as store:
        store._database.execute("DROP TABLE renditions")
        with pytest.raises(StoreError, match=r"t\.db: .*renditions"):
            await store.store_title(FILM)
