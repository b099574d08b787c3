"""Publishers, their groups, who is in them, and the titles that are kept to groups.

A group belongs to one publisher, and only titles which that publisher signed can be kept to it. People
write a group by its name, or as PUBLISHER/NAME where several publishers have one of that name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.core.errors import LocalError
from shared.core.ids import NodeId, TitleId, parse_node_id
from tracker.dbs.refusals import NotSo, NotThere
from tracker.dbs.schema import transaction

MAX_NAME_CHARACTERS = 64
MAX_GROUPS = 10_000
MAX_MEMBERS = 100_000  # of one group; the core has all of them in memory
MAX_ALL_MEMBERS = 500_000
SHOWN = 5  # of names in an error


@dataclass(frozen=True, slots=True)
class PublisherRow:
    """One publisher."""

    publisher: NodeId
    name: str
    titles: int
    groups: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group."""

    number: int
    publisher: NodeId
    publisher_name: str
    name: str
    members: int = 0
    titles: int = 0  # kept to it


@dataclass(frozen=True, slots=True)
class KeptRow:
    """A title that is not for everybody."""

    title_id: TitleId
    title: str
    groups: tuple[str, ...]


def clean_name(text: str, what: str) -> str:
    """The name of a group or publisher, unchanged. Raises LocalError."""
    sound = text.isprintable() and text == text.strip() and not set("/,") & set(text)
    if not sound or not 1 <= len(text) <= MAX_NAME_CHARACTERS:
        raise LocalError(
            f"{what} {ascii(text[:80])} is no name; use up to {MAX_NAME_CHARACTERS} printable characters, "
            "no / or comma, no space at either end"
        )
    return text


# -- publishers ---------------------------------------------------------------------------------


def list_publishers(database: sqlite3.Connection, skip: int, limit: int) -> tuple[int, list[PublisherRow]]:
    """How many there are, and a page of them."""
    rows = database.execute(
        "SELECT publisher, name, (SELECT count(*) FROM titles WHERE signer = publisher), "
        "(SELECT count(*) FROM groups WHERE groups.publisher = publishers.publisher) "
        "FROM publishers ORDER BY name = '', name, publisher LIMIT ? OFFSET ?",
        (limit, skip),
    )
    return _count(database, "publishers"), [PublisherRow(*row) for row in rows]


def name_publisher(database: sqlite3.Connection, publisher: NodeId, name: str) -> None:
    """Gives a publisher a name, and makes it one if it is new. Raises LocalError, NotSo."""
    clean_name(name, "publisher")
    if _as_id(name):
        raise LocalError("a publisher's name may not look like an id")
    with transaction(database):
        taken = database.execute("SELECT publisher FROM publishers WHERE name = ?", (name,)).fetchone()
        if taken is not None and taken[0] != publisher:
            raise NotSo(f"publisher {name!r} is {taken[0].hex()}; choose another name")
        database.execute(
            "INSERT INTO publishers VALUES (?, ?) ON CONFLICT (publisher) DO UPDATE SET name = excluded.name",
            (publisher, name),
        )


def find_publisher(database: sqlite3.Connection, text: str) -> NodeId:
    """By name or id; the empty text means the only one there is. Raises NotThere, NotSo."""
    if not text:
        rows = database.execute("SELECT publisher FROM publishers LIMIT 2").fetchall()
        if len(rows) != 1:
            raise NotSo("there is more than one publisher; say which" if rows else _NO_PUBLISHER)
    else:
        rows = database.execute(
            "SELECT publisher FROM publishers WHERE name = ? OR publisher = ?", (text, _as_id(text))
        ).fetchall()
        if not rows:
            raise NotThere(f"there is no publisher {text[:80]!r}; `penstock group publishers` lists them")
    return NodeId(rows[0][0])


_NO_PUBLISHER = "there is no publisher yet; publish a title, or `penstock group publisher ID NAME`"


def _as_id(text: str) -> bytes:
    try:
        return parse_node_id(text)
    except LocalError:
        return b""


# -- groups -------------------------------------------------------------------------------------


