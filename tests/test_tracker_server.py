"""The tracker as it runs: real QUIC sessions over loopback, its database, its portal, its process."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import trio

from shared import clock
from shared.core import tickets
from shared.core.errors import LocalError, Reason, StoreError, StoreFull
from shared.core.ids import HostPort, Kind, parse_address
from shared.core.messages import (
    Announce,
    Browse,
    Catalogue,
    Describe,
    Entry,
    Event,
    Locate,
    Redirect,
    Refusal,
    Registered,
    Report,
)
from shared.identity import Identity
from shared.setting_types import HostPortText
from tests.tracker_client import client_of, config_of, film_of, tracker_of
from tests.tracker_parts import entry, infohash, register
from tracker import ledger
from tracker.core.nodes import Node
from tracker.server import Ready, serve
from tracker.store import Store, open_store

SWARM = infohash("film")


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
            answer.ticket, tracker=ready.address.node, viewer=viewer.id, infohash=SWARM, now=clock.now()
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


async def test_a_listener_on_all_addresses_names_ipv4_nodes_as_ipv4(tmp_path: Path) -> None:
    edge_identity = Identity.generate()
    listen = HostPortText("[::]:0" if socket.has_ipv6 else "0.0.0.0:0")
    async with tracker_of(config_of(tmp_path, open_to_edges=True, listen=listen)) as ready:
        near = replace(ready.address, at=HostPort("127.0.0.1", ready.address.at.port))
        async with client_of(near, Kind.EDGE, edge_identity) as edge, client_of(near) as viewer:
            await edge.ask(register(1, film_of(edge_identity)), Registered)
            await edge.say(Announce(SWARM, Event.STARTED, 10, 10, 7))
            await edge.ask(Browse(2), Catalogue)
            (source,) = (await viewer.ask(Locate(3, SWARM), Redirect)).sources
            assert source.at.startswith("127.0.0.1:")


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
        await edge.say(Browse(9))
        heard = [await edge.hear_any() for _ in range(5)]
        assert sum(isinstance(answer, Registered) for answer in heard) >= 2
        assert sum(isinstance(answer, Refusal | Registered) for answer in heard) == 4


async def test_nodes_are_recorded_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = trio.Event()
    store_nodes = Store.store_nodes

    async def store_and_tell(self: Store, nodes: Sequence[Node]) -> None:
        await store_nodes(self, nodes)
        written.set()

    monkeypatch.setattr(Store, "store_nodes", store_and_tell)
    async with tracker_of(config_of(tmp_path)) as ready, client_of(ready.address, Kind.STB):
        await written.wait()
    async with open_store(tmp_path / "tracker.db") as store:
        assert (await store.statistics()).nodes == 1


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
    running = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[Ready]) -> None:
        with running:
            await serve(config_of(tmp_path), task_status=task_status)

    async with trio.open_nursery() as nursery:
        ready = await nursery.start(run)
        async with client_of(ready.address) as client:
            running.cancel()
            loss = await client.connection.wait_closed()
    assert loss.reason in (Reason.SHUTDOWN, Reason.NONE)  # a goodbye, and not a timeout


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


async def test_two_trackers_cannot_share_a_folder(tmp_path: Path) -> None:
    async with tracker_of(config_of(tmp_path)):
        with pytest.raises(LocalError, match=r"tracker\.data: .* is in use by another process"):
            await serve(config_of(tmp_path))
