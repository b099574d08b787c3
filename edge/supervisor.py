"""An edge of several processes: the supervisor holds the sockets, starts the others, and replaces them.

Each worker has two berths at the port, for itself and for the one that will replace it. While
both run, each has the datagrams of its own connections; a stranger's that fall to the one that leaves
are passed on. Sockets outlive processes, so what arrives while one is replaced, or after it has
died, waits for the next.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import trio

from edge.channel import Channel, ChannelEnded, pair
from edge.config import EdgeConfig
from edge.core.crew import (
    Begin,
    Drain,
    Drained,
    Failed,
    Finish,
    Inherit,
    LeadLost,
    Meet,
    PassOn,
    Ready,
    StandFor,
)
from edge.server import Ready as EdgeReady
from edge.server import trackers_of
from shared.core.errors import LocalError
from shared.core.ids import Address, parse_host_port
from shared.core.pauses import Pauses
from shared.data_folder import locked
from shared.identity import Identity
from shared.own_address import reachable
from shared.sockets import host_port
from shared.steering import LEAD_BERTH, bind_group, steer

log = logging.getLogger(__name__)

START_SECONDS = 60.0
END_SECONDS = 10.0  # with goodbyes; then it is killed
_ROOT = Path(__file__).parents[1]


class Child:
    """One process, from its start to its end."""

    def __init__(self, name: int, berth: int, process: trio.Process, channel: Channel) -> None:
        self.name = name
        self.berth = berth
        self.process = process
        self.channel = channel
        self.started_at = trio.current_time()
        self.settled = trio.Event()  # it answers, or never will
        self.is_ready = False
        self.failure = "it died before it answered"
        self.drained = trio.Event()
        self.gone = trio.Event()

    async def listen(self, lead_lost: Callable[[Child, int], None]) -> None:
        """Task: what it says, until its end."""
        try:
            while True:
                word, _ = await self.channel.receive()
                match word:
                    case Ready():
                        self.is_ready = True
                        self.settled.set()
                    case Failed():
                        self.failure = word.text
                    case Drained():
                        self.drained.set()
                    case LeadLost():
                        lead_lost(self, word.name)
                    case _:
                        raise ChannelEnded(f"a child said {type(word).__name__}")
        except ChannelEnded:
            pass
        finally:
            with trio.CancelScope(shield=True):
                await self._see_end()

    async def _see_end(self) -> None:
        self.channel.close()  # it ends when it hears that
        with trio.move_on_after(END_SECONDS):
            await self.process.wait()
        self.process.kill()  # harmless when it has ended
        await self.process.wait()
        for event in (self.gone, self.settled, self.drained):
            event.set()


class Post:
    """A task that always has a process, and for a while two: the lead, or one worker."""

    def __init__(self, title: str, *berths: int) -> None:
        self.title = title
        self.berths = berths
        self.child: Child | None = None
        self.leaving: Child | None = None
        self.changing = trio.Lock()  # one process at a time is started for it

    def free_berth(self) -> int:
        """Where the next process goes."""
        taken = {child.berth for child in (self.child, self.leaving) if child is not None}
        return next(berth for berth in self.berths if berth not in taken)

    def target(self, berth: int) -> int:
        """The berth whose socket a berth's datagrams go to."""
        if self.leaving is not None and self.leaving.berth == berth:
            return berth
        return berth if self.child is None else self.child.berth


