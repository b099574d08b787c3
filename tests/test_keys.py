"""1-RTT keys: changes from both sides, close together, on bad networks; forgeries without end."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import CipherSuite, Epoch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.path_mtu import LEAST_BYTES
from shared.quic import QuicEngine
from tests.engines import ADDRESSES, World

SOME = random.Random(6).randbytes(1 << 20)


def exchange(world: World, size: int, each_step: Callable[[], None] = lambda: None) -> bool:
    """Both sides send; whether both have all of it before anything ends."""
    for index, side in enumerate(world.sides):
        side.engine.send_stream_data(index, SOME[:size], end_stream=True)
    for _ in range(40_000):
        if all(side.is_at_end for side in world.sides):
            return all(bytes(side.received) == SOME[:size] for side in world.sides)
        if any(side.engine._close_event for side in world.sides):
            return False
        each_step()
        world.step()
    return False


def small(world: World) -> World:
    """Many packets for few bytes."""
    world.shake_hands()
    for side in world.sides:
        if isinstance(side.engine, QuicEngine):
            side.engine.limit_datagrams(LEAST_BYTES)
    return world


@settings(deadline=None, max_examples=5)
@given(
    seed=st.integers(0, 1000),
    loss=st.sampled_from([0.0, 0.05]),
    stock=st.sampled_from([(), (), ("client",), ("server",)]),
)
def test_keys_that_change_as_often_as_they_may(seed: int, loss: float, stock: tuple[str, ...]) -> None:
    """Both sides ask after every packet: all bytes arrive, in both directions, under many keys."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.quic.keys.PACKETS_PER_KEY", 1)
        world = small(World(seed, loss, doubled=0.02, stock=stock))
        keys = world.sides[0].engine._cryptos[Epoch.ONE_RTT]
        seen, sent, until = set(), 0, world.now + 3
        while world.now < until or any(len(side.received) < sent for side in world.sides):
            if world.now < until and sent + 2000 <= len(SOME):
                for index, side in enumerate(world.sides):
                    side.engine.send_stream_data(index, SOME[sent : sent + 2000])
                sent += 2000
            world.step()
            seen.add(keys.send.secret)
        assert [bytes(side.received) == SOME[:sent] for side in world.sides] == [True, True]
        assert len(seen) >= 3


def test_what_is_under_way_during_a_change_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the network loses nothing, changes of keys lose nothing either."""
    monkeypatch.setattr("shared.quic.keys.PACKETS_PER_KEY", 100)
    world = World(2, 0.0, 0.0)
    world.overtakes = False
    keys = small(world).sides[0].engine._cryptos[Epoch.ONE_RTT]
    seen = set()
    assert exchange(world, 1 << 20, lambda: seen.add(keys.send.secret))
    assert len(seen) >= 2
    assert [side.engine.figures().lost_datagrams for side in world.sides] == [0, 0]
    assert [side.engine._cryptos[Epoch.ONE_RTT].forged for side in world.sides] == [0, 0]


def test_bare_aioquic_stalls_when_changes_follow_each_other_at_once() -> None:
    """What the rule is for: two changes of which the peer saw neither."""
    world = World(3, 0.0, 0.0, stock=("client", "server"))
    world.shake_hands()
    for _ in range(2):
        world.sides[0].engine.request_key_update()
        world.sides[0].engine.send_ping(0)
        world.sides[0].send(world.now, gated=False)  # lost
    assert not exchange(world, 10_000)


def test_a_second_change_waits_until_the_peer_has_followed_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = small(World(4, 0.0, 0.0))
    monkeypatch.setattr("shared.quic.keys.PACKETS_PER_KEY", 1)
    client, server = (side.engine for side in world.sides)
    keys = client._cryptos[Epoch.ONE_RTT]
    world.passes = lambda datagram: False
    changes, present = 0, keys.send.secret
    for _ in range(20):  # nothing arrives any more: one change, whatever time passes
        client.send_ping(0)
        world.step()
        changes += keys.send.secret != present
        present = keys.send.secret
    assert changes <= 1
    world.passes = lambda datagram: True
    assert exchange(world, 50_000)
    assert server.ending is None


def test_small_messages_use_keys_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.quic.keys.PACKETS_PER_KEY", 50)
    world = small(World(5, 0.0, 0.0))
    keys = world.sides[0].engine._cryptos[Epoch.ONE_RTT]
    before = keys.send.secret
    for _ in range(400):  # some steps pass between two pings that leave
        world.sides[0].engine.send_ping(0)
        world.step()
    assert keys.send.secret != before


@pytest.mark.parametrize("suite", [CipherSuite.AES_128_GCM_SHA256, CipherSuite.CHACHA20_POLY1305_SHA256])
def test_forgeries_up_to_the_limit(suite: CipherSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs nothing but a number; at the limit the connection ends with the right code."""
    limits = {CipherSuite.AES_128_GCM_SHA256: "AES", CipherSuite.CHACHA20_POLY1305_SHA256: "CHACHA20"}
    monkeypatch.setattr(f"shared.quic.keys.FORGED_PACKETS_{limits[suite]}", 30)
    world = World(7, 0.0, 0.0)
    world.sides[1].engine._configuration.cipher_suites = [suite]
    world.shake_hands()
    server: Any = world.sides[1].engine
    for number in range(30):
        assert server.ending is None
        # Either key phase: that of the present keys, and that of the next.
        forged = bytes([0x40 | number]) + server.host_cid + bytes([number]) * 60
        world.sides[1].receive([forged], ADDRESSES[1], world.now)
    assert server.ending.error_code == QuicErrorCode.AEAD_LIMIT_REACHED
    world.step()
    world.step()
    assert world.sides[0].engine.ending.error_code == QuicErrorCode.AEAD_LIMIT_REACHED
