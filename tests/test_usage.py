"""Usage: what is told is counted, and counted once."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import clock
from shared.core.ids import Kind
from shared.core.messages import Locate, Report, Use
from tests.desk_parts import desks_of
from tests.tracker_parts import ask, entry, infohash, join, node, title_id, tracker
from tracker.core.tracker import Tracker
from tracker.core.usage import DAY_SECONDS, Batch
from tracker.dbs import schema, usage
from tracker.dbs.usage import OTHER, RUN_SECONDS, ask_usage, write_batch

EDGE = node("edge")
DAY = 20_000
NOON = DAY * DAY_SECONDS + 43_200.0
RUN = int(NOON * 1000)  # a node's counters began just now
TITLES = [entry(name, EDGE) for name in ("film", "second")]
SWARMS = [one.renditions[0].infohash for one in TITLES]


def report(run: int, *uses: Use) -> Report:
    """A report in which only usage matters."""
    return Report(0, 0, 0, 0, 0, 0, 0, 0, 0, (), run, uses)


def database_of() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("PRAGMA foreign_keys = ON")
    schema.upgrade(database)
    return database


def asked(database: sqlite3.Connection, by: str = "title") -> dict[Any, tuple[int, ...]]:
    _, rows = ask_usage(database, by, 0, 30_000, 0, 1000)
    return {
        row.key: (row.edge_bytes, row.peer_bytes, row.uploaded_bytes, row.redirects, row.viewers)
        for row in rows
    }


# A step: a node's counter grows, is told, everything is told again, the batch is written, is tried in vain,
# the tracker dies, the node starts anew, or a day passes.
GROWS = st.tuples(
    st.just("grow"), st.integers(0, 2), st.integers(0, 1), st.tuples(*[st.integers(0, 1 << 40)] * 3)
)
STEPS = st.lists(
    GROWS
    | st.tuples(st.sampled_from(["tell", "restart"]), st.integers(0, 2))
    | st.tuples(st.sampled_from(["write", "fail", "die", "day"])),
    max_size=40,
)


@settings(max_examples=120, deadline=None)
@given(STEPS)
def test_sums_are_what_was_reported_however_it_is_batched_and_whoever_dies(steps: list[Any]) -> None:
    """Once every node has told its counters and the batch is written, the usage of all days and regions
    together is exactly what all runs of all nodes have counted, whatever was told twice, lost in a tracker's
    death or written in whichever batches."""
    database, now = database_of(), NOON
    core = tracker(*TITLES)
    counters: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    runs = [RUN, RUN, RUN]
    expected = [[0, 0, 0], [0, 0, 0]]

    def start_core() -> Tracker:
        fresh = tracker(*TITLES)
        for number in range(3):
            join(fresh, number, region=f"region {number}")
        return fresh

    def tell(number: int) -> None:
        uses = tuple(Use(SWARMS[title], *counters[number, title]) for title in (0, 1))
        ask(core, report(runs[number], *uses), node(number), now)

    def settle() -> None:
        for number in range(3):
            tell(number)
        write_batch(database, core.usage.take(), now)

    core = start_core()
    for step in steps:
        match step:
            case ("grow", number, title, sizes):
                for place, size in enumerate(sizes):
                    counters[number, title][place] += size
                    expected[title][place] += size
            case ("tell", number):
                tell(number)
            case ("restart", number):
                settle()  # what nobody was told before a node's end, nobody can count
                runs[number] += 1
                counters[number, 0], counters[number, 1] = [0, 0, 0], [0, 0, 0]
            case ("write",):
                write_batch(database, core.usage.take(), now)
            case ("fail",):
                core.usage.give_back(core.usage.take())
            case ("die",):
                core = start_core()
            case _:
                now += DAY_SECONDS
    settle()
    got = asked(database)
    for title, sums in zip(TITLES, expected, strict=True):
        assert list(got.get(title.title_id, (0, 0, 0))[:3]) == sums
    everything = [sum(one) for one in zip(*expected, strict=True)]
    for by in ("publisher", "region", "day"):
        assert [sum(row[place] for row in asked(database, by).values()) for place in range(3)] == everything
    database.close()


def test_a_counter_that_runs_backwards_adds_nothing() -> None:
    """A node that lies downwards and up again is counted up to its highest word."""
    database, core = database_of(), tracker(*TITLES)
    join(core, "pc")
    for size in (100, 40, 90, 120):
        ask(core, report(RUN, Use(SWARMS[0], size, 0, 0)), node("pc"), NOON)
        write_batch(database, core.usage.take(), NOON)
    assert asked(database)[title_id("film")][0] == 120
    database.close()


def test_a_report_that_comes_late_takes_nothing_back() -> None:
    """Of what one batch heard of a counter, the most is written, in whichever order it came."""
    database, core = database_of(), tracker(*TITLES)
    join(core, "pc")
    for sizes in ((100, 3), (40, 7)):
        ask(core, report(RUN, Use(SWARMS[0], *sizes, 0)), node("pc"), NOON)
    write_batch(database, core.usage.take(), NOON)
    assert asked(database)[title_id("film")][:2] == (100, 7)
    database.close()


def test_a_run_that_was_forgotten_is_not_counted_again() -> None:
    """A node whose run the tracker has forgotten, or never knew for a week, is counted from there on."""
    database, core = database_of(), tracker(*TITLES)
    join(core, "pc")

    def tell(size: int, now: float, swarm: int = 0) -> None:
        ask(core, report(RUN, Use(SWARMS[swarm], size, 0, 0)), node("pc"), now)
        write_batch(database, core.usage.take(), now)

    tell(100, NOON)
    usage.tidy(database, [node("pc")], NOON + RUN_SECONDS)  # it is here all the time
    later = NOON + 2 * RUN_SECONDS - 1
    usage.tidy(database, [], later)
    tell(150, later)
    assert asked(database)[title_id("film")][0] == 150
    usage.tidy(database, [], later + RUN_SECONDS + 1)
    later += RUN_SECONDS + 1
    tell(200, later)  # may have been counted, for all that is known
    tell(260, later)
    assert asked(database)[title_id("film")][0] == 210
    tell(1000, later, swarm=1)
    tell(1001, later, swarm=1)
    assert asked(database)[title_id("second")][0] == 1
    database.close()


def test_numbers_that_can_only_be_lies_do_no_harm() -> None:
    """Nodes that report as much as fits a message, without end, stop no sum and no other node's counting."""
    database, core, huge = database_of(), tracker(*TITLES), (1 << 53) - 1
    for number in range(1100):
        join(core, number)
        ask(core, report(RUN, Use(SWARMS[0], huge, huge, huge)), node(number), NOON)
    write_batch(database, core.usage.take(), NOON)
    assert asked(database)[title_id("film")][0] == 1 << 62
    join(core, "pc")
    ask(core, report(RUN, Use(SWARMS[1], 5, 6, 7), Use(infohash("none"), 1, 1, 1)), node("pc"), NOON)
    write_batch(database, core.usage.take(), NOON)
    assert asked(database)[title_id("second")] == (5, 6, 7, 0, 0)
    database.close()


