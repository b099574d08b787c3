"""The tracker as it runs: real QUIC sessions over loopback, its database, its portal, its process."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
import trio
from cyclopts import App

from shared.config import load
from shared.connection import Connection, Stream
from shared.core import tickets
from shared.core.errors import ConnectionLost, LocalError, Reason, StoreError, StoreFull
from shared.core.ids import Address, HostPort, Kind, NodeId, parse_address
from shared.core.messages import (
    Announce,
    Browse,
    Catalogue,
    Describe,
    Entry,
    Event,
    Locate,
    Message,
    Redirect,
    Refusal,
    Registered,
    Report,
    Schedule,
)
from shared.core.session import Session
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.setting_types import HostPortText
from tests.tracker_parts import entry, hello, infohash, node, register
from tracker import commands, ledger
from tracker.config import TrackerConfig
from tracker.server import Ready, public_at, serve
from tracker.store import Store, open_store

ROOT = str(Path(__file__).parent.parent)
LOOPBACK = HostPortText("127.0.0.1:0")
SWARM = infohash("film")
T = TypeVar("T", bound=Message)


class Client:
    """A node that speaks the protocol by hand."""

    def __init__(self, endpoint: Endpoint, connection: Connection, control: Stream, session: Session) -> None:
        self.id: NodeId = endpoint.identity.id
        self.connection = connection
        self.control = control
        self._session = session
        self._heard: list[Message] = []

    async def say(self, message: Message) -> None:
        await self.control.send_all(self._session.send(message))

    async def hear(self, kind: type[T]) -> T:
        """The next message, which must be a `kind`."""
        while not self._heard:
            self._heard += self._session.receive(await self.control.receive_some())
        message = self._heard.pop(0)
        assert isinstance(message, kind)
        return message

    async def ask(self, message: Message, kind: type[T]) -> T:
        await self.say(message)
        return await self.hear(kind)


@asynccontextmanager
async def client_of(
    tracker: Address, kind: Kind = Kind.PC, identity: Identity | None = None
) -> AsyncIterator[Client]:
    with trio.fail_after(20):
        async with open_endpoint(identity or Identity.generate(), "127.0.0.1", 0) as endpoint:
            connection = await endpoint.connect(tracker.node, tracker.at)
            client = Client(endpoint, connection, connection.open_stream(), Session(kind))
            await client.say(hello(kind))
            theirs = await client.hear(type(hello(kind)))
            assert theirs.kind is Kind.TRACKER
            assert theirs.observed == str(endpoint.local)
            await client.hear(Schedule)
            yield client


def config_of(folder: Path, **changed: Any) -> TrackerConfig:
    return TrackerConfig(**{"listen": LOOPBACK, "api": LOOPBACK, "data": folder, **changed})


@asynccontextmanager
async def tracker_of(config: TrackerConfig) -> AsyncIterator[Ready]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(serve, config)
            nursery.cancel_scope.cancel()


def film_of(edge: Identity) -> Entry:
    return entry("film", edge.id)


# -- sessions ---------------------------------------------------------------------------------


async def test_an_edge_publishes_and_a_viewer_is_redirected_to_it(tmp_path: Path) -> None:
    edge_identity = Identity.generate()
    film = film_of(edge_identity)
    async with (
        tracker_of(config_of(tmp_path, edges=(edge_identity.id.hex(),))) as ready,
        client_of(ready.address, Kind.EDGE, edge_identity) as edge,
        client_of(ready.address) as viewer,
    ):
        assert (await edge.ask(register(5, film), Registered)).request == 5
        await edge.say(Announce(SWARM, Event.STARTED, 10, 10, 7))
        await edge.ask(Browse(6), Catalogue)  # the announce went before it

        assert (await viewer.ask(Describe(1, film.title_id), Catalogue)).entries == (film,)
        answer = await viewer.ask(Locate(2, SWARM), Redirect)
        (source,) = answer.sources
        assert (source.node, source.kind, answer.signer) == (edge.id, Kind.EDGE, edge.id)
        assert source.at.startswith("127.0.0.1:")
        tickets.check(
            answer.ticket, tracker=ready.address.node, viewer=viewer.id, infohash=SWARM, now=trio_wall_time()
        )

        # Somebody else who holds it is named, too, and gone when it is gone.
        async with client_of(ready.address) as holder:
            await holder.say(Announce(SWARM, Event.STARTED, 3, 10, 4))
            await holder.ask(Browse(1), Catalogue)
            sources = (await viewer.ask(Locate(3, SWARM), Redirect)).sources
            assert [s.node for s in sources] == [holder.id, edge.id]
        while len(sources) > 1:
            sources = (await viewer.ask(Locate(4, SWARM), Redirect)).sources
        assert [s.node for s in sources] == [edge.id]


def trio_wall_time() -> float:
    from shared import clock

    return clock.now()


async def test_titles_outlive_a_restart_and_the_id_stays(tmp_path: Path) -> None:
    config = config_of(tmp_path, open_to_edges=True)
    identity = Identity.generate()
    async with tracker_of(config) as before, client_of(before.address, Kind.EDGE, identity) as edge:
        await edge.ask(register(1, film_of(identity)), Registered)
    async with tracker_of(config) as after, client_of(after.address) as viewer:
        assert after.address.node == before.address.node
        assert (await viewer.ask(Browse(1), Catalogue)).entries == (film_of(identity),)


async def test_a_stranger_cannot_publish_and_stays_connected(tmp_path: Path) -> None:
    identity = Identity.generate()
    async with (
        tracker_of(config_of(tmp_path)) as ready,
        client_of(ready.address, Kind.EDGE, identity) as edge,
    ):
        answer = await edge.ask(register(1, film_of(identity)), Refusal)
        assert (answer.request, answer.reason) == (1, Reason.NOT_ALLOWED)
        assert (await edge.ask(Browse(2), Catalogue)).total == 0


@pytest.mark.parametrize(
    "failure, reason",
    [(StoreFull("the disk is full"), Reason.NO_SPACE), (StoreError("i/o error"), Reason.INTERNAL)],
)
async def test_a_title_that_cannot_be_stored_is_refused_and_can_be_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: StoreError,
    reason: Reason,
) -> None:
    async def fail(self: Store, entry: Entry) -> None:
        raise failure

    identity = Identity.generate()
    async with (
        tracker_of(config_of(tmp_path, open_to_edges=True)) as ready,
        client_of(ready.address, Kind.EDGE, identity) as edge,
    ):
        with monkeypatch.context() as patch, caplog.at_level(logging.CRITICAL):
            patch.setattr(Store, "store_title", fail)
            answer = await edge.ask(register(1, film_of(identity)), Refusal)
        assert (answer.request, answer.reason) == (1, reason)
        assert (await edge.ask(Browse(2), Catalogue)).total == 0
        await edge.ask(register(3, film_of(identity)), Registered)


async def test_an_edge_faster_than_the_disk_is_told_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "TITLES_WAITING", 2)
    identity = Identity.generate()
    release = trio.Event()
    store_title = Store.store_title

    async def slowly(self: Store, made: Entry) -> None:
        await release.wait()
        await store_title(self, made)

    monkeypatch.setattr(Store, "store_title", slowly)
    async with (
        tracker_of(config_of(tmp_path, open_to_edges=True)) as ready,
        client_of(ready.address, Kind.EDGE, identity) as edge,
    ):
        for number in range(1, 6):
            await edge.say(register(number, entry(number, identity.id)))
        refused = await edge.hear(Refusal)
        assert refused.reason is Reason.BUSY
        release.set()
        answers = [await edge.hear(Registered | Refusal) for _ in range(4)]  # type: ignore[arg-type]  # either
        stored = {answer.request for answer in answers if isinstance(answer, Registered)}
        assert (await edge.ask(Browse(9), Catalogue)).total == len(stored) >= 2


async def test_nodes_are_recorded(tmp_path: Path) -> None:
    stored: list[int] = []
    config = config_of(tmp_path)
    async with tracker_of(config) as ready, client_of(ready.address), client_of(ready.address, Kind.STB):
        while not stored:
            await trio.sleep(0.05)
            stored += [1] if (tmp_path / "tracker.db-wal").stat().st_size else []
    async with open_store(tmp_path / "tracker.db") as store:
        assert (await store.statistics()).nodes >= 1


async def test_bulk_streams_cost_the_connection(tmp_path: Path) -> None:
    async with tracker_of(config_of(tmp_path)) as ready:
        async with client_of(ready.address) as client:
            stream = client.connection.open_stream()
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            loss = await client.connection.wait_closed()
            assert loss.reason is Reason.UNEXPECTED
        async with client_of(ready.address) as other:
            assert (await other.ask(Browse(1), Catalogue)).total == 0


@pytest.mark.parametrize("junk", [b"\xff" * 8, b"\0\0\0\5hello", b"\0\0\0\x0bd0:i1e-6:ee"])
async def test_junk_on_the_control_stream_costs_the_connection(tmp_path: Path, junk: bytes) -> None:
    async with tracker_of(config_of(tmp_path)) as ready:
        async with client_of(ready.address) as client:
            await client.control.send_all(junk)
            loss = await client.connection.wait_closed()
            assert loss.reason in (Reason.MALFORMED, Reason.TOO_LARGE)
        async with client_of(ready.address) as other:
            assert (await other.ask(Browse(1), Catalogue)).total == 0


async def test_leaving_says_goodbye(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            ready = await nursery.start(serve, config_of(tmp_path))
            async with client_of(ready.address) as client:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    loss = await client.connection.wait_closed()
    assert isinstance(loss, ConnectionLost)
    assert loss.reason is Reason.SHUTDOWN


# -- portal and settings ----------------------------------------------------------------------


async def test_the_portal_shows_the_running_tracker(tmp_path: Path) -> None:
    async with (
        tracker_of(config_of(tmp_path)) as ready,
        client_of(ready.address) as peer,
        httpx2.AsyncClient(base_url=f"http://{ready.api}", trust_env=False) as portal,
    ):
        await peer.say(Report(1, 2, 3, 4, 5, 6, 7, 8, 9))
        await peer.ask(Browse(1), Catalogue)
        seen = (await portal.get("/api/v1/nodes")).json()["nodes"]
        assert [(n["id"], n["report"]["stalls"]) for n in seen] == [(peer.id.hex(), 9)]
        assert parse_address((await portal.get("/api/v1/overview")).json()["address"]) == ready.address


async def test_a_port_in_use_names_the_setting(tmp_path: Path) -> None:
    async with tracker_of(config_of(tmp_path / "a")) as ready:
        for setting, taken in (("listen", ready.address.at), ("api", ready.api)):
            config = config_of(tmp_path / setting, **{setting: HostPortText(str(taken))})
            with pytest.raises((LocalError, ExceptionGroup)) as raised:
                await serve(config)
            error: BaseException = raised.value
            while isinstance(error, BaseExceptionGroup):
                (error,) = error.exceptions
            assert isinstance(error, LocalError)
            assert f"tracker.{setting}" in str(error)


@pytest.mark.parametrize(
    "public, bound, expected",
    [
        (None, HostPort("127.0.0.1", 9), "127.0.0.1:9"),
        (None, HostPort("2001:db8::1", 9), "[2001:db8::1]:9"),
        ("tracker.example.org:443", HostPort("::", 9), "tracker.example.org:443"),
    ],
)
def test_the_address_that_others_dial(public: str | None, bound: HostPort, expected: str) -> None:
    config = TrackerConfig(public=HostPortText(public) if public else None)
    assert str(public_at(config, bound)) == expected


@pytest.mark.parametrize("bound", ["::", "0.0.0.0"])
def test_nobody_is_told_to_dial_a_wildcard(bound: str) -> None:
    assert public_at(TrackerConfig(), HostPort(bound, 9)).host not in ("::", "0.0.0.0")


def test_edges_are_named_by_id_or_address() -> None:
    one, two = node("one"), node("two")
    chosen = load(
        TrackerConfig, "tracker", None, {"edges": f"{one.hex()}, penstock://{two.hex()}@h:1"}, environ={}
    )
    assert chosen.edge_ids() == {one, two}
    with pytest.raises(LocalError, match=r"tracker: edges: 'abc' is not a node id"):
        load(TrackerConfig, "tracker", None, {"edges": "abc"}, environ={})
    assert replace_edges(chosen).edge_ids() == frozenset()


def replace_edges(config: TrackerConfig) -> TrackerConfig:
    return TrackerConfig(data=config.data)


# -- the process ------------------------------------------------------------------------------


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": ROOT}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def test_a_tracker_starts_without_a_terminal_view_and_commands_without_a_tracker() -> None:
    code = """
        import sys
        import tracker.commands
        heavy = {"textual", "starlette", "aioquic", "sqlite3", "httpx2", "rich.table"} & set(sys.modules)
        assert not heavy, heavy
        import tracker.server
        assert "aioquic" in sys.modules
        heavy = {"textual", "av"} & set(sys.modules)
        assert not heavy, heavy
    """
    done = run_python(code)
    assert done.returncode == 0, done.stderr


MAIN = """
    import sys
    from cyclopts import App
    from tracker import commands

    app = App(name="penstock", backend="trio")
    commands.register(app)
    app(sys.argv[1:])
"""


def test_the_command_says_one_line_and_ends_well_when_told_to(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(MAIN), "tracker", "--data", str(tmp_path)]
    command += ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        rest, errors = child.communicate(timeout=30)
    assert re.fullmatch(
        r"tracker ready penstock://[0-9a-f]{64}@127\.0\.0\.1:\d+ api http://127\.0\.0\.1:\d+\n", line
    )
    assert (child.returncode, rest) == (0, ""), errors
    printed = run_python(
        MAIN, "tracker", "--data", str(tmp_path), "--listen", "127.0.0.1:9", "--print-address"
    )
    assert parse_address(printed.stdout).node == parse_address(line.split()[2]).node
    assert parse_address(printed.stdout).at == HostPort("127.0.0.1", 9)


def test_the_settings_file_can_be_printed_and_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.tracker(print_config=True)
    path = tmp_path / "penstock.toml"
    path.write_text(capsys.readouterr().out)
    assert load(TrackerConfig, "tracker", path, environ={}) == load(
        TrackerConfig, "tracker", None, environ={}
    )


def test_both_commands_are_registered() -> None:
    app = App()
    commands.register(app)
    assert {"tracker", "top"} <= set(app)
