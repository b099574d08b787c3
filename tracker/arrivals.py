"""When a door takes datagrams from its socket: at once, or together with what comes soon.

Waking up costs as much as answering ten datagrams. Those that come one after the other are
therefore taken a quarter of a millisecond at a time, while a single one is answered at once.
"""

from __future__ import annotations

from math import inf
from types import TracebackType

import trio

from shared import clock
from shared.alarm import alarm
from tracker.mmsg import BatchSocket

SPACING_SECONDS = 0.00025
TRAIN_SECONDS = 0.002  # batches that follow each other within this come in a row
FULL_COUNT = 64  # datagrams; so many are a batch already


class Arrivals:
    """Batches from a socket, for one task. A context manager."""

    def __init__(self, sock: BatchSocket) -> None:
        self._socket = sock
        self._alarm = alarm(sock.raw)
        self._count = 0  # of the last batch
        self._took_at = -inf
        self._is_train = False

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.close()

    async def take(self) -> int:
        """Waits for datagrams; how many there are in the socket's rows. Others have had their turn."""
        if self._count:
            await self._pause(clock.now())
            if self._take():
                return self._count
        while True:
            await self._alarm.wait(inf, reads=True, writes=False)
            if self._take():
                return self._count

    async def _pause(self, now: float) -> None:
        if self._is_train and self._count < FULL_COUNT:
            await self._alarm.wait(now + SPACING_SECONDS, reads=False, writes=False)
        else:
            await trio.lowlevel.checkpoint()

    def _take(self) -> int:
        self._count = self._socket.receive()
        if self._count:
            now = clock.now()
            self._is_train = now < self._took_at + TRAIN_SECONDS
            self._took_at = now
        return self._count