def test_regions_that_nodes_invent_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_REGIONS", 3)
    database, core = database_of(), tracker(*TITLES)
    for number in range(10):
        join(core, number, region=f"r{number}")
        ask(core, report(RUN, Use(SWARMS[0], 1, 0, 0)), node(number), NOON)
        ask(core, Locate(1, SWARMS[0]), node(number), NOON)
    write_batch(database, core.usage.take(), NOON)
    got = asked(database, "region")
    assert got[OTHER] == (7, 0, 0, 7, 7)
    assert len(got) == 4
    database.close()


def test_redirects_are_counted_each_and_viewers_once_a_day() -> None:
    """Edges and tools are no viewers; who asks again is the same viewer that day, and another the next."""
    database, core = database_of(), tracker(*TITLES, edges=frozenset({EDGE}))
    for name, kind in (("pc", Kind.PC), ("box", Kind.STB), ("edge", Kind.EDGE), ("tool", Kind.TOOL)):
        join(core, name, kind, "north")
    for now in (NOON, NOON + 10, NOON + DAY_SECONDS):
        for name in ("pc", "box", "edge", "tool"):
            ask(core, Locate(1, SWARMS[0]), node(name), now)
        write_batch(database, core.usage.take(), now)
        usage.tidy(database, [], now)
    assert asked(database)[title_id("film")] == (0, 0, 0, 6, 4)
    assert asked(database, "day") == {DAY: (0, 0, 0, 4, 2), DAY + 1: (0, 0, 0, 2, 2)}
    ask(core, report(RUN, Use(SWARMS[0], 9, 9, 9)), EDGE, NOON)
    assert not core.usage.take()
    database.close()


def test_a_database_that_takes_nothing_costs_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracker.core.usage.MOST_WAITING", 3)
    core = tracker(*TITLES)
    for number in range(5):
        join(core, number)
        for _ in range(2):
            ask(core, report(RUN, Use(SWARMS[0], 1, 0, 0)), node(number), NOON)
    assert core.usage.dropped == 4
    assert len(core.usage.take().counters) == 3
    assert not Batch()


