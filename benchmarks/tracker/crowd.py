"""Viewers of one film, each a node of its own (`shared/node.py`), that tell a tracker what peers tell it.

`python -m benchmarks.tracker.crowd ADDRESS COUNT A_SECOND LIMIT_SECONDS`: so many join, at that rate;
one line is printed once all are in, and everybody stays until standard input ends, or the limit.
With COUNT 0 it is the edge that registers the film.
"""

from __future__ import annotations

import resource
import sys
from collections import deque
from contextlib import AsyncExitStack
from hashlib import sha256
from random import Random

import trio

from shared import __version__, garbage
from shared.connection import Stream
from shared.core.actions import Action, Send
from shared.core.errors import Reason
from shared.core.ids import Address, HostPort, InfoHash, Kind, Mode, NodeId, TitleId, parse_address
from shared.core.messages import (
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
from shared.core.tracker_link import TrackerLink
from shared.endpoint import open_endpoint
from shared.identity import Identity
from shared.node import IDLE_SECONDS, Introduction, open_node

FILM = InfoHash(sha256(b"a film that thousands watch").digest())
PIECES = 240
FOREVER = float("inf")


class Viewer:
    """The core of one: joins as a player does that was just opened, then announces and reports."""

    def __init__(self, tracker: Address, kind: Kind, seed: int) -> None:
        self.joined = trio.Event()
        self._rng = Random(seed)
        self._link = TrackerLink(tracker, self._rng)
        self._tracker, self._kind = tracker.node, kind
        self._held = 0
        self._schedule = Schedule(60, 5)
        self._announce_at = self._report_at = FOREVER
        self._actions: deque[Action] = deque()

    def _say(self, message: Message) -> None:
        self._actions.append(Send(self._tracker, message))

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        """The tracker is there: says what this node has, and asks for sources."""
        if not self._link.connected(node, hello):
            return
        if self._kind is Kind.EDGE:
            rendition = Rendition(
                FILM, "film.mp4", PIECES << 18, 4_000_000, "avc1.64001f", 1280, 720, 120_000
            )
            self._say(Register(1, TitleId(FILM[:16]), "A film", (rendition,)))
        else:
            self._announce(Event.STARTED)
            self._say(Locate(1, FILM))

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """It is gone; it is dialled again."""
        self._link.disconnected(node, now)
        self._announce_at = self._report_at = FOREVER

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """A schedule begins at a moment of its own; the answer to the first question ends joining."""
        if isinstance(message, Schedule):
            self._schedule = message
            self._announce_at = now + self._rng.random() * message.announce_seconds
            self._report_at = now + self._rng.random() * message.report_seconds
        elif isinstance(message, Registered):
            self._say(Announce(FILM, Event.STARTED, PIECES, PIECES, 7))
            self.joined.set()
        elif isinstance(message, Redirect):
            assert message.sources, "the edge at least"
            self.joined.set()

    def get_timer(self) -> float:
        """When to announce, report or dial."""
        return min(self._link.get_timer(), self._report_at, self._announce_at)

    def handle_timer(self, now: float) -> None:
        """Whatever is due."""
        self._link.handle_timer(now)
        if now >= self._report_at:
            self._report_at += self._schedule.report_seconds
            self._report(now)
        if now >= self._announce_at:
            self._announce_at += self._schedule.announce_seconds
            if self._kind is not Kind.EDGE:
                self._announce(Event.UPDATE)

    def _report(self, now: float) -> None:
        if self._kind is Kind.EDGE:
            self._say(Load(125_000_000, 1_000_000, 0, 0, int(now * 1000)))
            return
        rate, total = self._rng.randrange(1 << 20), self._rng.randrange(1 << 30)
        self._say(Report(rate, rate, 0, total, total, total, PIECES << 18, 5, 0))

    def _announce(self, event: Event) -> None:
        self._held = min(PIECES, self._held + 1 + self._rng.randrange(40))
        self._say(Announce(FILM, event, self._held, PIECES, self._rng.randrange(8)))

    def next_action(self) -> Action | None:
        """The next order for the shell."""
        return self._link.next_action() or (self._actions.popleft() if self._actions else None)


async def run(tracker: Address, count: int, a_second: float, limit_seconds: float) -> None:
    """Joins, says so, and stays."""
    kind = Kind.PC if count else Kind.EDGE
    introduction = Introduction(kind, Mode.SHARED, "", f"crowd {__version__}")
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.cancel_scope.deadline = trio.current_time() + limit_seconds
        started_at = trio.current_time()
        for number in range(max(1, count)):
            await trio.sleep_until(started_at + number / a_second)
            viewer = Viewer(tracker, kind, number)
            await nursery.start(_run_viewer, viewer, introduction)
        print(f"joined in {trio.current_time() - started_at:.1f} s", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def _run_viewer(
    viewer: Viewer,
    introduction: Introduction,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    identity = Identity.generate()
    async with (
        open_endpoint(identity, "127.0.0.1", 0, idle_timeout_seconds=IDLE_SECONDS) as endpoint,
        open_node(endpoint, viewer, introduction, lambda action: None, _no_stream),
    ):
        await viewer.joined.wait()
        task_status.started()
        await trio.sleep_forever()


async def _no_stream(node: NodeId, stream: Stream) -> None:
    raise AssertionError("a tracker opens no stream")


def main() -> None:
    """Runs one process of the crowd."""
    address, count, a_second, limit = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    garbage.settle()
    trio.run(run, parse_address(address), int(count), float(a_second), float(limit))


if __name__ == "__main__":
    main()
