"""The door for sealed asks: a socket beside QUIC's, on the same port, driven in batches."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import trio

from shared import clock
from shared.core.errors import LocalError
from shared.core.ids import NodeId
from shared.core.sealed import LOCATE_BYTES
from shared.steering import bind_beside
from tracker.core.bep15 import Batch
from tracker.core.sealed import Sealed
from tracker.mmsg import BATCH, BatchSocket

log = logging.getLogger(__name__)


async def run_sealed_door(
    core: Sealed,
    sock: BatchSocket,
    pump: Callable[[], None],
    vouch: Callable[[NodeId], None] = lambda node: None,
) -> None:
    """Task: answers until cancelled. `pump` is called when the core may have decided something, `vouch`
    for every node whose connection is alive as the node was heard."""
    while True:
        await trio.lowlevel.wait_readable(sock.raw)
        full_batches = 0
        while count := sock.receive():
            full_batches = full_batches + 1 if count == BATCH else 0
            lengths = np.zeros(count, np.int64)
            received, answers = sock.received[:count], sock.answers[:count]
            batch = Batch(received, sock.sizes(), sock.addresses(), answers, lengths)
            for node in core.answer(batch, clock.now(), full_batches):
                vouch(node)
            sock.send(lengths)
            pump()
            await trio.lowlevel.checkpoint()  # others have their turn, and more datagrams come


@asynccontextmanager
async def open_sealed_door(
    core: Sealed, quic: socket.socket, pump: Callable[[], None], vouch: Callable[[NodeId], None]
) -> AsyncIterator[None]:
    """Takes sealed asks at the port of `quic` while the context is open.

    Where the system cannot, nobody is given a seal, all asks come over connections, and the log says so.
    """
    try:
        sock = _beside(quic)
    except (OSError, LocalError, AttributeError) as error:  # the last: no SO_REUSEPORT at all
        log.warning("announces and locates go over connections only: %s", error)
        yield
        return
    with sock.raw:
        core.open(os.urandom(32))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_sealed_door, core, sock, pump, vouch)
            yield
            nursery.cancel_scope.cancel()


def _beside(quic: socket.socket) -> BatchSocket:
    sock = bind_beside(quic)
    try:
        return BatchSocket(sock, LOCATE_BYTES)
    except LocalError:
        sock.close()
        raise
