"""What a core may ask of the dice it is handed; `random.Random` offers it."""

from __future__ import annotations

from typing import Any, Protocol


class Dice(Protocol):
    """Seeded in tests, so that the same seed gives the same trace."""

    def random(self) -> float:
        """A number from 0 up to, not including, 1."""
        ...

    def randrange(self, stop: int, /) -> int:
        """A whole number from 0 up to, not including, `stop`."""
        ...

    def shuffle(self, x: Any, /) -> None:
        """Mixes a list in place."""
        ...
