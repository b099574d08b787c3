"""Bulk bytes from one process to another over loopback QUIC: MB/s, and CPU seconds per GB of both ends.

    python -m benchmarks.bulk [--engine penstock|stock] [--megabytes 512] [--connections 1] [--cap 0.75]
                              [--plain] [--no-verify] [--repeat 3]

The receiver dials, asks, and hashes each 16 KiB leaf as it arrives; each process has a core of its
own, if there are two. `stock` is aioquic on asyncio as its own examples drive it, with the same
hashing. `--plain` receives one datagram a call, as where nothing coalesces them. `--cap` closes
the sender's gate at so many MB/s (1 MB = 10^6 bytes). The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import ssl
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from multiprocessing.connection import Connection as Pipe
from typing import Any

import trio
from aioquic.asyncio.client import connect as stock_connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted, QuicEvent, StreamDataReceived

from shared import endpoint
from shared.connection import Connection
from shared.core.errors import ConnectionLost, Refused
from shared.core.ids import HostPort
from shared.endpoint import open_endpoint
from shared.identity import Identity
from shared.sockets import DatagramSocket

LEAF_BYTES = 16384
PIECE = os.urandom(1 << 18)
WARM_UP_BYTES = 4 << 20
_CORES = sorted(os.sched_getaffinity(0))  # before anything is pinned


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be measured."""

    engine: str
    total_bytes: int
    connections: int
    cap: float | None  # bytes/s
    verify: bool


class Leaves:
    """Hashes a stream's bytes leaf by leaf as they come."""

    def __init__(self, verify: bool) -> None:
        self._verify = verify
        self._leaf = sha256()
        self._missing = LEAF_BYTES

    def take(self, data: bytes) -> None:
        """The next bytes."""
        if not self._verify:
            return
        rest = memoryview(data)
        while len(rest) >= self._missing:
            self._leaf.update(rest[: self._missing])
            self._leaf.digest()
            rest = rest[self._missing :]
            self._leaf, self._missing = sha256(), LEAF_BYTES
        self._leaf.update(rest)
        self._missing -= len(rest)


# Penstock


async def _give(connection: Connection) -> None:
    async with trio.open_nursery() as nursery:
        with suppress(ConnectionLost):
            while True:
                nursery.start_soon(_give_stream, await connection.accept_stream())


async def _give_stream(stream: Any) -> None:
    with suppress(ConnectionLost, Refused), stream:
        left = int.from_bytes(await stream.receive_exactly(8), "big")
        while left:
            await stream.send_all(memoryview(PIECE)[:left])
            left -= min(left, len(PIECE))
        stream.send_eof()
        await stream.wait_acknowledged()


async def _penstock_sender(job: Job, pipe: Pipe) -> None:
    identity = Identity.generate()
    async with open_endpoint(identity, "127.0.0.1") as near, trio.open_nursery() as nursery:
        pipe.send((identity.id, near.local.port))
        connections: list[Connection] = []
        nursery.start_soon(_accept_all, near, nursery, connections)
        while await trio.to_thread.run_sync(pipe.recv) == "start":
            near.set_rate(job.cap)
            started = time.process_time()
            await trio.to_thread.run_sync(pipe.recv)
            paths = [connection.statistics() for connection in connections if connection.is_established]
            pipe.send((time.process_time() - started, f"{paths[:1]}"))
        nursery.cancel_scope.cancel()


async def _accept_all(near: Any, nursery: trio.Nursery, connections: list[Connection]) -> None:
    while True:
        connections.append(await near.accept())
        nursery.start_soon(_give, connections[-1])


async def _take(connection: Connection, count: int, verify: bool) -> None:
    leaves, received = Leaves(verify), 0
    with connection.open_stream() as stream:
        await stream.send_all(count.to_bytes(8, "big"))
        stream.send_eof()
        while data := await stream.receive_some(1 << 20):
            leaves.take(data)
            received += len(data)
    assert received == count


