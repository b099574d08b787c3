"""`python -m tracker.torrent_worker FD PORT`: a process that serves some of a tracker's torrents.

The tracker is at the socket FD, clients at the UDP socket PORT. It ends when the tracker does.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

import numpy as np
import trio

from shared import clock, garbage
from shared.cli import configure_logging
from shared.core.errors import Refused
from tracker.core.shards import Shard, ShardBep15
from tracker.mmsg import BatchSocket
from tracker.torrent_door import TorrentDoor
from tracker.torrent_words import (
    Announced,
    Answer,
    Begin,
    Change,
    Count,
    Done,
    Order,
    Ready,
    Scraped,
    Wire,
    WorkerGone,
    orders,
)

log = logging.getLogger(__name__)


def main() -> None:
    """Runs until the tracker is gone; signals are for that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wire, port = (int(word) for word in sys.argv[1:])
    trio.run(_serve, socket.socket(fileno=wire), socket.socket(fileno=port))


async def _serve(sock: socket.socket, port: socket.socket) -> None:
    wire = Wire(sock)
    begin = await wire.receive(orders)
    assert isinstance(begin, Begin), "the tracker begins so"
    clock.agree(begin.clock_offset)
    configure_logging(begin.log_level)
    dice = np.random.default_rng(int.from_bytes(os.urandom(16), "big"))
    core = ShardBep15(Shard(begin.number, begin.workers), begin.key, dice.random)
    door = TorrentDoor(core, BatchSocket(port))
    garbage.settle()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.run)
            await wire.send(Ready())
            while True:
                await _obey(await wire.receive(orders), wire, door, core)
    except* WorkerGone as group:
        log.debug("%s", group.exceptions[0])


async def _obey(word: Order, wire: Wire, door: TorrentDoor, core: ShardBep15) -> None:
    match word:
        case Change():
            await door.change(word.opened, word.closed)
        case Announced():
            try:
                answer = Answer(word.question, companions=await door.announce(word.announce, word.address))
            except Refused as refusal:
                answer = Answer(word.question, refused=refusal.detail)
            await wire.send(answer)
        case Scraped():
            await wire.send(Answer(word.question, counts=await door.scrape(word.torrents)))
        case Count():
            await wire.send(Answer(word.question, done=Done(core.statistics(), core.astray)))
        case Begin():
            raise WorkerGone("the tracker began twice")


if __name__ == "__main__":
    main()
