"""Two engines over a bad network, in virtual time: no sockets, no trio."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.quic import QuicEngine
from shared.quic_settings import CONNECTION_WINDOW_BYTES, MAX_GAPS, configure
from tests.quic_pair import FAR, NEAR

SOME = random.Random(1).randbytes(3 << 20)


@dataclass
class Side:
    """One engine in virtual time and what arrived at it."""

    engine: QuicEngine
    received: bytearray = field(default_factory=bytearray)
    is_ready: bool = False
    is_at_end: bool = False

    def take_events(self) -> None:
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self.is_ready = True
            if isinstance(event, StreamDataReceived):
                self.received += event.data
                self.is_at_end |= event.end_stream
                self.engine.consume(event.stream_id, len(event.data))


SENDERS = (("far", 1), ("near", 1))  # whom each side hears


class World:
    """Two engines and a bad network, in virtual time; same seed, same course."""

    def __init__(self, seed: int, loss: float, doubled: float) -> None:
        self.now = 1000.0
        self._dice = random.Random(seed)
        self._loss, self._doubled = loss, doubled
        self._flying: list[tuple[float, int, bytes]] = []
        client = QuicEngine(NEAR, is_client=True, idle_timeout_seconds=30)
        client.connect(SENDERS[0], self.now)
        server = QuicEngine(
            FAR,
            is_client=False,
            idle_timeout_seconds=30,
            original_destination_connection_id=client.original_destination_connection_id,
        )
        self.sides = (Side(client), Side(server))
        self.bytes_out = 0

    def step(self, gated: bool) -> None:
        for index, side in enumerate(self.sides):
            datagrams = side.engine.datagrams(self.now, gated=gated)
            if side.engine.wants_turn:
                datagrams += side.engine.datagrams(self.now, gated=True, turn=True)
            for datagram, _ in datagrams:
                self.bytes_out += len(datagram)
                for _ in range(1 + (self._dice.random() < self._doubled)):
                    if self._dice.random() >= self._loss:
                        delay = 0.01 + self._dice.random() * 0.02  # enough to overtake one another
                        self._flying.append((self.now + delay, 1 - index, datagram))
            side.take_events()
        timers = [side.engine.get_timer() for side in self.sides]
        self.now = min([at for at, _, _ in self._flying] + [at for at in timers if at is not None])
        self.now += 1e-6
        self._arrive()
        for side, timer in zip(self.sides, timers, strict=True):
            if timer is not None and timer <= self.now:
                side.engine.handle_timer(self.now)

    def _arrive(self) -> None:
        landed = [flight for flight in self._flying if flight[0] <= self.now]
        self._flying = [flight for flight in self._flying if flight[0] > self.now]
        for _, index, datagram in sorted(landed):
            self.sides[index].engine.receive_datagram(datagram, SENDERS[index], self.now)
            self.sides[index].take_events()


@settings(deadline=None, max_examples=16)
@given(
    seed=st.integers(0, 1000), loss=st.sampled_from([0.0, 0.02, 0.15]), gated=st.booleans(),
    size=st.sampled_from([0, 1, 60_000, 400_000]),
)  # fmt: skip
def test_a_bad_network(seed: int, loss: float, gated: bool, size: int) -> None:
    """Whatever is lost, doubled or overtaken, gated or not: exactly what was written arrives."""
    world = World(seed, loss, doubled=0.05)
    client, server = world.sides
    has_written = False
    for _ in range(200_000):
        world.step(gated)
        if client.is_ready and not has_written:
            client.engine.send_stream_data(0, SOME[:size], end_stream=True)
            has_written = True
        if server.is_at_end:
            break
    assert server.received == SOME[:size]
    assert server.engine.peer_certificate == NEAR.certificate
    assert client.engine.peer_certificate == FAR.certificate


def test_a_gated_pass_carries_no_stream_data_even_with_an_acknowledgement_due() -> None:
    world = World(7, 0.0, 0.0)
    client, server = world.sides
    while not (client.is_ready and server.is_ready and client.engine._handshake_confirmed):
        world.step(gated=False)
    server.engine.send_stream_data(1, bytes(20_000))
    client.engine.send_stream_data(0, bytes(20_000))
    for _ in range(3):  # data comes in, so acknowledgements fall due at the client
        for datagram, _ in server.engine.datagrams(world.now, gated=False):
            client.engine.receive_datagram(datagram, SENDERS[0], world.now)
        world.now += 0.02
        client.engine.handle_timer(world.now)
        at_once = client.engine.datagrams(world.now, gated=True)
        assert at_once, "the acknowledgement does not wait"
        assert sum(len(datagram) for datagram, _ in at_once) < 200
        assert client.engine.wants_turn
    turn = client.engine.datagrams(world.now, gated=True, turn=True)
    assert [len(datagram) for datagram, _ in turn] == [1350]


def test_a_stream_full_of_holes_costs_the_connection() -> None:
    world = World(3, 0.0, 0.0)
    client, server = world.sides
    while not (client.is_ready and server.is_ready):
        world.step(gated=False)
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
