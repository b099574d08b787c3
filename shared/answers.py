"""Waiting for the tracker's answers: the tasks' side of `shared.core.tracker_link`."""

from __future__ import annotations

from collections.abc import Callable

import trio

from shared.core.actions import Answer
from shared.core.messages import Message


class Answers:
    """Matches Answer orders to the tasks that asked. `pump` carries out what the core decided."""

    def __init__(self, pump: Callable[[], None]) -> None:
        self._pump = pump
        self._waiting: dict[int, tuple[trio.Event, list[Message | None]]] = {}

    def take(self, answer: Answer) -> None:
        """The core got an answer; one that nobody waits for any more is dropped."""
        waiting = self._waiting.get(answer.request)
        if waiting is not None:
            waiting[1].append(answer.message)
            waiting[0].set()

    async def wait(self, request: int) -> Message | None:
        """The answer to a request that the core was just given; None if there is no tracker."""
        waiting = self._waiting[request] = (trio.Event(), [])
        try:
            self._pump()
            await waiting[0].wait()
        finally:
            del self._waiting[request]
        return waiting[1][0]
