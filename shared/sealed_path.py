"""Carries announces, locates and reports of one connection to a tracker past it, by sealed datagrams."""

from __future__ import annotations

from collections.abc import Callable

import trio

from shared import clock
from shared.connection import Connection
from shared.core.messages import Announce, Locate, Message, Refusal, Report, Seal
from shared.core.sealed_link import Datagram, Heard, Say, SealedLink, Vouch
from shared.endpoint import Endpoint


class SealedPath:
    """Beside one connection; `run` it while that lasts."""

    def __init__(
        self,
        endpoint: Endpoint,
        connection: Connection,
        say: Callable[[Message], None],
        hear: Callable[[Message], None],
    ) -> None:
        """`say` puts a message on the connection, `hear` tells the core one."""
        self.link = SealedLink()
        self._asides = endpoint.asides
        self._connection = connection
        self._say, self._hear = say, hear
        self._moved = trio.Event()
        self._pumping = False

    def take(self, message: Message) -> bool:
        """Whether a message to the tracker goes this way."""
        taken = isinstance(message, Announce | Locate | Report) and self.link.take(message, clock.now())
        self._pump()
        return taken

    def told(self, message: Message) -> bool:
        """Whether a message from the tracker is for us alone. Raises ProtocolError."""
        if isinstance(message, Seal):
            self.link.given(message, clock.now())
            self._pump()
            return True
        return isinstance(message, Refusal) and self.link.refused(message)

    async def run(self) -> None:
        """Task: hears answers, and asks again."""
        self._asides.listeners.append(self._arrived)
        try:
            self._pump()
            while True:
                self._moved = trio.Event()
                wait_seconds = self.link.get_timer() - clock.now()
                if wait_seconds > 0:
                    with trio.move_on_after(min(wait_seconds, 3600.0)):
                        await self._moved.wait()
                        continue
                self.link.handle_timer(clock.now())
                self._pump()
                await trio.lowlevel.checkpoint()
        finally:
            self._asides.listeners.remove(self._arrived)

    def _arrived(self, datagram: bytes) -> None:
        self.link.receive(datagram, clock.now())
        self._pump()

    def _pump(self) -> None:
        if self._pumping:
            return  # an answer made the core ask anew: the loop below goes on with it
        self._pumping = True
        try:
            while (action := self.link.next_action()) is not None:
                match action:
                    case Datagram():
                        self._asides.send(action.data, action.at or self._connection.remote)  # or lost
                    case Heard():
                        self._hear(action.message)
                    case Say():
                        self._say(action.message)
                    case Vouch():
                        self._connection.vouch(clock.now())
        finally:
            self._pumping = False
        self._moved.set()
