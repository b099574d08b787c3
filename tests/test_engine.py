from __future__ import annotations

import random
from typing import Any, cast

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.rangeset import RangeSet
from aioquic.tls import CipherSuite, Epoch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.path_mtu import LEAST_BYTES
from shared.quic.recovery import Batch
from shared.quic_settings import CONNECTION_WINDOW_BYTES, MAX_GAPS, configure
from tests.engines import ADDRESSES, World
from tests.quic_pair import FAR, NEAR

SOME = random.Random(1).randbytes(3 << 20)


def deliver(world: World, size: int, gated: bool = False, steps: int = 200_000) -> None:
    """Write to both sides and go on until both have it."""
    wanted = [SOME[:size], SOME[-size:] if size else b""]
    written = [False, False]
    for _ in range(steps):
        world.step(gated)
        for index, side in enumerate(world.sides):
            if side.is_ready and not written[index]:
                side.engine.send_stream_data(index, wanted[index], end_stream=True)
                written[index] = True
        if all(side.is_at_end for side in world.sides):
            break
    assert bytes(world.sides[1].received) == wanted[0]
    assert bytes(world.sides[0].received) == wanted[1]


@settings(deadline=None, max_examples=24)
@given(
    seed=st.integers(0, 1000),
    loss=st.sampled_from([0.0, 0.02, 0.15]),
    gated=st.booleans(),
    size=st.sampled_from([0, 1, 1323, 60_000, 600_000]),
)
def test_a_bad_network(seed: int, loss: float, gated: bool, size: int) -> None:
    """Whatever is lost, doubled or overtaken, gated or not: exactly what was written arrives, both ways."""
    world = World(seed, loss, doubled=0.05)
    deliver(world, size, gated)
    client, server = world.sides
    assert server.engine.peer_certificate == NEAR.certificate
    assert client.engine.peer_certificate == FAR.certificate
    for side in world.sides:
        sent = [packet for space in side.engine._loss.spaces for packet in space.sent_packets.values()]
        left = [packet for packet in sent if packet.in_flight]
        assert side.engine._loss.bytes_in_flight == sum(packet.sent_bytes for packet in left)
        assert len({id(packet) for packet in left}) == len(left)


@settings(deadline=None, max_examples=16)
@given(
    seed=st.integers(0, 1000),
    loss=st.sampled_from([0.0, 0.05]),
    stock=st.sampled_from([("client",), ("server",)]),
)
def test_a_bad_network_with_bare_aioquic_at_one_end(seed: int, loss: float, stock: tuple[str, ...]) -> None:
    """Batches are packets like any others: aioquic itself reads them, and answers, over a bad network."""
    deliver(World(seed, loss, doubled=0.05, stock=stock), 300_000)


@settings(deadline=None, max_examples=16)
@given(seed=st.integers(0, 10_000))
def test_forgeries(seed: int) -> None:
    """Datagrams that are damaged or cut on the way are worth no more than lost ones."""
    world, dice = World(seed, 0.0, doubled=0.02), random.Random(seed)

    def mangle(datagram: bytes) -> bytes:
        if dice.random() > 0.04:
            return datagram
        if dice.random() < 0.3:
            return datagram[: dice.randrange(1, len(datagram))]
        at = dice.choice([0, 1, 9, 10, 11, 12, len(datagram) - 1, dice.randrange(len(datagram))])
        damaged = bytearray(datagram)
        damaged[min(at, len(datagram) - 1)] ^= 1 << dice.randrange(8)
        return bytes(damaged)

    world.mangle = mangle
    deliver(world, 300_000)


@pytest.mark.parametrize("suite", [CipherSuite.AES_256_GCM_SHA384, CipherSuite.CHACHA20_POLY1305_SHA256])
def test_other_ciphers(suite: CipherSuite) -> None:
    """AES-256 goes in batches, too; ChaCha20 goes the ordinary way."""
    world = World(6, 0.0, 0.0)
    world.sides[1].engine._configuration.cipher_suites = [suite]  # the server chooses
    batches = 0

    def count(batch: Batch, now: float) -> None:
        nonlocal batches
        batches += 1
        note(batch, now)

    note = world.sides[0].engine._note_batch
    world.sides[0].engine._note_batch = count
    deliver(world, 200_000)
    assert (batches > 0) == (suite is CipherSuite.AES_256_GCM_SHA384)


