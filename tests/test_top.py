"""`penstock top`: the screen and its plain forms, over a tracker's API in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from textual.geometry import Size
from textual.pilot import Pilot

from shared.core.ids import Kind
from shared.core.messages import Report
from tests.fake_tracker import API, BOX, EDGE, EVIL, PC, PHONE, FakeTracker, swarm_tracker
from tests.tracker_parts import ask, join, tracker
from tracker.core.tracker import Tracker
from tracker.tui import plain
from tracker.tui.columns import NODES
from tracker.tui.feed import Feed
from tracker.tui.screen import TopApp

SMALL, LARGE = (80, 24), (200, 60)
KINDS = {kind.value for kind in Kind}


def screen_of(app: TopApp) -> list[str]:
    """What is painted, line by line."""
    strips = app.screen._compositor.render_strips(Size(*app.size))
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def text_of(app: TopApp) -> str:
    return "\n".join(screen_of(app))


def run_top(
    fake: FakeTracker, size: tuple[int, int], script: Callable[[TopApp, Pilot[None]], Awaitable[None]]
) -> None:
    """Runs the screen with one look at the start and one for every `poll` of the script."""

    async def run() -> None:
        app = TopApp(Feed(API, fake.transport()), interval_seconds=3600)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await app.poll()
            await pilot.pause()
            await script(app, pilot)

    asyncio.run(run())


def look_at(core: Tracker, size: tuple[int, int]) -> list[str]:
    seen: list[str] = []

    async def script(app: TopApp, pilot: Pilot[None]) -> None:
        seen.extend(screen_of(app))

    run_top(FakeTracker(core), size, script)
    return seen


def cells(line: str) -> list[str]:
    return line.strip("│▐ ").split()


def line_with(lines: list[str], text: str) -> str:
    (line,) = [line for line in lines if text in line]
    return line


# -- the screen -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_screen_shows_totals_nodes_and_swarms(size: tuple[int, int]) -> None:
    lines = look_at(swarm_tracker(), size)
    assert len(lines) == size[1]
    assert f"{API}  live" in lines[0]
    assert lines[1].strip() == "viewers 3  edges 1  swarms 2  titles 2  redirects 0  refusals 0"
    assert lines[2].strip() == "offload 75.0%  down 9.00  up 6.00 Mbit/s  edge 30.0M  peers 90.0M  stalls 3"
    pc = cells(row_of(lines, PC.hex()[:8]))
    assert pc[:12] == [
        PC.hex()[:8], "pc", "shared", "4.00", "8.00", "8.00", "50%", "30.0M", "90.0M", "7.7M", "0", "2",
    ]  # fmt: skip
    box = cells(row_of(lines, BOX.hex()[:8]))
    assert box[3:12] == ["2.00", "1.00", "none", "-", "10.0k", "20.0k", "1.0M", "3", "0"]
    phone = cells(row_of(lines, PHONE.hex()[:8]))
    assert phone[1:5] == ["mobile", "direct", "-", "-"]
    film = cells(line_with(lines, "Film film"))
    assert film[2:8] == ["1", "2", "2", "█████░░░░░", "50%", "60.0M"]
    assert "q Quit" in lines[-1]
    assert "? Help" in lines[-1]


def row_of(lines: list[str], id_: str) -> str:
    """The row of a node; its id may stand among others' sources too."""
    (line,) = [line for line in lines if cells(line)[:1] == [id_]]
    return line


def test_a_wide_screen_has_room_for_more() -> None:
    wide = "\n".join(look_at(swarm_tracker(), LARGE))
    narrow = "\n".join(look_at(swarm_tracker(), SMALL))
    for text in (
        f"{EDGE.hex()[:8]} 25%, {BOX.hex()[:8]} 75%",
        "north",
        "192.0.2.1:4430",
        "test 1",
        "film.mp4",
    ):
        assert text in wide
        assert text not in narrow


def test_all_columns_of_a_small_screen_fit() -> None:
    lines = look_at(swarm_tracker(), SMALL)
    header = line_with(lines, "kind")
    for column in NODES:
        assert (column.name in header.replace("▲", " ").split()) == (not column.is_extra)


def test_texts_from_outside_are_shown_as_they_are() -> None:
    assert EVIL in "\n".join(look_at(swarm_tracker(), LARGE))
    assert f"{EVIL[:23]}…" in "\n".join(look_at(swarm_tracker(), SMALL))


def test_escape_sequences_are_never_painted() -> None:
    fake = FakeTracker(swarm_tracker())
    hostile = "\x1b]0;owned\x07\x1b[2J\u202efilm\nx" + "y" * 5000

    def replace(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replace(item) for key, item in value.items()}
        if isinstance(value, list):
            return [replace(item) for item in value]
        return hostile if isinstance(value, str) else value

    honest = fake.answer

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=replace(honest(request).json()))

    fake.answer = answer  # type: ignore[method-assign]  # the same tracker, with a hostile pen

    async def script(app: TopApp, pilot: Pilot[None]) -> None:
        painted = screen_of(app)
        assert "\\x1b]0;owned" in "\n".join(painted)
        assert all(line.isprintable() for line in painted)

    run_top(fake, LARGE, script)
    shown = plain.as_text(plain.look(API, fake.transport()))
    assert all(line.isprintable() for line in shown.split("\n"))


