"""Sealed datagrams between real programs: used when they get through, done without when they do not."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from shared.core.actions import Dial, Send
from shared.core.errors import Reason
from shared.core.ids import Address, HostPort, Kind, Mode, NodeId
from shared.core.messages import Hello, Locate, Message, Redirect, Report
from shared.core.sealed_link import LinkStatistics
from shared.endpoint import open_endpoint
from shared.identity import Identity
from shared.node import Introduction, Node, open_node
from shared.setting_types import HostPortText
from tests.tracker_client import config_of
from tests.tracker_parts import announce, entry, infohash
from tracker import server
from tracker.core.sealed import Sealed
from tracker.core.tracker import Tracker
from tracker.server import Ready, serve

FILM = entry("film", NodeId(bytes(32)))
SWARM = infohash("film")
REPORT = Report(1, 2, 3, 4, 5, 6, 7, 8, 9)


class Holder:
    """A core that dials a tracker and says what a test wants."""

    def __init__(self, tracker: Address) -> None:
        self.heard: list[Message] = []
        self.actions: deque[Any] = deque([Dial(tracker.node, tracker.at)])
        self.up = trio.Event()

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        self.up.set()

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None: ...

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        self.heard.append(message)

    def get_timer(self) -> float:
        return float("inf")

    def handle_timer(self, now: float) -> None: ...

    def next_action(self) -> Any:
        return self.actions.popleft() if self.actions else None


class Running:
    """A holder on an endpoint of its own, connected to a tracker."""

    def __init__(self, core: Holder, node: Node, tracker: Address) -> None:
        self.core, self.node, self.tracker = core, node, tracker

    def say(self, message: Message) -> None:
        self.core.actions.append(Send(self.tracker.node, message))
        self.node.pump()

    async def locate(self, request: int) -> Redirect:
        self.say(Locate(request, SWARM))
        with trio.fail_after(20):
            while True:
                for message in self.core.heard:
                    if isinstance(message, Redirect) and message.request == request:
                        return message
                await trio.sleep(0.01)

    def datagrams(self) -> LinkStatistics:
        (link,) = self.node._links.values()
        assert link.sealed is not None
        return link.sealed.link.statistics()

    async def sealed(self) -> None:
        """Waits until an announce went by datagram and was answered."""
        with trio.fail_after(20):
            while not self.datagrams().answered:
                self.say(announce(SWARM))
                await trio.sleep(0.05)


@asynccontextmanager
async def running(
    folder: Path, monkeypatch: pytest.MonkeyPatch, idle_timeout_seconds: float = 30.0, **changed: Any
) -> AsyncIterator[Any]:
    cores: list[Tracker] = []

    def made(key: Any, settings: Any, entries: Any, rng: Any) -> Tracker:
        cores.append(Tracker(key, settings, [FILM], rng))
        return cores[0]

    monkeypatch.setattr(server, "Tracker", made)
    async with trio.open_nursery() as nursery:
        ready: Ready = await nursery.start(partial(serve, config_of(folder, **changed)))
        host = "::1" if "[::]" in changed.get("listen", "") else "127.0.0.1"
        address = Address(ready.address.node, HostPort(host, ready.address.at.port))
        holder = Holder(address)
        introduction = Introduction(Kind.PC, Mode.SHARED, "", "test")
        async with (
            open_endpoint(Identity.generate(), host, idle_timeout_seconds=idle_timeout_seconds) as endpoint,
            open_node(endpoint, holder, introduction, lambda action: None, _no_stream) as node,
        ):
            with trio.fail_after(20):
                await holder.up.wait()
            yield Running(holder, node, address), cores[0]
        nursery.cancel_scope.cancel()


async def _no_stream(node: NodeId, stream: Any) -> None:
    raise AssertionError


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::]:0"])
async def test_asks_go_by_datagram_to_the_trackers_own_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listen: str
) -> None:
    async with running(tmp_path, monkeypatch, listen=HostPortText(listen)) as (client, core):
        await client.sealed()
        found = await client.locate(5)
        assert found.ticket
        assert [*core.nodes] and core.sealed.statistics()["redirects"] == 1
        assert (await client.locate(6)).ticket
        assert core.sealed.statistics()["redirects"] == core.statistics().redirects == 2
        assert client.datagrams().given_up == 0


async def test_where_they_are_not_wanted_the_connection_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, sealed_datagrams=False) as (client, core):
        assert (await client.locate(5)).ticket
        assert client.datagrams().asked == 0
        assert core.statistics().redirects == 1


async def test_where_they_do_not_get_through_the_connection_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as (client, core):
        await client.sealed()
        monkeypatch.setattr(Sealed, "answer", lambda self, batch, now, full: [])
        found = await client.locate(5)
        assert found.ticket
        assert client.datagrams().given_up == 1
        assert (await client.locate(6)).ticket


async def test_reports_keep_a_connection_alive_without_a_packet_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the idle time, while only reports are said; a node that says nothing is forgotten after it."""
    async with running(tmp_path, monkeypatch, idle_timeout_seconds=1.0) as (client, core):
        await client.sealed()
        connection = client.node.connection(client.tracker.node)
        connection._keep_alive_seconds = None
        for _ in range(10):
            client.say(REPORT)
            await trio.sleep(0.25)
        assert connection.is_established
        assert core.nodes
        assert core.sealed.statistics()["reports"] == 10
        with trio.fail_after(5):
            while core.nodes:  # noqa: ASYNC110
                await trio.sleep(0.05)
