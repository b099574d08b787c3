"""Which renditions the tracker said are for everybody, and how long its word holds."""

from __future__ import annotations

from shared.core.ids import InfoHash
from shared.core.messages import IsOpen, Message, Refusal

CLOSED_SECONDS = 10.0  # a closed rendition is not asked about again for so long


class OpenRenditions:
    """The tracker's answers. Nothing is open that it has not said is, or not said again in time."""

    def __init__(self) -> None:
        self._known: dict[InfoHash, tuple[bool, float]] = {}

    def is_open(self, infohash: InfoHash, now: float) -> bool | None:
        """None: ask the tracker."""
        is_open, until = self._known.get(infohash, (False, now))
        return is_open if now < until else None

    def heard(self, infohash: InfoHash, answer: Message | None, now: float) -> None:
        """The tracker's answer; None if there is none, which says nothing."""
        if isinstance(answer, IsOpen):
            self._known[infohash] = (True, now + answer.seconds)
        elif isinstance(answer, Refusal):
            self._known[infohash] = (False, now + CLOSED_SECONDS)