class Supervisor:
    """Starts the processes, introduces them to each other, and starts again who dies."""

    def __init__(self, config: EdgeConfig, sockets: list[socket.socket], nursery: trio.Nursery) -> None:
        self._config = pickle.dumps(config)
        self._sockets = sockets
        self._nursery = nursery
        self._lead = Post("the lead", LEAD_BERTH)
        self._workers = [
            Post(f"worker {number + 1}", 1 + 2 * number, 2 + 2 * number) for number in range(config.workers)
        ]
        self._names = 0
        self._leading: Child | None = None
        self._draining = False
        self._working: list[Child] = []

    async def begin(self) -> None:
        """Starts everybody; returns when all answer. Raises LocalError if one cannot."""
        self._lead.child = await self._start(self._lead, LEAD_BERTH)
        async with trio.open_nursery() as nursery:
            for post in self._workers:
                nursery.start_soon(self._man, post)
        for post in (self._lead, *self._workers):
            self._nursery.start_soon(self._keep, post)

    async def _man(self, post: Post) -> None:
        post.child = await self._start(post, post.free_berth())
        self._steer()
        _answer_for_the_dead(post)

    def pids(self) -> list[int]:
        """The lead's process id, then the workers'."""
        return [post.child.process.pid for post in (self._lead, *self._workers) if post.child is not None]

    async def renew_on_signal(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Task: SIGHUP renews everybody."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                await self.renew()

    async def renew(self) -> None:
        """Replaces the workers one after the other, then the lead. Who cannot be replaced stays."""
        for post in self._workers:
            async with post.changing:
                await self._replace(post)
        async with self._lead.changing:
            await self._replace_lead()

    def set_draining(self, draining: bool) -> None:
        """The tracker shall send nobody new, or again."""
        self._draining = draining
        if self._leading is not None:
            self._leading.channel.send(Drain(draining))

    # -- one process ------------------------------------------------------------------------------

    async def _start(self, post: Post, berth: int) -> Child:
        """A process that answers. Raises LocalError that says why it does not."""
        child = await self._spawn(berth)
        try:
            self._begin(post, child)
            with trio.move_on_after(START_SECONDS):
                await child.settled.wait()
            if child.is_ready:
                return child
            raise LocalError(child.failure)
        except BaseException:
            child.process.kill()
            raise

    async def _spawn(self, berth: int) -> Child:
        channel, far = pair()
        with far:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "edge", str(far.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[far.fileno()],
                env=os.environ | {"PYTHONPATH": str(_ROOT)},
            )
        self._names += 1
        child = Child(self._names, berth, process, channel)
        self._nursery.start_soon(channel.write_forever)
        self._nursery.start_soon(child.listen, self._lead_lost)
        return child

    def _begin(self, post: Post, child: Child) -> None:
        berths = len(self._sockets)
        begin = Begin(post is self._lead, child.berth, berths, self._config)
        child.channel.send(begin, self._sockets[child.berth].dup())
        if post is self._lead:
            self._leading = child
            if self._draining:
                child.channel.send(Drain(True))
            self._working = [worker for worker in self._working if not worker.gone.is_set()]
            for worker in self._working:
                _introduce(child, worker)
        else:
            self._working.append(child)
            if self._leading is not None:
                _introduce(self._leading, child)

    async def _keep(self, post: Post) -> None:
        """Task: whoever dies at this post is started again, sooner or later."""
        pauses = Pauses()
        while True:
            child = post.child
            assert child is not None
            await child.gone.wait()
            if post.child is not child:
                continue
            lived_seconds = trio.current_time() - child.started_at
            status = child.process.returncode
            log.error("%s ended with status %s and is started again", post.title, status)
            await self._revive(post, pauses, lived_seconds)

    async def _revive(self, post: Post, pauses: Pauses, lived_seconds: float) -> None:
        while True:
            await trio.sleep(pauses.after(lived_seconds))
            async with post.changing:
                child = post.child
                assert child is not None
                if not child.gone.is_set():
                    return  # it was replaced meanwhile
                try:
                    post.child = await self._start(post, child.berth)
                except LocalError as error:
                    log.error("%s cannot be started: %s", post.title, error)
                    lived_seconds = 0.0
                else:
                    self._join_heir(post)
                    _answer_for_the_dead(post)
                    return

    # -- replacing ----------------------------------------------------------------------------------

    async def _replace(self, post: Post) -> None:
        if post.leaving is not None:
            log.warning("%s is being replaced already; it is left as it is", post.title)
            return
        try:
            new = await self._start(post, post.free_berth())
        except LocalError as error:
            log.error("%s is not replaced: %s", post.title, error)
            return
        post.leaving, post.child = post.child, new
        self._steer()
        self._join_heir(post)
        self._nursery.start_soon(self._see_off, post)
        log.info("%s has a new process, %d", post.title, new.process.pid)

    def _join_heir(self, post: Post) -> None:
        if post.leaving is not None and post.child is not None:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            post.child.channel.send(Inherit(), near)
            post.leaving.channel.send(PassOn(), far)

    async def _see_off(self, post: Post) -> None:
        """Task: from now on until the old process is gone."""
        old = post.leaving
        assert old is not None
        await old.drained.wait()
        post.leaving = None
        self._steer()  # then the old socket is filled no more
        old.channel.send(Finish())
        with trio.move_on_after(END_SECONDS):
            await old.gone.wait()
        old.process.kill()
        _answer_for_the_dead(post)
        log.info("the process %d has ended", old.process.pid)

    def _lead_lost(self, worker: Child, lead_name: int) -> None:
        """A worker's channel to a lead ended: it is of no use if that lead lives on without it."""
        lead = self._leading
        if lead is not None and lead.name == lead_name:
            self._nursery.start_soon(self._replace_orphan, worker, lead)

    async def _replace_orphan(self, worker: Child, lead: Child) -> None:
        """Task: replaces a worker that lost its lead, unless that ended: then the next one comes to it."""
        with trio.move_on_after(2 * END_SECONDS):  # who is told to end is killed after half of that
            await lead.gone.wait()
        post = next((post for post in self._workers if post.child is worker), None)

        def is_orphan() -> bool:
            is_there = not worker.gone.is_set() and (post is None or post.child is worker)
            return is_there and self._leading is lead and not lead.gone.is_set()

        if post is None:
            if is_orphan() and not worker.is_ready:
                worker.process.kill()  # it will never be: whoever waits for it tries again
            return
        while is_orphan():
            async with post.changing:
                if is_orphan() and post.leaving is None:
                    log.error("%s has lost the lead, which lives on: it is replaced", post.title)
                    await self._replace(post)
            await trio.sleep(END_SECONDS)  # until it can be: another may be leaving, or none could start

    async def _replace_lead(self) -> None:
        """Nobody but the tracker is connected to it, so the new one may begin when the old one is gone."""
        old = self._lead.child
        if old is None or old.gone.is_set():
            return
        new = await self._spawn(LEAD_BERTH)  # it loads its code meanwhile
        self._lead.child = new
        old.channel.send(Finish())
        with trio.move_on_after(END_SECONDS):
            await old.gone.wait()
        old.process.kill()
        if not new.gone.is_set():
            self._begin(self._lead, new)
        with trio.move_on_after(START_SECONDS):
            await new.settled.wait()
        if new.is_ready:
            log.info("the lead has a new process, %d", new.process.pid)
        else:
            log.error("the lead's new process does not answer: %s", new.failure)
            new.process.kill()  # then another is started

    def _steer(self) -> None:
        table = [LEAD_BERTH]
        for post in self._workers:
            table += [post.target(berth) for berth in post.berths]
        steer(self._sockets[0], table)


def _answer_for_the_dead(post: Post) -> None:
    """Where nobody is any more, whoever stands there now tells clients that their connections are gone."""
    if post.leaving is None and post.child is not None:
        for berth in set(post.berths) - {post.child.berth}:
            post.child.channel.send(StandFor(berth))


def _introduce(lead: Child, worker: Child) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lead.channel.send(Meet(worker.name), near)
    worker.channel.send(Meet(lead.name), far)


async def supervise(
    config: EdgeConfig, *, task_status: trio.TaskStatus[EdgeReady] = trio.TASK_STATUS_IGNORED
) -> None:
    """Runs an edge of several processes until cancelled; `task_status` gets a Ready once all answer.

    Raises LocalError if a setting, the key, the store or an address cannot be used.
    """
    trackers_of(config)
    with locked(config.data, "edge.data"):
        identity = await trio.to_thread.run_sync(Identity.load, config.data / "key")
        listen = parse_host_port(config.listen)
        sockets = await bind_group(listen, "edge.listen", 1 + 2 * config.workers)
        try:
            async with trio.open_nursery() as nursery:
                supervisor = Supervisor(config, sockets, nursery)
                await supervisor.begin()
                await nursery.start(supervisor.renew_on_signal)
                at = reachable(host_port(sockets[0].getsockname()))
                task_status.started(EdgeReady(Address(identity.id, at), supervisor.set_draining))
                await trio.sleep_forever()
        finally:
            for sock in sockets:
                sock.close()
