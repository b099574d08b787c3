"""`penstock place` as an operator meets it: against a running tracker, with edges that are connected."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio

from shared import cli, clock
from shared.core.errors import ConfigError, Reason
from shared.core.ids import Kind
from shared.core.messages import (
    Announce,
    Browse,
    Catalogue,
    Event,
    Load,
    Place,
    Placed,
    PlaceStage,
    Registered,
)
from shared.identity import Identity
from tests.tracker_client import Client, client_of, config_of, film_of, tracker_of
from tests.tracker_parts import infohash, register
from tracker.core import plans
from tracker.moment import parse_moment

NOW = 1_766_000_000.0  # 2025-12-17T19:33:20Z


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is Berlin's."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# -- moments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, at, said",
    [
        ("2026-12-24T20:00", 1_798_138_800, "2026-12-24 20:00 local time (CET, UTC+01:00)"),
        ("2026-07-01 20:00", 1_782_928_800, "2026-07-01 20:00 local time (CEST, UTC+02:00)"),
        ("2026-12-24T20:00+01:00", 1_798_138_800, "2026-12-24 20:00 UTC+01:00"),
        ("2026-12-24t19:00z", 1_798_138_800, "2026-12-24 19:00 UTC+00:00"),
        ("2026-12-24T13:30:01-05:30", 1_798_138_801, "2026-12-24 13:30:01 UTC-05:30"),
    ],
)
def test_a_moment_is_local_unless_it_says_otherwise(berlin: None, text: str, at: float, said: str) -> None:
    moment = parse_moment(text, "--before", NOW)
    assert (moment.at, moment.said) == (at, said)


@pytest.mark.parametrize(
    "text, says",
    [
        ("2025-12-17T20:33", "--before: 2025-12-17 20:33 local time (CET, UTC+01:00) is past"),
        ("2026-03-29T02:30", "does not exist in local time: clocks are changed then"),
        ("tomorrow", "is not a moment; write it such as 2026-12-24T20:00"),
        ("2026-12-24", "is not a moment; write it such as"),
        ("2026-13-24T20:00", "is not a moment: month must be in 1..12"),
        ("2026-12-24T20:00+99:00", "is not a moment"),
        ("2026-12-24T20:00 or so", "is not a moment"),
        ("٢٠٢٦-12-24T20:00", "is not a moment"),
        ("", "is not a moment"),
    ],
)
def test_what_is_no_moment_to_come_is_said(berlin: None, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_moment(text, "--before", NOW)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


# -- the command --------------------------------------------------------------------------------


def soon(hours: int = 1) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(hours=hours)


async def greet(edge: Client, quota: int) -> None:
    """An edge says how loaded it is."""
    await edge.say(Load(10_000_000, 0, quota, 0, int(clock.now() * 1000)))


def refused(moment: str) -> list[tuple[tuple[str, ...], int, str]]:
    """Wrong words, the status they end with, and a part of what is said."""
    return [
        (
            ("Film fil", "--before", moment),
            1,
            "there is no title 'Film fil' here; did you mean 'Film film'",
        ),
        (("Film film", "--before", "2020-01-01T00:00"), 2, "local time"),
        (("Film film",), 2, "--before: when must the title be there?"),
        (("Film film", "--before", moment, "--regions", "x"), 1, "no edge is in region 'x' now"),
        (("Film film", "--before", moment, "--regions", "x", "--edges", "1"), 2, "--edges: say how many"),
        (("Film film", "--before", moment, "--edges", "0"), 2, "--edges: expected a number from 1"),
        (("Film film", "--cancel", "--before", moment), 2, "--cancel: takes a plan back"),
        (("Film film", "--cancel", "--edges", "0"), 2, "--cancel: takes a plan back"),
        (("--edges", "0"), 2, "which title?"),
        (("--before", moment), 2, "which title?"),
    ]


async def test_a_title_is_placed_seen_cancelled_and_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The order reaches the edge, its progress is in the table, and whatever is wrong is one line."""
    identity, keeper = Identity.generate(), Identity.generate()
    async with (
        tracker_of(config_of(tmp_path, open_to_edges=True)) as ready,
        client_of(ready.address, Kind.EDGE, identity) as origin,
        client_of(ready.address, Kind.EDGE, keeper) as edge,
    ):

        async def run(*arguments: str) -> tuple[int, str, str]:
            api = ["--tracker-api", f"http://{ready.api}"]
            status = await trio.to_thread.run_sync(cli.main, ["place", *arguments, *api])
            return status, *capsys.readouterr()

        assert (await run())[1].startswith("no plans; penstock place")
        await origin.ask(register(1, film_of(identity)), Registered)
        await origin.say(Announce(infohash("film"), Event.STARTED, 10, 10, 7))
        await greet(origin, 0)
        await greet(edge, 1 << 40)
        await origin.ask(Browse(2), Catalogue)
        await edge.ask(Browse(2), Catalogue)

        moment = soon().isoformat()
        status, out, _ = await run("Film film", "--before", f"{moment}", "--edges", "1")
        assert status == 0
        assert out.startswith("Film film (")
        assert "will be on edges before" in out
        assert "UTC+00:00; orders begin at" in out

        # Ten minutes ahead there is no time to lose: the edge has its order within seconds.
        near = soon(0) + timedelta(minutes=10)
        assert "orders begin now" in (await run("Film film", "--before", near.isoformat()))[1]
        order = await edge.hear(Place)
        assert (order.infohash, order.before) == (infohash("film"), int(near.timestamp()))
        await edge.say(Placed(order.order, PlaceStage.FETCHING, 250, Reason.NONE))
        await edge.ask(Browse(3), Catalogue)
        head, first, second = (await run())[1].splitlines()
        assert head.split() == ["title", "before", "state", "edge", "region", "stage", "done"]
        assert first.split()[:2] == ["Film", "film"]
        assert [keeper.id.hex()[:16] in first, "fetching" in first, "25 %" in first] == [True] * 3
        assert "held (not planned)" in second
        await edge.say(Placed(order.order, PlaceStage.HELD, 1000, Reason.NONE))
        await edge.say(Announce(infohash("film"), Event.STARTED, 10, 10, 7))
        await edge.ask(Browse(4), Catalogue)
        (plan,) = json.loads((await run("--json"))[1])["plans"]
        assert (plan["state"], plan["release_at"]) == ("placed", near.timestamp())

        for arguments, status, says in refused(moment):
            got, out, error = await run(*arguments)
            assert (got, out, says in error) == (status, "", True), (arguments, got, error)
            assert error.startswith("penstock: error: ")
            assert error.count("\n") == 1

        assert "has no plan any more" in (await run("Film film", "--cancel"))[1]
        assert (await run("Film film", "--cancel"))[0] == 1
        assert (await run())[1].startswith("no plans")


