"""The search for the path's datagram size: the decision in virtual time, and engines on paths."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.gate import HEADER_BYTES_V6, MAX_DATAGRAM_BYTES, TURN_BYTES
from shared.core.path_mtu import AGAIN_SECONDS, LEAST_BYTES, STEPS, TRIES, PathMtu
from tests.engines import ADDRESSES, World

SOME = random.Random(4).randbytes(1 << 20)


def search(path: PathMtu, carries: int, now: float = 0.0) -> list[int]:
    """Let it probe a path that carries so much until it rests; the probes' sizes."""
    probes: list[int] = []
    while (size := path.probe_bytes(now)) is not None:
        assert path.probe_bytes(now) == size, "asking changes nothing"
        path.probe_sent(size)
        assert path.probe_bytes(now) is None, "one at a time"
        probes.append(size)
        if size <= carries:
            path.probe_acked(size)
        else:
            path.probe_lost(size)
    return probes


@given(carries=st.integers(LEAST_BYTES, 20_000), most=st.integers(LEAST_BYTES, 10_000))
def test_the_search(carries: int, most: int) -> None:
    """It finds the largest step that path and limit allow, with three probes lost at most."""
    path = PathMtu(most)
    probes = search(path, carries)
    fitting = [step for step in STEPS if step <= min(carries, most)]
    assert path.size == max(fitting, default=LEAST_BYTES)
    assert sum(size > carries for size in probes) <= TRIES
    assert max(probes, default=0) <= most


def test_a_search_that_ended_is_taken_up_again_later() -> None:
    path = PathMtu()
    assert search(path, 1400) == [1350, *[1452] * TRIES]
    assert path.probe_bytes(1.0) is None
    assert search(path, 1500, AGAIN_SECONDS - 1) == []
    assert search(path, 1500, AGAIN_SECONDS + 1) == [1452, *[8900] * TRIES]
    assert path.size == 1452


def test_losses_of_large_packets_alone_are_a_black_hole() -> None:
    path = PathMtu()
    search(path, 1500)
    for number in (10, 20):
        path.large_lost(number)
    assert path.size == 1452
    path.large_lost(30)
    assert (path.size, path.probe_bytes(0.0)) == (LEAST_BYTES, STEPS[0])


def test_losses_that_a_later_large_packet_disproves_are_not() -> None:
    path = PathMtu()
    search(path, 1500)
    for number in range(0, 1000, 10):
        path.large_lost(number)
        path.large_lost(number + 1)
        path.large_acked(number + 2)
        path.large_lost(number)  # reported late
    assert path.size == 1452


def test_silence_is_a_black_hole_too() -> None:
    path = PathMtu()
    search(path, 1500)
    path.timed_out(1)
    assert path.size == 1452
    path.timed_out(2)
    assert path.size == LEAST_BYTES


def test_what_was_probed_on_another_path_says_nothing_of_this_one() -> None:
    path = PathMtu()
    path.probe_sent(1350)
    path.moved()
    path.probe_acked(1350)
    assert (path.size, path.probe_bytes(0.0)) == (LEAST_BYTES, 1350)


@pytest.mark.parametrize(("refused", "left"), [(8900, 1452), (1452, 1350), (1350, LEAST_BYTES)])
def test_what_the_system_refuses_is_not_tried_again_soon(refused: int, left: int) -> None:
    path = PathMtu()
    search(path, 9000)
    path.limit(refused)
    path.refused(refused)
    assert (path.size, path.probe_bytes(0.0)) == (left, None)
    assert path.probe_bytes(AGAIN_SECONDS + 1) is not None


def test_a_limit_bends_the_size_at_once_and_a_wider_one_lets_it_grow() -> None:
    path = PathMtu()
    search(path, 9000)
    path.limit(1452)
    assert path.size == 1452
    assert search(path, 9000) == []
    path.limit(8900)
    assert search(path, 9000) == [8900]


@dataclass
class Narrow:
    """A path in a `World` that swallows what is larger than it carries."""

    world: World
    carries: int
    swallowed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.passes = self._passes

    def _passes(self, datagram: bytes) -> bool:
        if len(datagram) <= self.carries:
            return True
        self.swallowed.append(len(datagram))
        return False


