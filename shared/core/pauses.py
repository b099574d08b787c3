"""Processes that died are started again, and not too often."""

from __future__ import annotations

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
GOOD_LIFE_SECONDS = 60.0


class Pauses:
    """How long a process that died waits: not at all after a good life, else longer each time."""

    def __init__(self) -> None:
        self._next_seconds = 0.0

    def after(self, lived_seconds: float) -> float:
        """Seconds until it may start again."""
        if lived_seconds >= GOOD_LIFE_SECONDS:
            self._next_seconds = 0.0
        pause = self._next_seconds
        self._next_seconds = min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, 2 * pause))
        return pause
