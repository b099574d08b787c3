"""Viewers of one film, each with an endpoint of its own, that tell a tracker what peers tell it.

`python -m benchmarks.tracker.crowd ADDRESS COUNT A_SECOND LIMIT_SECONDS`: so many join, at that rate;
one line is printed once all are in, and everybody stays until standard input ends, or the limit.
With COUNT 0 it is the edge that registers the film.
"""

from __future__ import annotations

import resource
import sys
from contextlib import AsyncExitStack, suppress
from hashlib import sha256
from random import Random

import trio

from shared import __version__, clock, garbage
from shared.connection import Connection, Stream
from shared.core.errors import ConnectionLost
from shared.core.ids import Address, InfoHash, Kind, Mode, TitleId, parse_address
from shared.core.messages import (
    PROTOCOL_VERSION,
    Announce,
    Event,
    Hello,
    Load,
    Locate,
    Message,
    Redirect,
    Register,
    Registered,
    Rendition,
    Report,
    Schedule,
)  # fmt: skip
from shared.core.session import Session
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.node import KEEP_ALIVE_SECONDS

FILM = InfoHash(sha256(b"a film that thousands watch").digest())
PIECES = 240
TRIES = 3  # to connect, of ten seconds each


class Viewer:
    """One connection that speaks for a viewer."""

    def __init__(self, connection: Connection, kind: Kind, seed: int) -> None:
        self._connection = connection
        self._stream: Stream = connection.open_stream()
        self._session = Session(kind)
        self._kind = kind
        self._rng = Random(seed)
        self._held = 0
        self._heard: list[Message] = []

    async def say(self, message: Message) -> None:
        """Sends a message."""
        await self._stream.send_all(self._session.send(message))

    async def hear(self, kind: type[Message]) -> Message:
        """The next message of this kind; others are passed over."""
        while True:
            while self._heard:
                message = self._heard.pop(0)
                if isinstance(message, kind):
                    return message
            self._heard += self._session.receive(await self._stream.receive_some())

    async def join(self) -> Schedule:
        """Says who it is, announces and asks for sources, as a player does that was just opened."""
        remote = str(self._connection.remote)
        await self.say(Hello(PROTOCOL_VERSION, self._kind, Mode.SHARED, "", f"crowd {__version__}", remote))
        schedule = await self.hear(Schedule)
        assert isinstance(schedule, Schedule)
        if self._kind is Kind.EDGE:
            rendition = Rendition(
                FILM, "film.mp4", PIECES << 18, 4_000_000, "avc1.64001f", 1280, 720, 120_000
            )
            await self.say(Register(1, TitleId(FILM[:16]), "A film", (rendition,)))
            await self.hear(Registered)
            await self.say(Announce(FILM, Event.STARTED, PIECES, PIECES, 7))
        else:
            await self.announce(Event.STARTED)
            await self.say(Locate(1, FILM))
            redirect = await self.hear(Redirect)
            assert isinstance(redirect, Redirect)
            assert redirect.sources, "the edge at least"
        return schedule

    async def announce(self, event: Event = Event.UPDATE) -> None:
        """Says what it holds by now."""
        self._held = min(PIECES, self._held + 1 + self._rng.randrange(40))
        await self.say(Announce(FILM, event, self._held, PIECES, self._rng.randrange(8)))

    async def stay(self, schedule: Schedule) -> None:
        """Announces and reports at the pace that the tracker set, from a moment of its own on."""
        announce_at = clock.now() + self._rng.random() * schedule.announce_seconds
        await trio.sleep(self._rng.random() * schedule.report_seconds)
        while True:
            now = clock.now()
            if self._kind is Kind.EDGE:
                await self.say(Load(125_000_000, 1_000_000, 0, 0, int(now * 1000)))
            else:
                rate, total = self._rng.randrange(1 << 20), self._rng.randrange(1 << 30)
                await self.say(Report(rate, rate, 0, total, total, total, PIECES << 18, 5, 0))
            if now >= announce_at and self._kind is not Kind.EDGE:
                announce_at += schedule.announce_seconds
                await self.announce()
            await trio.sleep(schedule.report_seconds)


async def run(tracker: Address, count: int, a_second: float, limit_seconds: float) -> None:
    """Joins, says so, and stays."""
    kind = Kind.PC if count else Kind.EDGE
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.cancel_scope.deadline = trio.current_time() + limit_seconds
        started_at = trio.current_time()
        for number in range(max(1, count)):
            await trio.sleep_until(started_at + number / a_second)
            endpoint = await stack.enter_async_context(open_endpoint(Identity.generate(), "127.0.0.1", 0))
            viewer = Viewer(await _connect(endpoint, tracker), kind, number)
            nursery.start_soon(viewer.stay, await viewer.join())
        print(f"joined in {trio.current_time() - started_at:.1f} s", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def _connect(endpoint: Endpoint, tracker: Address) -> Connection:
    for _ in range(TRIES - 1):  # a machine that is busy with others as well
        with suppress(ConnectionLost):
            return await endpoint.connect(tracker.node, tracker.at, keep_alive_seconds=KEEP_ALIVE_SECONDS)
    return await endpoint.connect(tracker.node, tracker.at, keep_alive_seconds=KEEP_ALIVE_SECONDS)


def main() -> None:
    """Runs one process of the crowd."""
    address, count, a_second, limit = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    garbage.settle()
    trio.run(run, parse_address(address), int(count), float(a_second), float(limit))


if __name__ == "__main__":
    main()
