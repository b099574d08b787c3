"""Penstock's sender as several processes on one port, and receivers that measure it or move about."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import trio

from benchmarks.data.orders import Counts, Order, Outcome, Ready, play, restrain, say
from benchmarks.data.ours import MAX_CONNECTIONS, dial, serve_forever, take_forever
from benchmarks.data.readings import LeafCheck, Tally, block, cpu_seconds
from shared.connection import Connection
from shared.core.errors import ConnectionLost
from shared.core.ids import HostPort, NodeId
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.sockets import bind, host_port
from shared.steering import Berth, steer
from tests.moving_relay import MovingRelay

LOOK_SECONDS = 0.05
MOVE_SECONDS = 3.0  # until a client that moved gives up
MOVE_BYTES = 1 << 20
_ROW = struct.Struct("QQQ")  # a worker's datagrams: received, for nobody, astray


def send(order: Order) -> None:
    """So many workers that answer requests as `ours.send` does, until killed; counts on request."""
    sockets = trio.run(_sockets, order)
    if order.steered:
        steer(sockets[0], [1, *range(1, order.workers + 1)])
    identity = Identity.generate()
    block()  # before forking: one copy for all
    rows = mmap.mmap(-1, _ROW.size * order.workers)
    pids = []
    for number in range(order.workers):
        pid = os.fork()
        if pid == 0:
            restrain(order.core, order.limit_seconds)
            trio.run(_work, order, identity, sockets[number + 1], number, rows)
            os._exit(0)
        pids.append(pid)
    port = host_port(sockets[0].getsockname()).port
    say(Ready(port, pids[0], identity.id.hex(), tuple(pids)))
    while sys.stdin.buffer.readline():
        time.sleep(2 * LOOK_SECONDS)
        found = [_ROW.unpack_from(rows, number * _ROW.size) for number in range(order.workers)]
        say(Counts(*map(sum, zip(*found, strict=True))))


async def _sockets(order: Order) -> list[socket.socket]:
    """One more than there are workers: that of the lead, which is not here. Nobody listens to it."""
    sockets = [await bind(HostPort(order.host, 0), "listen", share_port=True)]
    for _ in range(order.workers):
        at = host_port(sockets[0].getsockname())
        sockets.append(await bind(at, "listen", share_port=True))
    if not order.steered:  # then the kernel's hash would choose it, too
        sockets[0].close()
        sockets[0] = sockets[1]
    return sockets


async def _work(order: Order, identity: Identity, sock: socket.socket, number: int, rows: mmap.mmap) -> None:
    berth = Berth(number + 1, order.workers + 1)
    async with (
        open_endpoint(identity, sock=sock, berth=berth, max_connections=MAX_CONNECTIONS) as endpoint,
        trio.open_nursery() as nursery,
    ):
        endpoint.set_rate(order.rate)
        nursery.start_soon(serve_forever, endpoint)
        while True:
            await trio.sleep(LOOK_SECONDS)
            now = endpoint.statistics()
            row = now.datagrams_received, now.unwanted_datagrams, now.astray_datagrams
            _ROW.pack_into(rows, number * _ROW.size, *row)


async def receive(order: Order) -> None:
    """Take bytes on so many connections, and measure, all workers' CPU time together."""
    LeafCheck()
    tally = Tally(order)
    async with open_endpoint(Identity.generate()) as endpoint, trio.open_nursery() as nursery:
        begun = trio.Event()
        for connection in await dial(endpoint, order, order.connections):
            nursery.start_soon(take_forever, connection, order, tally, begun)
        await begun.wait()
        await trio.sleep(order.warm_seconds)
        first = _reading(order, tally.count)
        await trio.sleep(order.seconds)
        last = _reading(order, tally.count)
        count, seconds, workers, own = (b - a for a, b in zip(first, last, strict=True))
        say(Outcome(int(count), seconds, workers, own))
        nursery.cancel_scope.cancel()


def _reading(order: Order, count: int) -> tuple[int, float, float, float]:
    workers = sum(map(cpu_seconds, order.worker_pids))
    return count, time.perf_counter(), workers, time.process_time()


async def move(order: Order) -> None:
    """So many clients take a stretch, change their port, and take another. Counts those that go on."""
    went_on = 0
    began = time.perf_counter()
    for _ in range(order.connections):
        async with open_endpoint(Identity.generate(), order.host) as endpoint:
            went_on += await _goes_on(endpoint, order)
    say(Outcome(went_on, time.perf_counter() - began, 0.0, 0.0))


async def _goes_on(endpoint: Endpoint, order: Order) -> bool:
    way = MovingRelay(HostPort(order.host, order.port))
    moved_well = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(way.run)
        connection = await endpoint.connect(NodeId(bytes.fromhex(order.node)), way.at)
        await _take(connection)
        way.move()
        with trio.move_on_after(MOVE_SECONDS), suppress(ConnectionLost):
            await _take(connection)
            moved_well = True
        nursery.cancel_scope.cancel()
    return moved_well


async def _take(connection: Connection) -> None:
    with connection.open_stream() as stream:
        await stream.send_all(MOVE_BYTES.to_bytes(8, "big"))
        stream.send_eof()
        check, verified = LeafCheck(), 0
        while some := await stream.receive_some():
            verified += check.feed(some)
        assert verified == MOVE_BYTES


def _run(role: Callable[[Order], Awaitable[None]], order: Order) -> None:
    trio.run(role, order)


if __name__ == "__main__":
    play({"send": send, "receive": partial(_run, receive), "move": partial(_run, move)})
