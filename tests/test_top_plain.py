"""`penstock top` without a screen, what it refuses, and how its cells are written."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import msgspec
import pytest

from shared.core.errors import ConfigError, LocalError, ProtocolError
from shared.core.ids import Kind
from tests.fake_tracker import API, AT, BOX, EDGE, PC, PHONE, FakeTracker, swarm_tracker
from tests.tracker_parts import NOW, announce, ask, entry, infohash, join, tracker
from tracker import api_client, commands, views
from tracker.portal import Portal
from tracker.tui import plain
from tracker.tui.columns import NODES, SWARMS, amount, bar
from tracker.tui.feed import Feed


def line_with(lines: list[str], text: str) -> str:
    (line,) = [line for line in lines if text in line]
    return line


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
    core = tracker(entry("a", EDGE, title="電影"), entry("b", EDGE, title="A film"), edges=frozenset({EDGE}))
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
        assert feed.api == API == api_client.DEFAULT_API


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
