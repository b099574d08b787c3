"""Redirects are logged with their grounds, replay to the same answer, and say why."""

from __future__ import annotations

from pathlib import Path
from random import Random

import msgspec
import pytest
from pytest import RaisesExc, RaisesGroup

from shared import clock
from shared.core.errors import LocalError
from shared.core.ids import Kind
from shared.core.messages import (
    Announce,
    Browse,
    Catalogue,
    Event,
    Load,
    Locate,
    Redirect,
    Registered,
    Why,
)  # fmt: skip
from shared.identity import Identity
from tests.tracker_client import client_of, config_of, film_of, tracker_of
from tests.tracker_parts import KEY, NOW, announce, ask, entry, infohash, join, node, orders, register
from tracker import redirect_log
from tracker.commands import explain as explain_command
from tracker.core.answers import Answer, Trace, replay
from tracker.core.explain import explain
from tracker.core.tracker import LogRedirect, Tracker, TrackerSettings
from tracker.redirect_log import RedirectLog
from tracker.server import serve

EDGES = frozenset(node(f"edge {number}") for number in range(4))
SWARM = infohash("film")


def busy_tracker() -> Tracker:
    """Boxes and PCs in two regions; four edges: one full, one draining, one without the film."""
    settings = TrackerSettings(edges=EDGES, log_redirects=True)
    core = Tracker(KEY, settings, [entry("film", node("edge 0"))], Random(7))
    for number in range(4):
        join(core, f"edge {number}", Kind.EDGE, "north")
        load = Load(10_000_000, 9_000_000 if number == 1 else 1_000_000, 0, 0, int(NOW * 1000), number == 2)
        ask(core, load, node(f"edge {number}"))
        if number < 3:
            ask(core, announce(SWARM, spare=7), node(f"edge {number}"))
    for number in range(30):
        name = f"peer {number}"
        join(core, name, Kind.STB if number % 3 else Kind.PC, "south" if number % 2 else "north")
        ask(core, announce(SWARM, spare=1 + number % 7), node(name))
    orders(core)
    return core


def answers(core: Tracker, count: int) -> list[Answer]:
    found = []
    for number in range(count):
        viewer = join(core, f"viewer {number}", Kind.MOBILE if number % 7 == 6 else Kind.PC, "north")
        logged = [one for one in ask(core, Locate(1, SWARM), viewer) if isinstance(one, LogRedirect)]
        found += [action.answer for action in logged]
    return found


def test_a_trace_replays_to_the_answer_that_was_given() -> None:
    """What `rank` and `pick` make of a logged trace, through its JSON, is the answer itself."""
    for number, answer in enumerate(answers(busy_tracker(), 30), 1):
        trace = msgspec.json.decode(msgspec.json.encode(answer.trace()), type=Trace)
        assert trace == answer.trace()
        assert trace.number == number
        chosen, connections = replay(trace)
        assert chosen == [(choice.node.hex(), choice.why) for choice in answer.choices]
        assert connections == answer.connections


def test_every_source_that_was_weighed_has_a_line_with_its_reason() -> None:
    core = busy_tracker()
    trace = answers(core, 13)[-1].trace()
    text = "\n".join(explain(trace))
    for weighed in [peer.node for peer in trace.peers] + [edge.node for edge in trace.edges]:
        assert weighed[:8] in text
    assert "promised to others" in text
    assert "draining" in text
    assert "a set-top box in another region" in text
    assert text.endswith("the same answer")


def test_an_answer_that_was_changed_is_noticed() -> None:
    trace = answers(busy_tracker(), 1)[0].trace()
    forged = msgspec.structs.replace(trace, chosen=trace.chosen[::-1])
    assert "answers otherwise" in "\n".join(explain(forged))


async def test_the_log_is_read_back_and_begun_anew_when_it_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "redirects.jsonl"
    log = RedirectLog(path)
    found = answers(busy_tracker(), 6)
    for answer in found[:4]:
        log.add(answer)
    await log.flush()
    assert list(redirect_log.read(path)) == [answer.trace() for answer in found[:4]]
    explain_command(path, redirect=2)
    assert capsys.readouterr().out.startswith("redirect 2: viewer ")
    with pytest.raises(LocalError, match="there is no redirect 9 in it"):
        explain_command(path, redirect=9)
    monkeypatch.setattr(redirect_log, "MAX_FILE_BYTES", path.stat().st_size)
    log.add(found[4])
    await log.flush()
    assert [trace.number for trace in redirect_log.read(path)] == [5]
    assert [trace.number for trace in redirect_log.read(tmp_path / "redirects.jsonl.1")] == [1, 2, 3, 4]


def test_a_log_that_cannot_be_written_or_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"tracker\.redirect_log: .* cannot be written"):
        RedirectLog(tmp_path / "none" / "log")
    with pytest.raises(LocalError, match="cannot be read"):
        list(redirect_log.read(tmp_path / "none"))


@pytest.mark.parametrize("line", [b"{}", b"[[[[", b"\xff", b'{"number": "x"}', b"null"])
def test_what_is_no_redirect_is_named_by_its_line(tmp_path: Path, line: bytes) -> None:
    good = msgspec.json.encode(answers(busy_tracker(), 1)[0].trace())
    path = tmp_path / "log"
    path.write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(LocalError, match="line 2 is not a redirect"):
        list(redirect_log.read(path))


def test_absurd_numbers_in_a_log_are_refused(tmp_path: Path) -> None:
    trace = answers(busy_tracker(), 1)[0].trace()
    for wrong in ({"connections": 0}, {"dice": (1.0, 0.0)}):
        path = tmp_path / "log"
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(trace, **wrong)))
        with pytest.raises(LocalError, match="out of range"):
            list(redirect_log.read(path))


async def test_a_running_tracker_logs_and_believes_its_region_table(tmp_path: Path) -> None:
    regions = tmp_path / "regions.csv"
    regions.write_text("127.0.0.0/8,cellar\n")
    log = tmp_path / "redirects.jsonl"
    identity = Identity.generate()
    config = config_of(tmp_path / "data", open_to_edges=True, regions=regions, redirect_log=log)
    async with (
        tracker_of(config) as ready,
        client_of(ready.address, Kind.EDGE, identity) as edge,
        client_of(ready.address) as viewer,
    ):
        await edge.ask(register(1, film_of(identity)), Registered)
        await edge.say(Load(10_000_000, 1_000_000, 0, 0, int(clock.now() * 1000)))
        await edge.say(Announce(SWARM, Event.STARTED, 10, 10, 7))
        await edge.ask(Browse(2), Catalogue)
        (source,) = (await viewer.ask(Locate(3, SWARM), Redirect)).sources
        assert source.region == "cellar"
    (trace,) = redirect_log.read(log)  # what waited was written at the end
    assert (trace.viewer, trace.region) == (viewer.id.hex(), "cellar")
    assert trace.chosen == [(edge.id.hex(), Why.EDGE_FIRST)]
    assert list(explain(trace))[-1].endswith("the same answer")


async def test_a_region_table_with_an_error_stops_the_start_with_its_line(tmp_path: Path) -> None:
    regions = tmp_path / "regions.csv"
    regions.write_text("127.0.0.0/8,cellar\nrubbish\n")
    error = RaisesExc(LocalError, match=rf"^tracker\.regions: {regions}: line 2: rubbish is not")
    with RaisesGroup(error, flatten_subgroups=True, allow_unwrapped=True):
        await serve(config_of(tmp_path / "data", regions=regions))
