"""One port, several endpoints: each datagram reaches the endpoint that its connection id names."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from edge.core.admission import MAX_WORKERS
from shared import clock
from shared.core.ids import HostPort
from shared.endpoint import Endpoint, open_endpoint
from shared.quic import QuicEngine
from shared.reception import Reception
from shared.sockets import destination
from shared.steering import ALONE, LEAD_BERTH, Berth, berth_of, bind_group, steer
from tests.moving_relay import MovingRelay
from tests.quic_pair import FAR, LOOPBACK, NEAR, ask, echo

BERTHS = 5
MAX_BERTHS = 1 + 2 * MAX_WORKERS  # the lead's, and two a worker


@given(berths=st.integers(2, MAX_BERTHS), seed=st.integers(0, 1 << 32), data=st.data())
def test_a_marked_id_names_its_berth_and_changes_nothing_else(
    berths: int, seed: int, data: st.DataObject
) -> None:
    """Whatever the random id: marked, it is its berth's and no other's, and all else in it is as it was."""
    number = data.draw(st.integers(0, berths - 1))
    plain = Random(seed).randbytes(8)
    marked = Berth(number, berths).mark(plain)
    assert [other for other in range(berths) if Berth(other, berths).owns(marked)] == [number]
    assert marked[1:] == plain[1:]


@pytest.mark.parametrize("berths", [2, 3, 5, 17, MAX_BERTHS])
def test_marking_leaves_all_the_chance_that_there_is(berths: int) -> None:
    for number in range(1, berths):
        reached = {Berth(number, berths).mark(bytes([first]))[0] for first in range(256)}
        assert reached == {first for first in range(256) if berth_of(bytes([first]), berths) == number}


def test_a_process_that_is_alone_marks_nothing() -> None:
    assert [ALONE.mark(bytes([first])) for first in range(256)] == [bytes([first]) for first in range(256)]
    assert all(ALONE.owns(bytes([first])) for first in range(256))


def test_a_retry_invites_to_the_berth_that_sent_it() -> None:
    berth = Berth(3, BERTHS)
    reception = Reception(
        max_connections=9, max_half_open=9, retry_above=0, reset_key=NEAR.reset_key, mark=berth.mark
    )
    for _ in range(50):
        reply = reception.judge(_initial(), (LOOPBACK, 1), clock.now(), connections=0, half_open=1)
        assert isinstance(reply, bytes)
        to_end = 6 + reply[5]
        assert berth.owns(reply[to_end + 1 : to_end + 1 + reply[to_end]])


def _initial() -> bytes:
    client = QuicEngine(NEAR, is_client=True, idle_timeout_seconds=30)
    client.connect((LOOPBACK, 1), clock.now())
    return client.datagrams_to_send(clock.now())[0][0]


def _datagrams(dice: Random, count: int) -> list[bytes]:
    """Long headers with ids of 8 to 20 bytes, and short headers."""
    long = [
        bytes([0x80 | dice.randrange(128), 0, 0, 0, 1, length]) + dice.randbytes(length + 30)
        for length in (dice.randint(8, 20) for _ in range(count))
    ]
    return long + [bytes([dice.randrange(128)]) + dice.randbytes(40) for _ in range(count)]


@pytest.mark.parametrize(
    ("host", "dialled"), [("127.0.0.1", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")]
)
async def test_the_kernel_steers_every_datagram_by_its_connection_id(host: str, dialled: str) -> None:
    """No datagram arrives at a socket but that of its id's berth, whichever port it comes from."""
    sockets = await bind_group(HostPort(host, 0), "listen", BERTHS)
    at = (dialled, sockets[0].getsockname()[1])
    astray = received = 0
    family = socket.AF_INET6 if ":" in dialled else socket.AF_INET
    for round_number in range(10):  # each from another port: a hash of the addresses would differ
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            for datagram in _datagrams(Random(round_number), 100):
                sender.sendto(datagram, at)
        for number, sock in enumerate(sockets):
            for datagram in _pending(sock):
                received += 1
                astray += berth_of(destination(datagram), BERTHS) != number
    for sock in sockets:
        sock.close()
    assert (astray, received) == (0, 2000)