def test_an_acknowledgement_of_what_was_never_sent_costs_the_connection() -> None:
    world = World(8, 0.0, 0.0)
    world.shake_hands()
    client, server = world.sides
    space = client.engine._spaces[Epoch.ONE_RTT]
    space.ack_queue = RangeSet([range(0, 1 << 40)])
    space.largest_received_time = space.ack_at = world.now
    server.receive(client.send(world.now, gated=False), ADDRESSES[1], world.now)
    assert server.engine.ending.error_code == QuicErrorCode.PROTOCOL_VIOLATION
    assert "never sent" in server.engine.ending.reason_phrase


def test_a_batch_beyond_the_window_costs_the_connection() -> None:
    world = World(9, 0.0, 0.0)
    world.shake_hands()
    client, server = world.sides
    client.engine.send_stream_data(0, SOME)
    while server.engine.ending is None and world.now < 1060:
        stream = client.engine._streams[0]
        client.engine._remote_max_data = stream.max_stream_data_remote = 1 << 40
        server.engine.consume = lambda stream_id, count: False  # nobody reads
        world.step()
    assert server.engine.ending.error_code == QuicErrorCode.FLOW_CONTROL_ERROR


def test_a_gated_pass_carries_no_stream_data_even_with_an_acknowledgement_due() -> None:
    world = World(7, 0.0, 0.0)
    client, server = world.sides
    world.shake_hands()
    server.engine.send_stream_data(1, bytes(200_000))
    client.engine.send_stream_data(0, bytes(20_000))
    for _ in range(3):  # data comes in, so acknowledgements fall due at the client
        for datagram in server.send(world.now, gated=False):
            client.engine.receive_datagram(datagram, ADDRESSES[0], world.now)
        world.now += 0.02
        client.engine.handle_timer(world.now)
        at_once = client.send(world.now, gated=True)
        assert at_once, "the acknowledgement does not wait"
        assert sum(map(len, at_once)) < 200
        for datagram in at_once:
            server.engine.receive_datagram(datagram, ADDRESSES[1], world.now)
        assert client.engine.wants_turn
    with_a_turn = client.send(world.now, gated=True, turn=3)  # the first looks for the path's size
    assert [len(datagram) for datagram in with_a_turn] == [1350, LEAST_BYTES, LEAST_BYTES]
    with_a_turn = client.send(world.now, gated=True, turn=4)
    assert [len(datagram) for datagram in with_a_turn] == [LEAST_BYTES] * 4


def test_a_stream_full_of_holes_costs_the_connection() -> None:
    world = World(3, 0.0, 0.0)
    client, server = world.sides
    world.shake_hands()
    with pytest.raises(QuicConnectionError, match="holes"):
        for hole in range(1, 10_000, 2):
            frame = Buffer(capacity=8)
            frame.push_uint_var(0)
            frame.push_uint_var(hole)
            frame.push_uint_var(1)
            frame.push_bytes(b"x")
            frame.seek(0)
            server.engine._handle_stream_frame(cast(Any, None), 0x0E, frame)
    assert hole // 2 <= MAX_GAPS + 1
    assert configure(NEAR, True, 1.0).max_stream_data <= CONNECTION_WINDOW_BYTES


def test_an_acknowledgement_leaves_along_when_it_would_be_due_before_more_comes() -> None:
    world = World(11, 0.0, 0.0)
    client, server = world.sides
    world.shake_hands()
    space: Any = client.engine._one_rtt_space
    delay = client.engine._ack_delay
    server.engine.send_stream_data(1, bytes(200_000))
    world.now += 1.0
    client.send(world.now, gated=False)
    assert client.engine._one_rtt_space.ack_at is None
    due = []
    # None is pending; one is, and more would come too late for it; none is; more may come before it is due.
    for gap in (1.0, 0.6 * delay, 0.6 * delay, 0.3 * delay):
        world.now += gap
        client.receive(server.send(world.now, gated=True, turn=2), ADDRESSES[0], world.now)
        due.append(space.ack_at - world.now)
        if due[-1] <= 0:
            client.send(world.now, gated=False)
    assert due == [pytest.approx(delay), 0.0, pytest.approx(delay), pytest.approx(0.7 * delay)]
