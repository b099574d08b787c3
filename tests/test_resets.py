from __future__ import annotations

import gc
import socket
import weakref
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import ConnectionLost, Reason
from shared.core.ids import HostPort
from shared.endpoint import open_endpoint
from shared.identity import Identity
from shared.quic import Resets
from shared.quic.resets import RESETS_A_SECOND, reset_token
from tests.engines import World
from tests.quic_pair import FAR, LOOPBACK, NEAR, ask, echo, joined
from tests.test_endpoint_hostile import until

KEY = b"k" * 32
ID = b"12345678"


@given(size=st.integers(0, 1500))
def test_a_reset_is_shorter_than_what_it_answers(size: int) -> None:
    """Two nodes without memory that answer each other fall silent; each reset ends in the token."""
    resets, datagram = Resets(KEY), b"\x40" + ID + bytes(size)
    for _ in range(60):
        reset = resets.answer(datagram, ID, 1.0)
        if reset is None:
            break
        assert 21 <= len(reset) < len(datagram)
        assert reset[0] & 0xC0 == 0x40
        assert reset[-16:] == reset_token(KEY, ID)
        datagram = reset
    else:
        pytest.fail("they never stop")


def test_resets_are_rationed() -> None:
    resets, datagram = Resets(KEY), b"\x40" + ID + bytes(100)
    first = [resets.answer(datagram, ID, 5.0) for _ in range(2 * RESETS_A_SECOND)]
    assert sum(reset is not None for reset in first) == RESETS_A_SECOND
    later = [resets.answer(datagram, ID, 5.1) for _ in range(2 * RESETS_A_SECOND)]
    assert sum(reset is not None for reset in later) == pytest.approx(RESETS_A_SECOND / 10, abs=1)


def test_tokens_follow_from_the_identity() -> None:
    again = Identity.of(FAR.private_key)
    assert again.reset_key == FAR.reset_key != NEAR.reset_key
    assert FAR.reset_key.hex() not in repr(FAR)


async def test_a_node_that_was_killed_and_started_again_is_missed_at_the_next_packet() -> None:
    """The old connection ends within a round trip of the first packet that the new process sees."""
    async with open_endpoint(NEAR, LOOPBACK, idle_timeout_seconds=60) as near:
        async with trio.open_nursery() as nursery, open_endpoint(FAR, LOOPBACK) as far:
            connection = await near.connect(FAR.id, far.local)
            nursery.start_soon(_echo_quietly, await far.accept())
            assert await ask(connection, b"before") == b"before"
            port = far.local.port
            far.shut_down = lambda: None  # type: ignore[method-assign]  # killed: no goodbye
            nursery.cancel_scope.cancel()
        assert connection.loss is None
        async with open_endpoint(FAR, LOOPBACK, port):
            with trio.fail_after(2), pytest.raises(ConnectionLost) as lost:
                stream = connection.open_stream()
                await stream.send_all(b"after")
                await stream.receive_some()
            assert lost.value.reason is Reason.TIMEOUT
            assert "started anew" in lost.value.detail
            assert near.statistics().connections == 0
            assert (await near.connect(FAR.id, HostPort(LOOPBACK, port))).peer == FAR.id


async def _echo_quietly(connection: Any) -> None:
    try:
        await echo(connection)
    except* ConnectionLost:
        pass


async def test_a_guessed_reset_ends_nothing() -> None:
    """Only the token of the id in use ends a connection: not of another node, not of another id, not cut."""
    async with joined() as pair:
        token = pair.near._engine.reset_token
        assert token == reset_token(FAR.reset_key, pair.near._engine._peer_cid.cid)
        other = reset_token(NEAR.reset_key, pair.near._engine._peer_cid.cid)
        await until(lambda: bool(pair.near._engine._peer_cid_available))
        spare = pair.near._engine._peer_cid_available[0].stateless_reset_token
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            for forged in (other, spare, token[:15], bytes(16)):
                target = (pair.near_endpoint.local.host, pair.near_endpoint.local.port)
                forger.sendto(b"\x41" + bytes(20) + forged, target)
            for seen in (pair.near._engine.host_cid, pair.far._engine.host_cid):  # in clear in every packet
                forger.sendto(seen, target)
            with trio.move_on_after(0.2):
                await pair.near.wait_closed()
            assert pair.near.loss is None
            forger.sendto(b"\x41" + bytes(20) + token, target)
            with trio.fail_after(2):
                await pair.near.wait_closed()


def test_a_connection_that_ended_is_freed_without_the_collector() -> None:
    world = World(seed=1, loss=0.0, doubled=0.0)
    world.shake_hands()
    gc.disable()
    try:
        engines = [weakref.ref(side.engine) for side in world.sides]
        for side in world.sides:
            side.engine.take_apart()
        del side, world
        assert [engine() for engine in engines] == [None, None]
    finally:
        gc.enable()