def list_groups(database: sqlite3.Connection, skip: int, limit: int) -> tuple[int, list[GroupRow]]:
    """How many there are, and a page of them."""
    rows = database.execute(
        "SELECT number, publisher, publishers.name, groups.name, "
        "(SELECT count(*) FROM members WHERE members.number = groups.number), "
        "(SELECT count(*) FROM kept_to WHERE kept_to.number = groups.number) "
        "FROM groups JOIN publishers USING (publisher) "
        "ORDER BY groups.name, publishers.name, publisher LIMIT ? OFFSET ?",
        (limit, skip),
    )
    return _count(database, "groups"), [GroupRow(n, NodeId(p), *rest) for n, p, *rest in rows]


def create_group(database: sqlite3.Connection, name: str, publisher: str) -> GroupRow:
    """A new group without members. Raises LocalError, NotThere, NotSo."""
    clean_name(name, "group")
    with transaction(database):
        owner = find_publisher(database, publisher)
        if _count(database, "groups") >= MAX_GROUPS:
            raise NotSo(f"there are {MAX_GROUPS} groups, as many as may be; remove one")
        if database.execute(
            "SELECT 1 FROM groups WHERE (publisher, name) = (?, ?)", (owner, name)
        ).fetchone():
            raise NotSo(f"there is a group {name!r} of this publisher already")
        database.execute("INSERT INTO groups (publisher, name) VALUES (?, ?)", (owner, name))
        return find_group(database, f"{owner.hex()}/{name}")


def remove_group(database: sqlite3.Connection, text: str) -> GroupRow:
    """Ends a group to which no title is kept. Raises NotThere, NotSo."""
    with transaction(database):
        group = find_group(database, text)
        kept = database.execute(
            "SELECT title FROM kept_to JOIN titles USING (title_id) WHERE kept_to.number = ?", (group.number,)
        ).fetchall()
        if kept:
            shown = ", ".join(repr(title) for (title,) in kept[:SHOWN]) + (
                " ..." if len(kept) > SHOWN else ""
            )
            raise NotSo(f"titles are kept to group {group.name!r}: {shown}; open them or keep them to others")
        database.execute("DELETE FROM groups WHERE number = ?", (group.number,))
    return group


def find_group(database: sqlite3.Connection, text: str) -> GroupRow:
    """By NAME or PUBLISHER/NAME. Raises NotThere, NotSo if there are several."""
    publisher, _, name = text.rpartition("/")
    rows = database.execute(
        "SELECT groups.number, publisher, publishers.name, groups.name "
        "FROM groups JOIN publishers USING (publisher) WHERE groups.name = ?",
        (name,),
    ).fetchall()
    if publisher:
        rows = [row for row in rows if publisher in (row[2], row[1].hex())]
    if not rows:
        raise NotThere(f"there is no group {text[:150]!r}; `penstock group` lists them")
    if len(rows) > 1:
        owners = ", ".join(f"{row[2] or row[1].hex()}/{name}" for row in rows[:SHOWN])
        raise NotSo(f"several publishers have a group {name!r}: say which of {owners}")
    number, owner, owner_name, name = rows[0]
    return GroupRow(number, NodeId(owner), owner_name, name)


# -- members ------------------------------------------------------------------------------------


def list_members(database: sqlite3.Connection, text: str, skip: int, limit: int) -> tuple[int, list[NodeId]]:
    """How many are in a group, and a page of them. Raises NotThere, NotSo."""
    number = find_group(database, text).number
    total = database.execute("SELECT count(*) FROM members WHERE number = ?", (number,)).fetchone()[0]
    rows = database.execute(
        "SELECT node FROM members WHERE number = ? ORDER BY node LIMIT ? OFFSET ?", (number, limit, skip)
    )
    return total, [NodeId(node) for (node,) in rows]


def change_members(
    database: sqlite3.Connection, text: str, added: Sequence[NodeId], removed: Sequence[NodeId]
) -> GroupRow:
    """All of it or nothing; who is named twice, or is in already, is no error. Raises NotThere, NotSo."""
    with transaction(database):
        group = find_group(database, text)
        database.executemany(
            "DELETE FROM members WHERE (number, node) = (?, ?)", [(group.number, node) for node in removed]
        )
        database.executemany(
            "INSERT INTO members VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(group.number, node) for node in added],
        )
        count = "SELECT count(*) FROM members WHERE number = ?"
        members = database.execute(count, (group.number,)).fetchone()[0]
        if added and (members > MAX_MEMBERS or _count(database, "members") > MAX_ALL_MEMBERS):
            raise NotSo(f"a group may have {MAX_MEMBERS} members, and all together {MAX_ALL_MEMBERS}")
    return GroupRow(group.number, group.publisher, group.publisher_name, group.name, members)


