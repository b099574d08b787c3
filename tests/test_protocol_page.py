"""Invariant: docs/protocol.md is what the code prints, and reads as one page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.core import codec, messages
from shared.core.errors import Reason
from shared.protocol_page import RECORDS, WORDS, page
from tests import wire

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "protocol.md"


def section(title: str) -> str:
    """What stands below a heading, up to the next one."""
    found = re.search(rf"^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)", page(), re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def test_the_page_is_fresh() -> None:
    """If this fails: python -m shared.protocol_page > docs/protocol.md."""
    assert PAGE.read_text() == page()


def test_the_command_prints_the_page() -> None:
    """The same bytes in any locale."""
    command = [sys.executable, "-m", "shared.protocol_page"]
    done = subprocess.run(command, cwd=ROOT, env={"LC_ALL": "C"}, capture_output=True, check=True)
    assert done.stdout == page().encode("ascii")
    assert done.stderr == b""


def test_every_record_and_word_list_of_the_fields_is_there() -> None:
    """What fields refer to is described, and nothing else."""
    fields = [field for kind in wire.SPOKEN for field in codec.fields_of(kind)]
    records = {wire.item_type(f) for f in fields if wire.plain_type(f) is tuple} - {int}
    words = {wire.plain_type(f) for f in fields if wire.is_enum(f)} - {Reason}
    assert records == set(RECORDS)
    assert words == set(WORDS)


@pytest.mark.parametrize("kind", wire.SPOKEN, ids=lambda kind: kind.__name__)
def test_every_field_has_its_row(kind: type) -> None:
    text = section(kind.__name__)
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [f.name for f in codec.fields_of(kind)]
    if kind in messages.ALL:
        assert f"Code {kind.code};" in text
    for field in codec.fields_of(kind):
        row = re.search(rf"^\| `{field.name}` \| (.*) \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
        assert row
        assert row[1]
        assert bool(row[2]) != wire.is_enum(field)
        assert bool(row[3]) == field.optional
        assert row[4].startswith(field.limit.says)


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
def test_every_word_is_listed(kind: type) -> None:
    listed = re.findall(r"(?:^\* |^|, )`([a-z-]+)`", section(kind.__name__), re.MULTILINE)
    assert listed == [word.value for word in wire.enumerated(kind)]


def test_every_reason_has_a_meaning() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", section("Reasons"), re.MULTILINE)
    assert [(int(number), name) for number, name, _ in rows] == [(one.value, one.name) for one in Reason]
    assert len({meaning for _, _, meaning in rows}) == len(Reason)


def test_links_lead_somewhere_and_headings_are_unique() -> None:
    headings = [title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", page(), re.MULTILINE)]
    assert len(headings) == len(set(headings))
    links = set(re.findall(r"\]\(([^)]+)\)", page()))
    assert len(links) > len(messages.ALL)
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (PAGE.parent / link).is_file()


def test_tables_are_whole() -> None:
    """All rows of a table have as many cells as its head, and a line of their own."""
    tables = re.findall(r"(?:^\|.*\|\n)+", page(), re.MULTILINE)
    assert len(tables) > len(messages.ALL)
    for table in tables:
        assert len({row.count("|") for row in table.splitlines()}) == 1
    assert sum(table.count("\n") for table in tables) == len(re.findall(r"^\|", page(), re.MULTILINE))


def test_it_speaks_of_no_python() -> None:
    text = page()
    for word in ("None", "dataclass", "NewType", "Annotated", "<class", "ClassVar"):
        assert word not in text


def test_the_example_is_read_by_the_code() -> None:
    shown = re.search(r"is `((?:\\x[0-9a-f]{2}){4})(.+?)` \|", page())
    assert shown
    assert messages.decode(shown[2].encode()) == messages.Browse(1)
    assert int(shown[1].replace("\\x", ""), 16) == len(shown[2])
