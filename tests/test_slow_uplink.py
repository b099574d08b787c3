"""A download over a slow uplink: its acknowledgements keep to the gate, and it is never broken."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import trio

from shared.connection import Connection
from shared.core.errors import ConnectionLost
from shared.core.gate import TURN_BYTES, Gate, burst_for
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from tests.quic_pair import LOOPBACK, NEAR

SOURCES = 16
RATE = 30_000.0  # bytes/s: 400 kbit/s; the acknowledgements of so many sources would take twice that
WANTED = 512 * 1024  # from each


async def _give(endpoint: Endpoint) -> None:
    connection = await endpoint.accept()
    stream = connection.open_stream()
    with suppress(ConnectionLost):  # the test is over
        for _ in range(WANTED // 4096):
            await stream.send_all(bytes(4096))
            await trio.sleep(0.002)  # so that every source is owed as many acknowledgements as can be
        await connection.wait_closed()


async def _take(connection: Connection) -> None:
    stream = await connection.accept_stream()
    await stream.receive_exactly(WANTED)


async def _watch(endpoint: Endpoint, sent: list[tuple[float, int]]) -> None:
    while True:
        sent.append((trio.current_time(), endpoint.statistics().bytes_sent))
        await trio.sleep(0.05)


async def test_acknowledgements_of_many_sources_keep_to_the_gate_and_break_nothing() -> None:
    """Handshakes, acknowledgements and windows alone ask for more than the rate: no stretch holds more."""
    sent: list[tuple[float, int]] = []
    gate: Gate[Connection] = Gate(RATE)
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        near = await stack.enter_async_context(open_endpoint(NEAR, LOOPBACK, gate=gate))
        nursery.start_soon(_watch, near, sent)
        sources = []
        for _ in range(SOURCES):
            source = await stack.enter_async_context(open_endpoint(Identity.generate(), LOOPBACK))
            nursery.start_soon(_give, source)
            sources.append(source)
        with trio.fail_after(40):
            async with trio.open_nursery() as downloads:
                for source in sources:
                    connection = await near.connect(source.identity.id, source.local)
                    downloads.start_soon(_take, connection)
        nursery.cancel_scope.cancel()
    for begin, before in sent:
        for end, after in sent:
            if begin < end:
                assert after - before <= RATE * (end - begin) + burst_for(RATE) + TURN_BYTES
    assert sent[-1][1] > 1.2 * RATE  # there was more to send than a second lets through
