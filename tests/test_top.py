"""`penstock top`: the screen and its plain forms, over a tracker's API in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import msgspec
import pytest
from textual.geometry import Size
from textual.pilot import Pilot

from shared.core.errors import ConfigError, LocalError, ProtocolError
from shared.core.ids import Address, HostPort, Kind, Mode
from shared.core.messages import Report, Share
from tests.tracker_parts import NOW, TRACKER_ID, announce, ask, entry, infohash, join, node, tracker
from tracker import commands, views
from tracker.core.tracker import Tracker
from tracker.portal import Portal
from tracker.tui import feed as feeds
from tracker.tui import plain
from tracker.tui.columns import NODES, SWARMS, amount, bar
from tracker.tui.feed import Feed
from tracker.tui.screen import TopApp

EDGE, PC, BOX, PHONE = node("edge"), node("pc"), node("box"), node("phone")
AT = Address(TRACKER_ID, HostPort("192.0.2.7", 4430))
API = "http://127.0.0.1:8430"
EVIL = "[red]film[/red] [@click=quit]x[/]"
SMALL, LARGE = (80, 24), (200, 60)


def swarm_tracker() -> Tracker:
    """An edge, a PC that gives, a box that stalled, a phone that never reported; two swarms."""
    core = tracker(entry("film", EDGE), entry("evil", EDGE, title=EVIL))
    kinds = (("edge", Kind.EDGE), ("pc", Kind.PC), ("box", Kind.STB))
    for name, kind in kinds:
        join(core, name, kind, "north")
        ask(core, announce(infohash("film"), held=10 if kind is Kind.EDGE else 5), node(name))
    join(core, "phone", Kind.MOBILE, mode=Mode.DIRECT)
    ask(core, announce(infohash("evil")), EDGE)
    shares = (Share(EDGE, 30_000_000), Share(BOX, 90_000_000))
    ask(core, Report(500_000, 1_000_000, 1_000_000, 30_000_000, 90_000_000, 7_650_000, 1, 2, 0, shares), PC)
    ask(core, Report(250_000, 125_000, 0, 10_000, 20_000, 999_600, 1, 2, 3), BOX)
    return core


class FakeTracker:
    """Answers from a core; can be switched off, or answer something else."""

    def __init__(self, core: Tracker) -> None:
        self.core = core
        self.is_on = True
        self.body: bytes | None = None
        self.status = 200
        self.asked = 0

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        if not self.is_on:
            raise httpx2.ConnectError("Connection refused")
        if self.body is not None or self.status != 200:
            return httpx2.Response(self.status, content=self.body or b"")
        limit = int(request.url.params.get("limit", "0"))
        answers: dict[str, Callable[[], msgspec.Struct]] = {
            "/api/v1/overview": lambda: views.overview(self.core, AT, "penstock 1", NOW, NOW + 200),
            "/api/v1/nodes": lambda: views.node_page(self.core, 0, limit),
            "/api/v1/swarms": lambda: views.swarm_page(self.core, 0, limit),
        }
        return httpx2.Response(200, content=msgspec.json.encode(answers[request.url.path]()))

    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self.answer)


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


KINDS = {kind.value for kind in Kind}


def test_pause_holds_the_picture() -> None:
    fake = FakeTracker(swarm_tracker())

    async def run() -> None:
        app = TopApp(Feed(API, fake.transport()), interval_seconds=0.01)
        async with app.run_test(size=SMALL) as pilot:
            await pilot.press("p")
            await pilot.pause(0.1)
            assert f"{API}  paused" in text_of(app)
            asked = fake.asked
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
        assert PC.hex()[:8] in text_of(app), "the last known picture stays"
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


# -- plain forms ------------------------------------------------------------------------------


def test_once_prints_aligned_tables() -> None:
    text = plain.as_text(plain.look(API, FakeTracker(swarm_tracker()).transport()))
    lines = text.split("\n")
    assert lines[0] == str(AT)
    header = next(number for number, line in enumerate(lines) if line.startswith("node "))
    rows = lines[header + 1 : header + 5]
    assert sorted(rows) == rows
    assert {row[:8] for row in rows} == {n.hex()[:8] for n in (EDGE, PC, BOX, PHONE)}
    place = lines[header].index("down") + len("down")
    assert {row[:place].split()[-1] for row in rows} == {"8.00", "1.00", "-"}
    assert [line.split()[0] for line in lines if "Film" in line or "[red]" in line] == [
        "[red]film[/red]",
        "Film",
    ]


def test_wide_letters_keep_the_columns_straight() -> None:
    core = tracker(entry("a", EDGE, title="電影"), entry("b", EDGE, title="A film"))
    join(core, "edge", Kind.EDGE)
    for name in "ab":
        ask(core, announce(infohash(name)), EDGE)
    lines = plain.as_text(plain.look(API, FakeTracker(core).transport())).split("\n")
    one, two = line_with(lines, "a.mp4"), line_with(lines, "b.mp4")
    assert one.index("a.mp4") + len("電影") == two.index("b.mp4")


def test_json_is_the_api_in_one_line() -> None:
    core = swarm_tracker()
    app = Portal(core, AT, "penstock 1", NOW).app("127.0.0.1")
    line = plain.as_json(plain.look(API, httpx2.ASGITransport(app)))
    assert "\n" not in line
    seen = json.loads(line)
    assert set(seen) == {"overview", "nodes", "swarms"}
    assert seen["overview"]["offload"] == pytest.approx(0.75, abs=0.01)
    assert seen["nodes"]["nodes"] == msgspec.to_builtins(views.node_page(core, 0, 500).nodes)
    assert len(seen["swarms"]["swarms"]) == 2


@pytest.mark.parametrize(
    "change, error, says",
    [
        (
            {"is_on": False},
            LocalError,
            "no tracker answers at .*: Connection refused; start `penstock tracker`",
        ),
        ({"status": 500}, ProtocolError, "answered with status 500"),
        ({"status": 302}, ProtocolError, "answered with status 302"),
        ({"body": b"<html>"}, ProtocolError, "is not a tracker's API"),
        ({"body": b"[" * 100_000}, ProtocolError, "is not a tracker's API"),
        ({"body": b'{"address": 5}'}, ProtocolError, "is not a tracker's API"),
        ({"body": b'{"address": "\xff"}'}, ProtocolError, "is not a tracker's API"),
        ({"body": b" " * ((16 << 20) + 1)}, ProtocolError, "answered without end"),
    ],
    ids=["away", "failing", "elsewhere", "html", "nest", "type", "text", "endless"],
)
def test_what_is_no_tracker_is_said_in_one_line(
    change: dict[str, Any], error: type[Exception], says: str
) -> None:
    fake = FakeTracker(tracker())
    for name, value in change.items():
        setattr(fake, name, value)
    with pytest.raises(error, match=says) as raised:
        plain.look(API, fake.transport())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "api", ["", "ftp://x", "http://", "http://h/path", "http://h:x", "http://a b", "x\x1b"]
)
def test_an_api_that_is_no_address_is_refused(api: str) -> None:
    with pytest.raises(ConfigError, match="--api"):
        Feed(api)


async def test_a_bare_host_and_port_will_do() -> None:
    async with Feed("127.0.0.1:8430/") as feed:
        assert feed.api == API == feeds.DEFAULT_API


@pytest.mark.parametrize("once, as_json", [(True, False), (False, True)])
def test_the_command_says_that_nobody_answers(once: bool, as_json: bool) -> None:
    with pytest.raises(LocalError, match="no tracker answers at http://127.0.0.1:1: "):
        commands.top(api="http://127.0.0.1:1", once=once, json=as_json)


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan"), float("inf")])
def test_an_interval_that_is_none_is_refused(interval: float) -> None:
    with pytest.raises(ConfigError, match="--interval"):
        commands.top(interval=interval)


# -- cells ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, shown",
    [(0, "0"), (999, "999"), (1000, "1.0k"), (99_949, "99.9k"), (99_950, "100k"), (999_499, "999k"),
     (999_500, "1.0M"), (1_230_000_000, "1.2G"), (5e15, "5P")],
)  # fmt: skip
def test_amounts(size: float, shown: str) -> None:
    assert amount(size) == shown


@pytest.mark.parametrize(
    "share, shown",
    [
        (0, "░░░░░░░░░░   0%"),
        (0.999, "█████████░  99%"),
        (1, "██████████ 100%"),
        (7, "██████████ 100%"),
        (-1, "░░░░░░░░░░   0%"),
    ],
)
def test_a_bar_is_full_only_when_everything_is_there(share: float, shown: str) -> None:
    assert bar(share) == shown


def test_no_column_is_named_twice() -> None:
    for names in ([c.name for c in NODES], [c.name for c in SWARMS]):
        assert len(set(names)) == len(names)