# -- over HTTP ----------------------------------------------------------------------------------


async def test_the_api_answers_by_title_publisher_region_and_day(tmp_path: Path) -> None:
    async with desks_of(tmp_path, *TITLES) as desks:
        join(desks.core, "pc", region="north")
        ask(desks.core, report(int(clock.now() * 1000), Use(SWARMS[0], 30, 70, 5)), node("pc"), NOON)
        ask(desks.core, Locate(1, SWARMS[1]), node("pc"), NOON + DAY_SECONDS)
        await desks.office.ledger.write_counts()
        await desks.post("publishers", {"publisher": EDGE.hex(), "name": "Studio"})
        days = "from=2024-10-04&to=2024-10-05"
        film, second = (await desks.get(f"usage?{days}"))["usage"]
        assert (film["key"], film["name"]) == (title_id("film").hex(), "Film film")
        assert (film["edge_bytes"], film["peer_bytes"], film["uploaded_bytes"]) == (30, 70, 5)
        assert (second["redirects"], second["viewers"]) == (1, 1)
        (studio,) = (await desks.get(f"usage?{days}&by=publisher"))["usage"]
        assert (studio["key"], studio["name"], studio["peer_bytes"]) == (EDGE.hex(), "Studio", 70)
        seen = await desks.get(f"usage?{days}&by=day")
        assert [one["key"] for one in seen["usage"]] == ["2024-10-04", "2024-10-05"]
        assert (seen["first_day"], seen["last_day"], seen["total"]) == ("2024-10-04", "2024-10-05", 2)
        (north,) = (await desks.get(f"usage?{days}&by=region&limit=1"))["usage"]
        assert north["key"] == "north"
        assert (await desks.get("usage?to=2024-10-03"))["total"] == 0
        assert (await desks.get(f"usage?{days}&skip=1"))["usage"] == [second]
    async with desks_of(tmp_path) as desks:
        assert (await desks.get(f"usage?{days}"))["usage"] == [film, second]


@pytest.mark.parametrize(
    "question, says",
    [
        ("by=hour", "by: expected one of title, publisher, region, day"),
        ("by=day&by=title", "by: given more than once"),
        ("from=yesterday", "from: expected a day such as 2026-12-24"),
        ("from=2026-02-30", "from: expected a day"),
        ("from=20260101", "from: expected a day"),
        ("from=2026-1-1", "from: expected a day"),
        ("from=٢٠٢٦-01-01", "from: expected a day"),
        ("from=2026-01-02&to=2026-01-01", "from: expected a day no later than"),
        ("from=2020-01-01&to=2026-01-01", "from: more than 400 days"),
        ("from=0001-01-01&to=0001-01-02", "from: expected a day no later"),
        ("to=9999-12-31&from=9999-12-01", "from: expected a day no later"),
        ("limit=0", "limit: expected one whole number"),
        ("skip=-1", "skip: expected one whole number"),
        ("form=2026-01-01", "'form': unknown parameter; known: from, to, by, skip, limit"),
    ],
)
async def test_a_question_that_is_not_exactly_right_is_refused_by_name(
    tmp_path: Path, question: str, says: str
) -> None:
    async with desks_of(tmp_path) as desks:
        status, error = await desks.refused("GET", f"usage?{question}")
        assert (status, says in error) == (400, True), error


async def test_what_the_database_refuses_is_counted_later_and_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with desks_of(tmp_path, *TITLES) as desks:
        join(desks.core, "pc", region="north")
        run, pages = int(clock.now() * 1000), desks.store._database.execute("PRAGMA page_count").fetchone()[0]
        desks.store._database.execute(f"PRAGMA max_page_count = {pages}")
        for size in (10, 20):
            for swarm in SWARMS:
                ask(desks.core, report(run, Use(swarm, size, 0, 0)), node("pc"), NOON)
                ask(desks.core, Locate(1, swarm), node("pc"), NOON)
            for number in range(2000):  # more than the free pages hold
                desks.core.usage.redirected(desks.core.nodes[node("pc")], title_id(number), NOON)
            await desks.office.ledger.write_counts()
        assert (await desks.get("usage?from=2024-10-04&to=2024-10-04"))["total"] == 0
        assert caplog.text.count("usage is not recorded yet") == 2
        desks.store._database.execute("PRAGMA max_page_count = 100000")
        await desks.office.ledger.write_counts()
        await desks.office.ledger.write_counts()
        seen = (await desks.get("usage?from=2024-10-04&to=2024-10-04"))["usage"]
        for one in seen[:2]:
            assert (one["edge_bytes"], one["redirects"], one["viewers"]) == (20, 2, 1)