def deliver(world: World, size: int) -> None:
    """The client sends; go on until the server has all of it."""
    client, server = world.sides
    begun, stream_id = len(server.received), client.engine.get_next_available_stream_id()
    client.engine.send_stream_data(stream_id, SOME[:size], end_stream=True)
    for _ in range(100_000):
        if len(server.received) == begun + size:
            break
        world.step()
    assert bytes(server.received[begun:]) == SOME[:size]


@pytest.mark.parametrize(
    ("carries", "found"), [(1472, 1452), (1372, 1350), (1252, 1200), (1200, 1200), (65_000, 8900)]
)
def test_engines_find_the_size_of_the_path(carries: int, found: int) -> None:
    """Only probes are swallowed, and their loss takes nothing off the congestion window."""
    world = World(1, 0.0, 0.0)
    world.overtakes = False
    path = Narrow(world, carries)
    world.shake_hands()
    deliver(world, 200_000)
    client = world.sides[0].engine
    assert client.figures().datagram_bytes == client._max_datagram_size == found
    assert len(path.swallowed) <= TRIES
    assert client.figures().lost_datagrams == 0
    assert client._loss._cc.ssthresh is None  # Reno has seen no congestion
    assert client._loss.congestion_window > 100_000


def test_a_black_hole_that_appears_later() -> None:
    """Bytes go on arriving, in smaller datagrams, and the size follows what the path then carries."""
    world = World(2, 0.0, 0.0)
    path = Narrow(world, 1472)
    world.shake_hands()
    deliver(world, 100_000)
    path.carries, began = 1372, world.now
    deliver(world, 1 << 20)
    assert world.now - began < 10
    assert world.sides[0].engine.figures().datagram_bytes == 1350


def test_a_black_hole_while_small_packets_pass() -> None:
    """An answer to a PING after each loss of everything large is enough to notice."""
    world = World(3, 0.0, 0.0)
    path = Narrow(world, 1472)
    world.shake_hands()
    deliver(world, 100_000)
    path.carries = 1300
    client = world.sides[0].engine
    client.send_stream_data(8, SOME[:30_000])
    for _ in range(12):
        client.send_ping(1)
        for _ in range(4):
            world.step()
    assert client.figures().datagram_bytes == LEAST_BYTES


def test_a_client_that_moves_is_asked_anew() -> None:
    """To its new address the server sends what every path carries, until that path has been probed."""
    world = World(4, 0.0, 0.0)
    world.shake_hands()
    server = world.sides[1].engine
    server.send_stream_data(1, SOME[:300_000])
    while server.figures().datagram_bytes < 1452:
        world.step()
    path = Narrow(world, 1372)
    world.addresses[1] = ("near", 2)  # whom the server hears
    for _ in range(1000):
        world.step()
        if len(world.sides[0].received) == 300_000:
            break
    assert bytes(world.sides[0].received) == SOME[:300_000]
    assert server.get_peer_address() == ("near", 2)
    assert server.figures().datagram_bytes <= 1350
    assert ADDRESSES[1] == ("near", 1)
    assert len(path.swallowed) < 400


def test_no_turn_at_the_gate_carries_more_than_it_pays_for() -> None:
    """From the first turn on no datagram is above what a turn is charged for, even if larger ones pass."""
    world = World(6, 0.0, 0.0)
    world.shake_hands()
    deliver(world, 100_000)
    client = world.sides[0].engine
    assert client.figures().datagram_bytes == 8900
    sent: list[int] = []

    def note(datagram: bytes) -> bool:
        sent.append(len(datagram))
        return True

    world.passes = note
    client.send_stream_data(4, SOME[:400_000])
    for _ in range(40):
        world.step(gated=True)
    assert max(sent) == MAX_DATAGRAM_BYTES == TURN_BYTES - HEADER_BYTES_V6


def test_an_idle_connection_does_not_probe() -> None:
    world = World(5, 0.0, 0.0)
    world.shake_hands()
    sent: list[int] = []

    def note(datagram: bytes) -> bool:
        sent.append(len(datagram))
        return True

    world.passes = note
    world.sides[0].engine.send_ping(1)
    for _ in range(6):
        world.step()
    assert sent
    assert max(sent) <= LEAST_BYTES