# -- titles -------------------------------------------------------------------------------------


def keep_title(database: sqlite3.Connection, title_id: TitleId, names: Collection[str]) -> tuple[int, ...]:
    """Keeps a title to these groups instead of to others; their numbers. Raises NotThere, NotSo."""
    with transaction(database):
        row = database.execute("SELECT signer FROM titles WHERE title_id = ?", (title_id,)).fetchone()
        if row is None:
            raise NotThere(f"there is no title {title_id.hex()} in the database")
        groups = [_group_of(database, name, row[0]) for name in names]
        database.execute("UPDATE titles SET is_kept = 1 WHERE title_id = ?", (title_id,))
        database.execute("DELETE FROM kept_to WHERE title_id = ?", (title_id,))
        database.executemany(
            "INSERT INTO kept_to VALUES (?, ?) ON CONFLICT DO NOTHING",
            [(title_id, group.number) for group in groups],
        )
    return tuple({group.number for group in groups})


def _group_of(database: sqlite3.Connection, text: str, signer: bytes) -> GroupRow:
    """A group of the publisher that signed a title; a bare name means that publisher's."""
    if "/" not in text:
        own = database.execute("SELECT 1 FROM groups WHERE (publisher, name) = (?, ?)", (signer, text))
        if own.fetchone() is None:
            raise NotThere(f"the title's publisher has no group {text[:80]!r}; `penstock group` lists them")
        text = f"{signer.hex()}/{text}"
    group = find_group(database, text)
    if group.publisher != signer:
        raise NotSo(f"group {text!r} belongs to another publisher than the title")
    return group


def open_title(database: sqlite3.Connection, title_id: TitleId) -> None:
    """The title is for everybody."""
    with transaction(database):
        database.execute("UPDATE titles SET is_kept = 0 WHERE title_id = ?", (title_id,))
        database.execute("DELETE FROM kept_to WHERE title_id = ?", (title_id,))


def list_kept(database: sqlite3.Connection, skip: int, limit: int) -> tuple[int, list[KeptRow]]:
    """How many titles are kept to groups, and a page of them."""
    total = database.execute("SELECT count(*) FROM titles WHERE is_kept").fetchone()[0]
    rows = database.execute(
        "SELECT title_id, title FROM titles WHERE is_kept ORDER BY number DESC LIMIT ? OFFSET ?",
        (limit, skip),
    ).fetchall()
    return total, [KeptRow(TitleId(i), title, _groups_kept_to(database, i)) for i, title in rows]


def _groups_kept_to(database: sqlite3.Connection, title_id: bytes) -> tuple[str, ...]:
    rows = database.execute(
        "SELECT name FROM kept_to JOIN groups USING (number) WHERE title_id = ? ORDER BY name", (title_id,)
    )
    return tuple(name for (name,) in rows)


# -- for the core, at the start -----------------------------------------------------------------


def read_members(database: sqlite3.Connection) -> dict[int, frozenset[NodeId]]:
    """Who is in each group, by its number."""
    numbers = [number for (number,) in database.execute("SELECT number FROM groups")]
    return {number: _members_of(database, number) for number in numbers}


def _members_of(database: sqlite3.Connection, number: int) -> frozenset[NodeId]:
    rows = database.execute("SELECT node FROM members WHERE number = ?", (number,))
    return frozenset(NodeId(node) for (node,) in rows)


def read_kept(database: sqlite3.Connection) -> dict[TitleId, frozenset[int]]:
    """The groups' numbers of each title that is kept."""
    kept: dict[TitleId, set[int]] = {
        TitleId(title_id): set()
        for (title_id,) in database.execute("SELECT title_id FROM titles WHERE is_kept")
    }
    for title_id, number in database.execute("SELECT title_id, number FROM kept_to"):
        kept[TitleId(title_id)].add(number)
    return {title_id: frozenset(numbers) for title_id, numbers in kept.items()}


def _count(database: sqlite3.Connection, table: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