def test_it_refreshes_and_stays_on_its_row() -> None:
    core = swarm_tracker()

    async def script(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("down", "down")
        table = app.query_one("#nodes")
        before = table._key_at_cursor()  # type: ignore[attr-defined]  # what the operator looks at
        for number in range(30):
            join(core, number)
        ask(core, Report(1, 125_000_000, 0, 1, 1, 1, 1, 1, 1), PC)
        await app.poll()
        await pilot.pause()
        assert table._key_at_cursor() == before  # type: ignore[attr-defined]  # see above
        assert "nodes (34)" in text_of(app)
        assert "down 1001  up" in text_of(app)

    run_top(FakeTracker(core), SMALL, script)


def test_sort_goes_round_the_columns_of_the_table_in_focus() -> None:
    async def script(app: TopApp, pilot: Pilot[None]) -> None:
        marks = []
        for _ in range(len(NODES)):
            await pilot.press("s")
            await pilot.pause()
            header = line_with(screen_of(app), "kind")
            marks.append(next(word for word in header.split() if word[-1] in "▲▼"))
            if marks[-1] == "down▼":
                order = [
                    cells(line)[0] for line in screen_of(app) if cells(line)[1:2] and cells(line)[1] in KINDS
                ]
                assert order[:2] == [PC.hex()[:8], BOX.hex()[:8]]
        shown = [column.name for column in NODES if not column.is_extra]
        assert [mark.strip("▲▼│") for mark in marks] == [
            (shown * 2)[1:][n % len(shown)] for n in range(len(NODES))
        ]
        await pilot.press("tab", "s")
        await pilot.pause()
        assert "seeders▼" in text_of(app)
        await pilot.press("tab", "s")
        await pilot.pause()
        assert "seeders▼" in text_of(app)

    run_top(FakeTracker(swarm_tracker()), SMALL, script)


def test_pause_holds_the_picture() -> None:
    fake = FakeTracker(swarm_tracker())

    async def run() -> None:
        app = TopApp(Feed(API, fake.transport()), interval_seconds=0.01)
        async with app.run_test(size=SMALL) as pilot:
            await pilot.press("p")
            asked = -1
            while asked != fake.asked:  # the look that was under way ends
                asked = fake.asked
                await pilot.pause(0.1)
            assert f"{API}  paused" in text_of(app)
            await pilot.pause(0.1)
            assert fake.asked == asked
            await pilot.press("p")
            while fake.asked <= asked + 6:
                await pilot.pause(0.01)
            assert f"{API}  live" in text_of(app)

    asyncio.run(run())


def test_help_opens_and_any_key_leaves_it() -> None:
    async def script(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        await app.poll()  # the picture below goes on
        await pilot.pause()
        assert "the other table" in text_of(app)
        await pilot.press("x")
        await pilot.pause()
        assert "the other table" not in text_of(app)
        assert PC.hex()[:8] in text_of(app)

    run_top(FakeTracker(swarm_tracker()), SMALL, script)


def test_q_quits() -> None:
    async def run() -> int | None:
        app = TopApp(Feed(API, FakeTracker(tracker()).transport()), interval_seconds=3600)
        async with app.run_test() as pilot:
            await pilot.press("q")
        return app.return_code

    assert asyncio.run(run()) == 0


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_tracker_that_is_away_is_said_and_asked_again(size: tuple[int, int]) -> None:
    fake = FakeTracker(swarm_tracker())

    async def script(app: TopApp, pilot: Pilot[None]) -> None:
        fake.is_on = False
        await app.poll()
        await pilot.pause()
        assert f"asking again: no tracker answers at {API}: Connection" in screen_of(app)[0]
        assert screen_of(app)[1].startswith(" viewers 3"), "the last known picture stays"
        assert PC.hex()[:8] in text_of(app)
        fake.is_on = True
        await app.poll()
        await pilot.pause()
        assert f"{API}  live" in screen_of(app)[0]

    run_top(fake, size, script)


def test_it_starts_without_a_tracker() -> None:
    fake = FakeTracker(swarm_tracker())
    fake.is_on = False

    async def script(app: TopApp, pilot: Pilot[None]) -> None:
        assert "no tracker answers" in screen_of(app)[0]
        await pilot.press("s", "tab", "s", "down")
        fake.is_on = True
        await app.poll()
        await pilot.pause()
        assert "viewers 3" in text_of(app)

    run_top(fake, SMALL, script)


def test_a_terminal_that_changes_size_is_refilled() -> None:
    async def script(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.resize_terminal(*LARGE)
        await pilot.pause()
        assert "software" in text_of(app)
        await pilot.resize_terminal(40, 10)
        await pilot.pause()
        assert "software" not in text_of(app)

    run_top(FakeTracker(swarm_tracker()), SMALL, script)
