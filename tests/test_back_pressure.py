"""What a reader that sleeps, and a peer that never acknowledges, can make us hold."""

from __future__ import annotations

import random
from typing import Any

import trio
from aioquic.quic.packet import QuicErrorCode

from shared.quic.recovery import MAX_KEPT_ACKS
from shared.quic_settings import CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES
from tests.engines import World
from tests.quic_pair import joined, read_all

SOME = random.Random(8).randbytes(1 << 20)
STREAMS = 6


async def test_a_reader_that_sleeps_is_sent_a_window_and_no_more() -> None:
    """Six streams of a MiB each: no more than the windows arrives until somebody reads, then all of it."""
    async with joined() as pair, trio.open_nursery() as nursery:

        async def write() -> None:
            stream = pair.near.open_stream()
            await stream.send_all(SOME)
            stream.send_eof()

        for _ in range(STREAMS):
            nursery.start_soon(write)
        with trio.fail_after(20):
            streams = [await pair.far.accept_stream()]
            before, received = -1, 0
            while received > before:  # until nothing more comes
                await trio.sleep(0.2)
                before, received = received, pair.far.statistics().bytes_received
        held = sum(stream.receiver.highest_offset for stream in pair.far._engine._streams.values())
        assert STREAM_WINDOW_BYTES <= held <= CONNECTION_WINDOW_BYTES
        assert received < 1.1 * CONNECTION_WINDOW_BYTES
        with trio.fail_after(20):
            streams += [await pair.far.accept_stream() for _ in range(STREAMS - 1)]
            read: list[bytes] = []

            async def read_one(stream: Any) -> None:
                read.append(await read_all(stream))

            async with trio.open_nursery() as readers:
                for stream in streams:
                    readers.start_soon(read_one, stream)
            assert read == [SOME] * STREAMS


def deaf(engine: Any) -> None:
    """The engine acknowledges nothing any more."""
    engine._write_ack_frame = lambda builder, space, now: setattr(space, "ack_at", None)
    engine._send_ack = lambda now, out: False


def test_a_peer_that_never_acknowledges_is_left_in_the_end() -> None:
    """It keeps the connection from idling by PINGs; what we hold stays bounded, and the code says why."""
    world = World(1, 0.0, 0.0)
    world.shake_hands()
    client, server = world.sides
    deaf(client.engine)
    server.engine.send_stream_data(1, SOME)
    held, steps, pinged_at = 0, 0, world.now
    while server.engine.ending is None and world.now < 1300 and steps < 20_000:
        if world.now > pinged_at + 0.5:
            pinged_at = world.now
            client.engine.send_ping(1)
        world.step()
        steps += 1
        held = max(held, len(server.engine._one_rtt_space.sent_packets))
    assert server.engine.ending.error_code == QuicErrorCode.NO_VIABLE_PATH
    assert world.now - 1000 < 120
    assert held <= MAX_KEPT_ACKS + 100


def test_acknowledgements_that_nobody_acknowledges_are_not_kept() -> None:
    world = World(2, 0.0, 0.0)
    world.shake_hands()
    client, server = world.sides
    deaf(client.engine)
    for _ in range(3 * MAX_KEPT_ACKS):
        client.engine.send_ping(1)
        world.step()
        world.now += 0.02
        world.step()
    kept = server.engine._one_rtt_space.sent_packets.values()
    assert sum(not packet.in_flight for packet in kept) <= MAX_KEPT_ACKS


def test_a_side_that_never_reads_holds_a_window() -> None:
    """Stock aioquic doubles its windows as bytes arrive; here they stand still."""
    world = World(3, 0.0, 0.0, stock=("client",))
    world.shake_hands()
    client, server = world.sides
    server.reads = False
    for stream_id in (0, 4, 8, 12):
        client.engine.send_stream_data(stream_id, SOME)
    for _ in range(300):
        world.step()
    assert all(len(received) <= STREAM_WINDOW_BYTES for received in server.streams.values())
    assert len(server.received) <= CONNECTION_WINDOW_BYTES
    assert server.engine.ending is None


def test_a_window_update_that_the_pacer_holds_back_leaves_in_time() -> None:
    """A reader that caught up when its own burst was just spent would else leave the sender blocked."""
    world = World(1, 0.0, 0.0)
    world.shake_hands()
    reader, sender = world.sides
    reader.reads = False
    stream_id = sender.engine.get_next_available_stream_id()
    sender.engine.send_stream_data(stream_id, bytes(3_000_000))
    engine = reader.engine
    while (
        len(reader.received) < STREAM_WINDOW_BYTES
        or sender.engine._loss.bytes_in_flight
        or engine._one_rtt_space.ack_at is not None
    ):
        world.step()
    engine._pacer._pacer.spend(engine._pacer._pacer.allowance(world.now) * 1500 + 1500, world.now)
    assert engine.consume(stream_id, len(reader.received))
    assert not reader.send(world.now, gated=False)
    assert engine.paced_until is not None and engine.paced_until < world.now + 1