def _pending(sock: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(sock.recv(65536))
        except BlockingIOError:
            return found


async def test_another_socket_stands_for_a_berth_that_has_no_process() -> None:
    sockets = await bind_group(HostPort("127.0.0.1", 0), "listen", BERTHS)
    steer(sockets[0], [1, 1, 2, 2, 2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for first in range(256):
            sender.sendto(bytes([0x40, first]) + bytes(20), sockets[0].getsockname())
    firsts = [{datagram[1] for datagram in _pending(sock)} for sock in sockets]
    for sock in sockets:
        sock.close()
    at_one = {first for first in range(256) if berth_of(bytes([first]), BERTHS) in (LEAD_BERTH, 1)}
    assert firsts == [set(), at_one, set(range(256)) - at_one, set(), set()]


@dataclass(frozen=True, slots=True)
class Harbour:
    """Endpoints that share a port and an identity."""

    endpoints: list[Endpoint]

    @property
    def at(self) -> HostPort:
        return self.endpoints[0].local

    def unwanted(self) -> int:
        return sum(one.statistics().unwanted_datagrams for one in self.endpoints)

    def astray(self) -> int:
        return sum(one.statistics().astray_datagrams for one in self.endpoints)


@asynccontextmanager
async def harbour(berths: int = 3) -> AsyncIterator[Harbour]:
    """An endpoint at every berth but the lead's, all of them echoing; the first stands for the lead, too."""
    sockets = await bind_group(HostPort(LOOPBACK, 0), "listen", berths)
    steer(sockets[0], [1, *range(1, berths)])
    with sockets[0]:
        async with AsyncExitStack() as stack:
            opened = [
                open_endpoint(FAR, sock=sockets[number], berth=Berth(number, berths))
                for number in range(1, berths)
            ]
            endpoints = [await stack.enter_async_context(one) for one in opened]
            async with trio.open_nursery() as nursery:
                for endpoint in endpoints:
                    nursery.start_soon(_echo_all, endpoint)
                yield Harbour(endpoints)
                nursery.cancel_scope.cancel()


async def _echo_all(endpoint: Endpoint) -> None:
    async def serve() -> None:
        try:
            await echo(connection)
        except* Exception:  # the near side is done
            pass

    async with trio.open_nursery() as nursery:
        while True:
            connection = await endpoint.accept()
            nursery.start_soon(serve)


async def test_connections_of_one_port_meet_their_own_endpoint_and_only_that() -> None:
    question = Random(1).randbytes(300_000)
    async with harbour() as port, open_endpoint(NEAR, LOOPBACK) as near:
        for _ in range(40):
            connection = await near.connect(FAR.id, port.at)
            assert await ask(connection, question[: Random(2).randint(1, 9000)])
        assert await ask(connection, question) == question
        counts = [one.statistics().connections for one in port.endpoints]
        assert sum(counts) == 40
        assert min(counts) >= 5  # each endpoint gets its part
        assert port.unwanted() == 0


async def test_a_client_that_changes_its_port_stays_with_its_endpoint() -> None:
    """The ids that the client turns to after its move name the berth as well."""
    async with harbour() as port, trio.open_nursery() as nursery:
        for seed in range(6):
            relay = MovingRelay(port.at)
            nursery.start_soon(relay.run)
            async with open_endpoint(NEAR, LOOPBACK) as near:
                connection = await near.connect(FAR.id, relay.at)
                assert await ask(connection, b"before") == b"before"
                connection._engine.change_connection_id()
                relay.move()
                await trio.testing.wait_all_tasks_blocked()
                answer = Random(seed).randbytes(20_000)
                with trio.fail_after(5):
                    assert await ask(connection, answer) == answer
        assert port.astray() == 0
        nursery.cancel_scope.cancel()


async def test_strangers_are_passed_on_and_answered_by_another() -> None:
    """An endpoint that passes strangers on keeps its connections, and the next one takes all the new ones."""
    async with harbour() as port, open_endpoint(NEAR, LOOPBACK) as near:
        leaving, staying = port.endpoints
        kept = []
        while leaving.statistics().connections < 2:
            kept.append(await near.connect(FAR.id, port.at))
            assert await ask(kept[-1], b"here") == b"here"
        leaving.pass_on = staying.take
        for _ in range(20):
            kept.append(await near.connect(FAR.id, port.at))
        for connection in kept:
            assert await ask(connection, b"still there") == b"still there"
        assert leaving.statistics().connections == 2
        assert staying.statistics().connections == len(kept) - 2
        assert port.unwanted() == 0


async def test_astray_datagrams_are_counted() -> None:
    async with harbour() as port, trio.open_nursery():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(bytes([0x40, 0]) + bytes(40), (port.at.host, port.at.port))
        await trio.sleep(0.1)
        assert port.astray() == 1