async def test_a_plan_fires_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made before, stored, and carried out by the next process."""
    monkeypatch.setattr(plans, "LOOK_SECONDS", 0.5)
    identity, keeper = Identity.generate(), Identity.generate()
    config = config_of(tmp_path, open_to_edges=True)
    near = soon(0) + timedelta(minutes=10)
    async with (
        tracker_of(config) as ready,
        client_of(ready.address, Kind.EDGE, identity) as origin,
    ):
        await origin.ask(register(1, film_of(identity)), Registered)
        api = ["--tracker-api", f"http://{ready.api}"]
        command = ["place", "Film film", "--before", near.isoformat(), *api]
        assert await trio.to_thread.run_sync(cli.main, command) == 0
    async with (
        tracker_of(config) as ready,
        client_of(ready.address, Kind.EDGE, identity) as origin,
        client_of(ready.address, Kind.EDGE, keeper) as edge,
    ):
        await greet(origin, 0)
        await origin.say(Announce(infohash("film"), Event.STARTED, 10, 10, 7))
        await greet(edge, 1 << 40)
        order = await edge.hear(Place)
        assert (order.infohash, order.before) == (infohash("film"), int(near.timestamp()))
        assert [source.node for source in order.sources] == [identity.id]


def test_a_tracker_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert os.environ.get("PENSTOCK_TRACKER_API") is None
    assert cli.main(["place", "--tracker-api", "127.0.0.1:9"]) == 1
    error = capsys.readouterr().err
    assert "no tracker answers at http://127.0.0.1:9" in error
    assert error.count("\n") == 1