async def _penstock_receiver(
    job: Job, node: Any, port: int, begin: Callable[[], None], end: Callable[[], None]
) -> None:
    async with open_endpoint(Identity.generate(), "127.0.0.1") as far:
        connections = [await far.connect(node, HostPort("127.0.0.1", port)) for _ in range(job.connections)]
        if job.cap is None:
            for connection in connections:
                await _take(connection, WARM_UP_BYTES // job.connections, job.verify)
        begin()
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(_take, connection, job.total_bytes // job.connections, job.verify)
        end()


# aioquic as its examples drive it


class _StockSender(QuicConnectionProtocol):
    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived) and event.data:
            left = int.from_bytes(event.data, "big")
            while left:
                self._quic.send_stream_data(event.stream_id, PIECE[:left])
                left -= min(left, len(PIECE))
            self._quic.send_stream_data(event.stream_id, b"", end_stream=True)


class _StockReceiver(QuicConnectionProtocol):
    leaves: Leaves
    ended: asyncio.Event

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self.ended = asyncio.Event()
        elif isinstance(event, StreamDataReceived):
            self.leaves.take(event.data)
            if event.end_stream:
                self.ended.set()

    async def take(self, count: int, verify: bool) -> None:
        self.leaves = Leaves(verify)
        self.ended.clear()
        stream_id = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream_id, count.to_bytes(8, "big"), end_stream=True)
        self.transmit()
        await self.ended.wait()


async def _stock_sender(pipe: Pipe) -> None:
    identity = Identity.generate()
    configuration = QuicConfiguration(
        alpn_protocols=["bench"], is_client=False,
        certificate=identity.certificate, private_key=identity.private_key,
    )  # fmt: skip
    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=_StockSender)
    assert server._transport is not None
    pipe.send((b"", server._transport.get_extra_info("sockname")[1]))
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, pipe.recv) == "start":
        started = time.process_time()
        await loop.run_in_executor(None, pipe.recv)
        pipe.send((time.process_time() - started, ""))


async def _stock_receiver(job: Job, port: int, begin: Callable[[], None], end: Callable[[], None]) -> None:
    configuration = QuicConfiguration(alpn_protocols=["bench"], verify_mode=ssl.CERT_NONE)
    async with stock_connect(
        "127.0.0.1", port, configuration=configuration, create_protocol=_StockReceiver
    ) as client:
        assert isinstance(client, _StockReceiver)
        begin()
        await client.take(job.total_bytes, job.verify)
        end()


# Both


def _pin(core: int) -> None:
    os.sched_setaffinity(0, {_CORES[core % len(_CORES)]})


def _sender_process(job: Job, pipe: Pipe) -> None:
    _pin(0)
    if job.engine == "stock":
        asyncio.run(_stock_sender(pipe))
    else:
        trio.run(_penstock_sender, job, pipe)


def measure(job: Job) -> dict[str, float]:
    """One transfer: MB/s, CPU s/GB of sender and receiver, and the sender's share of a core."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_sender_process, args=(job, theirs), daemon=True)
    process.start()
    node, port = ours.recv()
    started: list[float] = []

    ended: list[Any] = []

    def end() -> None:
        started.extend((time.perf_counter(), time.process_time()))
        ours.send("stop")
        ended.extend(ours.recv())

    def begin() -> None:
        ours.send("start")
        started.extend((time.perf_counter(), time.process_time()))

    if job.engine == "stock":
        asyncio.run(_stock_receiver(job, port, begin, end))
    else:
        trio.run(_penstock_receiver, job, node, port, begin, end)
    seconds, cpu = started[2] - started[0], started[3] - started[1]
    sender_cpu, note = ended
    ours.send("end")
    process.join()
    if note:
        print(note)
    gigabytes = job.total_bytes / 1e9
    return {
        "mb_per_second": job.total_bytes / seconds / 1e6,
        "sender_cpu_per_gb": sender_cpu / gigabytes,
        "receiver_cpu_per_gb": cpu / gigabytes,
        "sender_core_share": sender_cpu / seconds,
        "receiver_core_share": cpu / seconds,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", choices=["penstock", "stock"], default="penstock")
    parser.add_argument("--megabytes", type=float, default=512)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--cap", type=float, help="MB/s")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--no-verify", dest="verify", action="store_false")
    parser.add_argument("--repeat", type=int, default=1)
    asked = parser.parse_args()
    cap = asked.cap and asked.cap * 1e6
    job = Job(asked.engine, int(asked.megabytes * 1e6), asked.connections, cap, asked.verify)
    _pin(1)
    if asked.plain:  # the sender's process has to have its own, unpatched
        multiprocessing.set_start_method("spawn")
        vars(endpoint)["DatagramSocket"] = partial(DatagramSocket, plain=True)
    runs = [measure(job) for _ in range(asked.repeat)]
    print(json.dumps({key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}))


if __name__ == "__main__":
    main()
