"""The shell around a core: connections and their control streams, dialling, and one timer.

Whatever happens is told to the core, and then its orders are carried out (`pump`). Orders that
belong to one role only go to that role's `act`. A node may be connected twice for a moment
(both dialled at once, or it came back before we missed it): the newest connection is used, and
the core hears `connected` again.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import trio

from shared import clock
from shared.connection import Connection, Stream
from shared.core.actions import Attend, Dial, Hangup, Send
from shared.core.errors import ConnectionLost, LocalError, ProtocolError, Reason, RemoteError
from shared.core.fields import HOLDERS
from shared.core.ids import HostPort, Kind, Mode, NodeId
from shared.core.messages import PROTOCOL_VERSION, Hello, Message, Seal
from shared.core.session import Session
from shared.endpoint import Endpoint
from shared.sealed_path import SealedPath

log = logging.getLogger(__name__)

OUTBOX_MESSAGES = 512  # a node that reads slower than this is hung up on
HELLO_SECONDS = 10.0
DIAL_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 4.0  # the dialler keeps what it dialled alive
IDLE_SECONDS = 12.0  # three keep-alives lost in a row: it is gone
HASTY_KEEP_ALIVE_SECONDS = 1.0  # where another can take its place, a dead one is to be missed soon
SILENT_SECONDS = 1.8  # of a node that must not be: it has not answered a ping, nor its repetitions
SECOND_LOOK_SECONDS = 0.2  # what came while this process slept is read first


class Core(Protocol):
    """What every core offers its shell."""

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None: ...
    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None: ...
    def receive(self, message: Message, sender: NodeId, now: float) -> None: ...
    def get_timer(self) -> float: ...
    def handle_timer(self, now: float) -> None: ...
    def next_action(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Introduction:
    """What our Hello says of us."""

    kind: Kind
    mode: Mode
    region: str
    software: str

    def hello(self, observed: HostPort) -> Hello:
        """The Hello for a node seen at `observed`."""
        return Hello(PROTOCOL_VERSION, self.kind, self.mode, self.region, self.software, str(observed))


@dataclass(slots=True)
class _Link:
    connection: Connection
    session: Session
    outbox: trio.MemorySendChannel[Message]
    queue: trio.MemoryReceiveChannel[Message]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    greeted: bool = False
    sealed: SealedPath | None = None  # what goes by datagram
    answering: int = 0  # bulk streams
    hasty: bool = False


Act = Callable[[Any], None]
OnStream = Callable[[NodeId, Stream], Awaitable[None]]


class Node:
    """Runs one core on one endpoint. Use `open_node`."""

    def __init__(
        self, endpoint: Endpoint, core: Core, introduction: Introduction, act: Act, on_stream: OnStream
    ) -> None:
        self.endpoint = endpoint
        self.core = core
        self._introduction = introduction
        self._act = act
        self._on_stream = on_stream
        self._links: dict[NodeId, _Link] = {}
        self._dialling: set[NodeId] = set()
        self._timer_moved = trio.Event()
        self._pumping = False
        self.nursery: trio.Nursery

    # -- towards the core -----------------------------------------------------------------------

    def pump(self) -> None:
        """Carries out what the core decided; call it after everything told to the core."""
        if self._pumping:
            return  # an order told the core something: the loop below goes on with it
        self._pumping = True
        try:
            while (action := self.core.next_action()) is not None:
                self._carry_out(action)
        finally:
            self._pumping = False
        self._timer_moved.set()

    def _carry_out(self, action: Any) -> None:
        match action:
            case Send():
                self._send(action)
            case Dial():
                self._dial(action)
            case Attend():
                self._attend(action)
            case Hangup():
                link = self._links.get(action.node)
                if link is not None:
                    link.connection.close(action.reason, action.detail)
            case _:
                self._act(action)

    def _send(self, action: Send) -> None:
        link = self._links.get(action.to)
        if link is not None and not (link.sealed and link.sealed.take(action.message)):
            self._say(link, action.message)

    def _say(self, link: _Link, message: Message) -> None:
        try:
            link.outbox.send_nowait(message)
        except trio.WouldBlock:
            link.connection.close(Reason.BUSY, "reads too slowly")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is just going down; the core will hear so

    def _dial(self, action: Dial) -> None:
        if action.node in self._dialling:
            return
        if action.node in self._links:
            link = self._links[action.node]
            if link.greeted and link.session.theirs is not None:
                now = clock.now()
                self.core.connected(action.node, link.connection.remote, link.session.theirs, now)
            return
        self._dialling.add(action.node)
        self.nursery.start_soon(self._dial_and_run, action)

    def _attend(self, action: Attend) -> None:
        link = self._links.get(action.node)
        if link is None or link.hasty == action.hasty:
            return
        link.hasty = action.hasty
        if link.connection.is_client:
            seconds = HASTY_KEEP_ALIVE_SECONDS if action.hasty else KEEP_ALIVE_SECONDS
            link.connection.keep_alive_seconds = seconds
        if action.hasty:
            self.nursery.start_soon(self._mistrust, link)

    async def _mistrust(self, link: _Link) -> None:
        connection = link.connection
        while connection.is_established and link.hasty:
            silence = clock.now() - connection.heard_at
            if silence < SILENT_SECONDS:
                await trio.sleep(SILENT_SECONDS - silence)
                continue
            await trio.sleep(SECOND_LOOK_SECONDS)
            if clock.now() - connection.heard_at > SILENT_SECONDS:
                connection.close(Reason.TIMEOUT, "it does not answer")

    async def _dial_and_run(self, action: Dial) -> None:
        try:
            connection = await self.endpoint.connect(
                action.node, action.at, timeout=DIAL_SECONDS, keep_alive_seconds=KEEP_ALIVE_SECONDS
            )
        except (ConnectionLost, LocalError) as error:
            log.info("cannot reach %s at %s: %s", action.node.hex()[:8], action.at, error)
            self._dialling.discard(action.node)
            self.core.disconnected(action.node, Reason.TIMEOUT, clock.now())
            self.pump()
            return
        self._dialling.discard(action.node)
        await self._run_link(connection)

    def connection(self, node: NodeId) -> Connection:
        """The connection to a node. Raises ConnectionLost if there is none."""
        link = self._links.get(node)
        if link is None:
            raise ConnectionLost(Reason.TIMEOUT, f"not connected to {node.hex()[:8]}")
        return link.connection

    def vouch(self, node: NodeId) -> None:
        """A node was heard beside its connection, which is alive therefore."""
        link = self._links.get(node)
        if link is not None:
            link.connection.vouch(clock.now())

    def dismiss_idle(self, reason: Reason) -> int:
        """Ends connections on which nothing is being answered; how many others there are."""
        busy = 0
        for link in self._links.values():
            if link.answering:
                busy += 1
            else:
                link.connection.close(reason, "served elsewhere from now on")
        return busy

    # -- connections ----------------------------------------------------------------------------

    async def _accept(self) -> None:
        while True:
            connection = await self.endpoint.accept()
            self.nursery.start_soon(self._run_link, connection)

    async def _run_link(self, connection: Connection) -> None:
        outbox, queue = trio.open_memory_channel[Message](OUTBOX_MESSAGES)
        link = _Link(connection, Session(self._introduction.kind), outbox, queue)
        other = self._links.get(connection.peer)
        if other is not None and not self._is_better(connection, other.connection):
            connection.close(Reason.CANCELLED, "connected already")
            return
        self._links[connection.peer] = link
        if other is not None:
            other.connection.close(Reason.CANCELLED, "replaced by a newer connection")
        reason = Reason.NONE
        try:
            async with trio.open_nursery() as nursery:
                link.scope = nursery.cancel_scope
                nursery.start_soon(self._watch, link)
                await self._speak(link, nursery)
        except* RemoteError as group:
            error = _first(group)
            reason = error.reason
            connection.close(error.reason, error.detail)
        except* LocalError as group:
            reason = Reason.INTERNAL
            log.error("%s", _first(group))
            connection.close(reason)
        except* trio.Cancelled:
            connection.close(Reason.SHUTDOWN, "the node is stopping")
            raise
        finally:
            self._unlink(link, reason)

    def _is_better(self, new: Connection, old: Connection) -> bool:
        """The newer one, since a node that comes back has forgotten the older. But when both
        sides dialled at once they must keep the same one: that of the smaller id."""
        if new.is_client == old.is_client:
            return True
        dialled_by_us = self.endpoint.identity.id < new.peer
        return new.is_client == dialled_by_us

    def _unlink(self, link: _Link, reason: Reason) -> None:
        node = link.connection.peer
        if self._links.get(node) is link:
            del self._links[node]
            self.core.disconnected(node, reason, clock.now())
            self.pump()

    async def _watch(self, link: _Link) -> None:
        raise await link.connection.wait_closed()

    async def _speak(self, link: _Link, nursery: trio.Nursery) -> None:
        connection = link.connection
        with trio.move_on_after(HELLO_SECONDS) as timeout:
            control = connection.open_stream() if connection.is_client else await connection.accept_stream()
            await control.send_all(link.session.send(self._introduction.hello(connection.remote)))
            while link.session.theirs is None:
                await self._listen_once(link, control)
        if timeout.cancelled_caught or link.session.theirs is None:
            raise ProtocolError(Reason.TIMEOUT, "no Hello")
        if link.sealed is not None:
            nursery.start_soon(link.sealed.run)
        nursery.start_soon(self._write, link, control)
        nursery.start_soon(self._take_streams, link, nursery)
        while True:
            await self._listen_once(link, control)

    async def _listen_once(self, link: _Link, control: Stream) -> None:
        received = await control.receive_some()
        if not received:
            raise ConnectionLost(Reason.NONE, "control stream ended")
        for message in link.session.receive(received):
            self._tell(link, message)
        self.pump()

    def _tell(self, link: _Link, message: Message) -> None:
        connection = link.connection
        if isinstance(message, Hello):
            link.greeted = True
            link.sealed = self._sealed_path(link, message)
            self.core.connected(connection.peer, connection.remote, message, clock.now())
        elif isinstance(message, Seal) and link.sealed is None:
            raise ProtocolError(Reason.UNEXPECTED, "a seal nobody wanted")
        elif link.sealed is None or not link.sealed.told(message):
            self.core.receive(message, connection.peer, clock.now())

    def _sealed_path(self, link: _Link, hello: Hello) -> SealedPath | None:
        """Where answers by datagram would find us: a port that is ours alone."""
        if hello.kind is not Kind.TRACKER or self._introduction.kind not in HOLDERS:
            return None
        if not self.endpoint.asides.is_alone:
            return None

        def hear(message: Message) -> None:
            try:
                self.core.receive(message, link.connection.peer, clock.now())
            except ProtocolError as error:
                link.connection.close(error.reason, error.detail)
            self.pump()

        return SealedPath(self.endpoint, link.connection, partial(self._say, link), hear)

    async def _write(self, link: _Link, control: Stream) -> None:
        async for message in link.queue:
            await control.send_all(link.session.send(message))

    async def _take_streams(self, link: _Link, nursery: trio.Nursery) -> None:
        while True:
            stream = await link.connection.accept_stream()
            nursery.start_soon(self._run_stream, link, stream)

    async def _run_stream(self, link: _Link, stream: Stream) -> None:
        link.answering += 1
        try:
            await self._on_stream(link.connection.peer, stream)
        except ConnectionLost:
            pass  # _watch ends the whole link
        except ProtocolError as error:
            link.connection.close(error.reason, error.detail)
        except RemoteError as error:
            stream.reset(error.reason)
        except LocalError as error:
            log.error("%s", error)
            stream.reset(Reason.INTERNAL)
        finally:
            link.answering -= 1
            stream.close()

    # -- time -----------------------------------------------------------------------------------

    async def _run_timer(self) -> None:
        while True:
            self._timer_moved = trio.Event()
            wait_seconds = self.core.get_timer() - clock.now()
            if wait_seconds > 0:
                with trio.move_on_after(min(wait_seconds, 3600.0)):
                    await self._timer_moved.wait()
                    continue
            self.core.handle_timer(clock.now())
            self.pump()
            await trio.lowlevel.checkpoint()


def _first(group: BaseExceptionGroup[Any]) -> Any:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


@asynccontextmanager
async def open_node(
    endpoint: Endpoint, core: Core, introduction: Introduction, act: Act, on_stream: OnStream
) -> AsyncIterator[Node]:
    """A running node; leaving the context stops its tasks (the endpoint says goodbye)."""
    node = Node(endpoint, core, introduction, act, on_stream)
    async with trio.open_nursery() as nursery:
        node.nursery = nursery
        nursery.start_soon(node._accept)
        nursery.start_soon(node._run_timer)
        node.pump()
        yield node
        nursery.cancel_scope.cancel()
