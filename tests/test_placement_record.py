"""The record of placement says what the edges said, however it is batched."""

from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from shared.core.messages import Event
from tests.tracker_parts import announce, infohash, node
from tracker.core.placement_record import GONE, HELD, ORDERED, Change, PlacementRecord
from tracker.dbs import schema
from tracker.dbs.placement import list_placement, write_changes

EDGE, FILM = node("edge"), infohash("film")

WORDS = st.sampled_from(["ordered", "fetching", "held", "announced", "stopped", "updated"])


def tell(record: PlacementRecord, word: str, now: float, ordered_at: float) -> None:
    """What happens between an edge and its tracker."""
    match word:
        case "announced" | "stopped" | "updated":
            event = {"announced": Event.STARTED, "stopped": Event.STOPPED, "updated": Event.UPDATE}[word]
            record.announced(EDGE, announce(FILM, event=event), now)
        case _:
            record.note(EDGE, FILM, Change(word, now, "", ordered_at, 99.0))


@given(st.lists(st.tuples(WORDS, st.sampled_from(["wait", "write", "fail"])), min_size=1, max_size=20))
def test_the_record_is_the_last_word_of_the_last_order_since_it_was_first_said(
    steps: list[tuple[str, str]],
) -> None:
    """Stage, since when, and of which order do not depend on when the database was told."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    schema.upgrade(database)
    record, expected, ordered_at = PlacementRecord(), Change("", 0.0), 0.0
    for number, (word, fate) in enumerate(steps, start=1):
        now = float(number)
        if word == "ordered":
            ordered_at = now
        tell(record, word, now, ordered_at or now)
        by_order = word in ("ordered", "fetching", "held")
        ordered_at = ordered_at or (now if by_order else 0.0)
        stage = {"announced": HELD, "stopped": GONE, "updated": expected.stage}.get(word, word)
        at = expected.at if stage == expected.stage else now
        ordered = ordered_at if by_order else expected.ordered_at
        if stage:
            expected = Change(stage, at, "", ordered, 99.0 if ordered else 0.0)
        if fate == "write":
            write_changes(database, record.take())
        elif fate == "fail":
            record.give_back(record.take())
    write_changes(database, record.take())
    total, rows = list_placement(database, 0, 10)
    assert [row.change for row in rows] == ([expected] if expected.stage else [])
    assert total == len(rows)
    assert ORDERED == "ordered"
    database.close()
