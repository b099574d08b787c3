"""Penstock at both ends: `shared.endpoint`, every leaf verified as it arrives."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from benchmarks.data.orders import Order, Outcome, Ready, play, say
from benchmarks.data.readings import (
    BLOCK_BYTES,
    LeafCheck,
    Reading,
    Tally,
    block,
    resident_bytes,
)
from shared.connection import Connection
from shared.core.errors import RemoteError
from shared.core.ids import HostPort, NodeId
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.stream import Stream

WRITE_BYTES = 1 << 20
READ_BYTES = 1 << 18
IN_FLIGHT = 16  # streams per connection, if there is one per request
DIALS_AT_ONCE = 32  # below the count of half-open connections from which a Retry is asked
MAX_CONNECTIONS = 16384
IDLE_SECONDS = 60.0
_ENDLESS = 1 << 62


async def send(order: Order) -> None:
    """Answer every request with as many bytes as it asks for, until killed."""
    identity = Identity.generate()
    async with open_endpoint(
        identity, order.host, max_connections=MAX_CONNECTIONS, idle_timeout_seconds=IDLE_SECONDS
    ) as endpoint:
        endpoint.set_rate(order.rate)
        say(Ready(endpoint.local.port, os.getpid(), identity.id.hex()))
        await serve_forever(endpoint)


async def serve_forever(endpoint: Endpoint) -> None:
    """Answer everybody's requests until cancelled."""
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(_serve, await endpoint.accept())


async def _serve(connection: Connection) -> None:
    try:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(_answer, await connection.accept_stream())
    except* RemoteError:  # the receiver has what it wanted
        pass


async def _answer(stream: Stream) -> None:
    with stream:
        left = int.from_bytes(await stream.receive_exactly(8), "big")
        at = 0
        while left:
            part = memoryview(block())[at : at + min(WRITE_BYTES, left)]
            await stream.send_all(part)
            left -= len(part)
            at = (at + len(part)) % BLOCK_BYTES
        stream.send_eof()
        await stream.wait_acknowledged()


async def receive(order: Order) -> None:
    """Take bytes on so many connections, and measure."""
    LeafCheck()  # hashes the block before anything is measured
    tally = Tally(order)
    async with open_endpoint(Identity.generate()) as endpoint, trio.open_nursery() as nursery:
        connections = await dial(endpoint, order, order.connections)
        begun = trio.Event()
        for connection in connections:
            for _ in range(IN_FLIGHT if order.request_bytes else 1):
                nursery.start_soon(take_forever, connection, order, tally, begun)
        await begun.wait()
        await trio.sleep(order.warm_seconds)
        first = tally.read()
        await trio.sleep(order.seconds)
        say(first.until(tally.read()))
        nursery.cancel_scope.cancel()


async def take_forever(connection: Connection, order: Order, tally: Tally, begun: trio.Event) -> None:
    """Ask again and again, and verify what comes."""
    while True:
        with connection.open_stream() as stream:
            await stream.send_all((order.request_bytes or _ENDLESS).to_bytes(8, "big"))
            stream.send_eof()
            check = LeafCheck()
            while some := await stream.receive_some(READ_BYTES):
                tally.count += check.feed(some)
                begun.set()


async def dial(
    endpoint: Endpoint, order: Order, count: int, keep_alive_seconds: float | None = None
) -> list[Connection]:
    """So many connections, a few of them at a time."""
    node, at = NodeId(bytes.fromhex(order.node)), HostPort(order.host, order.port)
    connections: list[Connection] = []

    async def some() -> None:
        while len(connections) < count:
            connections.append(await endpoint.connect(node, at, keep_alive_seconds=keep_alive_seconds))

    async with trio.open_nursery() as nursery:
        for _ in range(min(DIALS_AT_ONCE, count)):
            nursery.start_soon(some)
    for spare in connections[count:]:
        spare.close()
    return connections[:count]


async def hold(order: Order) -> None:
    """Make idle connections and hold them. Says the sender's memory for them in bytes, then its CPU time."""
    async with open_endpoint(Identity.generate(), idle_timeout_seconds=IDLE_SECONDS) as endpoint:
        await dial(endpoint, order, 1)  # imports and buffers that come with the first
        memory, first = resident_bytes(order.sender_pid), Reading.take(0, order.sender_pid)
        await dial(endpoint, order, order.connections, order.keep_alive_seconds)
        made = first.until(Reading.take(order.connections, order.sender_pid))
        say(made)
        await trio.sleep(order.warm_seconds)
        second = Reading.take(0, order.sender_pid)
        await trio.sleep(order.seconds)
        held = second.until(Reading.take(endpoint.statistics().connections, order.sender_pid))
        say(held)
        say(Outcome(resident_bytes(order.sender_pid) - memory, held.seconds, 0.0, 0.0))


async def greet(order: Order) -> None:
    """Handshakes, one after the other in each of a few tasks; counts those that were finished."""
    done = 0

    async def again(endpoint: Endpoint) -> None:
        nonlocal done
        node, at = NodeId(bytes.fromhex(order.node)), HostPort(order.host, order.port)
        while True:
            (await endpoint.connect(node, at)).close()
            done += 1

    async with open_endpoint(Identity.generate()) as endpoint, trio.open_nursery() as nursery:
        for _ in range(DIALS_AT_ONCE):
            nursery.start_soon(again, endpoint)
        await trio.sleep(order.warm_seconds)
        first = Reading.take(done, order.sender_pid)
        await trio.sleep(order.seconds)
        say(first.until(Reading.take(done, order.sender_pid)))
        nursery.cancel_scope.cancel()


def _run(role: Callable[[Order], Awaitable[None]], order: Order) -> None:
    trio.run(role, order)


if __name__ == "__main__":
    play({role.__name__: partial(_run, role) for role in (send, receive, hold, greet)})
