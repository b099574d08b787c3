"""BitTorrent's doors served by several processes, each with the torrents that are its own.

All have one UDP port, and the kernel hands each datagram to the process whose torrent it names
(`shared.steering`), so no process knows what another knows. They have one key for the ids that
prove an address, so that any of them may answer a connect and all believe the answer. What came to
the HTTP door is asked of the owner. A process that died is started again, on its old socket, with
nothing in its table: clients announce again within the half hour, as after a restart.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import trio

from shared import clock
from shared.core.errors import LocalError, Reason, Refused
from shared.core.ids import HostPort
from shared.core.pauses import Pauses
from shared.steering import bind_group_by_byte
from tracker.core.shards import TORRENT_AT, owner_of
from tracker.core.torrents import Companions, TorrentAnnounce, TorrentCounts
from tracker.torrent_door import FOLLOW_SECONDS
from tracker.torrent_words import (
    MAX_NAMED,
    Announced,
    Answer,
    Begin,
    Change,
    Count,
    Done,
    Ready,
    Scraped,
    Wire,
    WorkerGone,
    replies,
)

log = logging.getLogger(__name__)

START_SECONDS = 60.0
ANSWER_SECONDS = 5.0
END_SECONDS = 5.0  # then it is killed
AWAY = "try again in a minute"
_ROOT = Path(__file__).parents[1]


class Post:
    """One worker's place: its socket, and the process that is there now, if any."""

    def __init__(self, begin: Begin, port: socket.socket) -> None:
        self._begin = begin
        self._port = port
        self._questions = count(1)
        self._waiting: dict[int, trio.MemorySendChannel[Answer]] = {}
        self._wire: Wire | None = None
        self._named: set[bytes] = set()  # what the process was told
        self.process: trio.Process | None = None

    async def keep(
        self, wanted: set[bytes], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Task: there is always a process. `wanted`, which others change, is what it is told at its start.

        Raises LocalError if the first does not answer.
        """
        pauses, is_first = Pauses(), True
        while True:
            started_at = trio.current_time()
            async with self._one_process() as wire:
                with trio.move_on_after(START_SECONDS):
                    if await self._is_ready(wire):
                        self._wire = wire
                        await self.tell(wanted)
                        if is_first:
                            task_status.started()
                            is_first = False
                if self._wire is not None:
                    await self._listen(wire)
            if is_first:
                raise LocalError("a worker did not start; set tracker.workers to 1")
            log.error("torrent worker %d ended and is started again", self._begin.number + 1)
            await trio.sleep(pauses.after(trio.current_time() - started_at))

    async def tell(self, wanted: set[bytes]) -> None:
        """The process learns what may be announced now."""
        wire = self._wire
        if wire is None:
            return  # the next one is told when it starts
        opened, closed = wanted - self._named, self._named - wanted
        self._named = set(wanted)
        try:
            for some in _parts(opened):
                await wire.send(Change(some, []))
            for some in _parts(closed):
                await wire.send(Change([], some))
        except WorkerGone:
            log.debug("torrent worker %d is not told: it is gone", self._begin.number + 1)

    async def ask(self, word: Callable[[int], Announced | Scraped | Count]) -> Answer:
        """The answer to a question. Raises Refused: BUSY, or what the worker refused."""
        number, wire = next(self._questions), self._wire
        if wire is None:
            raise Refused(Reason.BUSY, AWAY)
        give, take = trio.open_memory_channel[Answer](1)
        self._waiting[number] = give
        try:
            with trio.fail_after(ANSWER_SECONDS):
                await wire.send(word(number))
                answer = await take.receive()
        except (trio.TooSlowError, trio.EndOfChannel, WorkerGone):
            raise Refused(Reason.BUSY, AWAY) from None
        finally:
            self._waiting.pop(number, None)
        if answer.refused is not None:
            raise Refused(Reason.UNKNOWN_TITLE, answer.refused)
        return answer

    @asynccontextmanager
    async def _one_process(self) -> AsyncIterator[Wire]:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wire = Wire(near)
        with far:
            numbers = [far.fileno(), self._port.fileno()]
            self.process = process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "tracker.torrent_worker", *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                pass_fds=numbers,
                env=os.environ | {"PYTHONPATH": str(_ROOT)},
            )
        try:
            yield wire
        finally:
            self._wire = None
            self._named = set()
            for give in self._waiting.values():
                give.close()
            wire.close()  # it ends when it hears that
            with trio.CancelScope(shield=True):
                with trio.move_on_after(END_SECONDS):
                    await process.wait()
                process.kill()  # harmless when it has ended
                await process.wait()

    async def _is_ready(self, wire: Wire) -> bool:
        try:
            await wire.send(self._begin)
            return isinstance(await wire.receive(replies), Ready)
        except WorkerGone:
            return False

    async def _listen(self, wire: Wire) -> None:
        try:
            while True:
                word = await wire.receive(replies)
                give = self._waiting.get(word.question) if isinstance(word, Answer) else None
                if give is not None and isinstance(word, Answer):
                    give.send_nowait(word)
        except WorkerGone as error:
            log.debug("torrent worker %d: %s", self._begin.number + 1, error)


def _parts(torrents: set[bytes]) -> Iterator[list[bytes]]:
    whole = list(torrents)
    for at in range(0, len(whole), MAX_NAMED):
        yield whole[at : at + MAX_NAMED]


class TorrentCrew:
    """The workers, from outside one table. Made by `open_torrent_crew`."""

    def __init__(self, port: int, posts: list[Post]) -> None:
        self.port = port
        self._posts = posts
        self._wanted: list[set[bytes]] = [set() for _ in posts]

    async def start(self, nursery: trio.Nursery) -> None:
        """Returns when all workers answer. Raises LocalError."""
        async with trio.open_nursery() as starting:
            for post, wanted in zip(self._posts, self._wanted, strict=True):
                starting.start_soon(nursery.start, post.keep, wanted)

    async def follow(self, torrents: Callable[[], Iterable[bytes]]) -> None:
        """Task: what `torrents` names may be announced, and nothing else."""
        while True:
            await self.know(torrents())
            await trio.sleep(FOLLOW_SECONDS)

    async def know(self, torrents: Iterable[bytes]) -> None:
        """These may be announced, and nothing else."""
        named: list[set[bytes]] = [set() for _ in self._posts]
        for torrent in torrents:
            named[owner_of(torrent, len(named))].add(torrent)
        async with trio.open_nursery() as nursery:
            for post, wanted, now in zip(self._posts, self._wanted, named, strict=True):
                wanted.intersection_update(now)
                wanted.update(now)
                nursery.start_soon(post.tell, wanted)

    async def announce(self, said: TorrentAnnounce, address: bytes) -> Companions:
        """Asks the torrent's worker. Raises Refused: UNKNOWN_TITLE, or BUSY while it is away."""
        post = self._posts[owner_of(said.torrent, len(self._posts))]
        answer = await post.ask(lambda question: Announced(question, said, address))
        assert answer.companions is not None, "it was asked for them"
        return answer.companions

    async def scrape(self, asked: Sequence[bytes]) -> dict[bytes, TorrentCounts]:
        """Asks the owners of these torrents. Raises Refused(BUSY) while one is away."""
        found: dict[bytes, TorrentCounts] = {}
        for number, post in enumerate(self._posts):
            own = [torrent for torrent in asked if owner_of(torrent, len(self._posts)) == number]
            if own:
                answer = await post.ask(lambda question, own=own: Scraped(question, own))  # type: ignore[misc]
                found |= answer.counts or {}
        return found

    async def done(self) -> list[Done]:
        """Every worker's counters since it started. Raises Refused(BUSY) while one is away."""
        answers = [await post.ask(Count) for post in self._posts]
        return [answer.done for answer in answers if answer.done is not None]

    def pids(self) -> list[int]:
        """The workers' processes, in order."""
        return [post.process.pid for post in self._posts if post.process is not None]


@asynccontextmanager
async def open_torrent_crew(
    at: HostPort, setting: str, workers: int, log_level: str
) -> AsyncIterator[TorrentCrew]:
    """Workers that answer at an address while the context is open. Raises LocalError naming `setting`."""
    sockets = await bind_group_by_byte(at, setting, TORRENT_AT, workers)
    key, offset = os.urandom(16), clock.offset()
    try:
        posts = [
            Post(Begin(number, workers, key, offset, log_level), sock) for number, sock in enumerate(sockets)
        ]
        crew = TorrentCrew(int(sockets[0].getsockname()[1]), posts)
        async with trio.open_nursery() as nursery:
            await crew.start(nursery)
            yield crew
            nursery.cancel_scope.cancel()
    finally:
        for sock in sockets:
            sock.close()
