"""A node that speaks the protocol by hand, to a tracker that runs in the test's process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import trio

from shared.connection import Connection, Stream
from shared.core.ids import Address, Kind, NodeId
from shared.core.messages import Entry, Hello, Message, Schedule
from shared.core.session import Session
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.setting_types import HostPortText
from tests.tracker_parts import entry, hello
from tracker.config import TrackerConfig
from tracker.server import Ready, serve

LOOPBACK = HostPortText("127.0.0.1:0")
T = TypeVar("T", bound=Message)


class Client:
    """A node that speaks the protocol by hand."""

    def __init__(self, endpoint: Endpoint, connection: Connection, control: Stream, session: Session) -> None:
        self.id: NodeId = endpoint.identity.id
        self.connection = connection
        self.control = control
        self._session = session
        self._heard: list[Message] = []

    async def say(self, message: Message) -> None:
        await self.control.send_all(self._session.send(message))

    async def hear_any(self) -> Message:
        while not self._heard:
            self._heard += self._session.receive(await self.control.receive_some())
        return self._heard.pop(0)

    async def hear(self, kind: type[T]) -> T:
        """The next message, which must be a `kind`."""
        message = await self.hear_any()
        assert isinstance(message, kind)
        return message

    async def ask(self, message: Message, kind: type[T]) -> T:
        await self.say(message)
        return await self.hear(kind)


@asynccontextmanager
async def client_of(
    tracker: Address, kind: Kind = Kind.PC, identity: Identity | None = None
) -> AsyncIterator[Client]:
    with trio.fail_after(20):
        async with open_endpoint(identity or Identity.generate(), "127.0.0.1", 0) as endpoint:
            connection = await endpoint.connect(tracker.node, tracker.at)
            client = Client(endpoint, connection, connection.open_stream(), Session(kind))
            await client.say(hello(kind))
            theirs = await client.hear(Hello)
            assert theirs.kind is Kind.TRACKER
            assert theirs.observed == str(endpoint.local)
            await client.hear(Schedule)
            yield client


def config_of(folder: Path, **changed: Any) -> TrackerConfig:
    return TrackerConfig(**{"listen": LOOPBACK, "api": LOOPBACK, "data": folder, **changed})


@asynccontextmanager
async def tracker_of(config: TrackerConfig) -> AsyncIterator[Ready]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(serve, config)
            nursery.cancel_scope.cancel()


def film_of(edge: Identity) -> Entry:
    return entry("film", edge.id)
