"""What an edge's core wants of its shell, and what all that it fetches shares."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from edge.core.crew import CaughtUp, Expect, Forget, Gained, Hold, Issuers, Say, TrackerIs
from shared.core.actions import Action
from shared.core.ids import InfoHash


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Delete this title."""

    infohash: InfoHash


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the operator may want to read in the log."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True)
class TellWorkers:
    """Each of our workers, or the one of this name, must know."""

    word: Hold | Forget | TrackerIs | Issuers | CaughtUp | Say | Expect | Gained
    worker: int | None = None


@dataclass(slots=True)
class Outbox:
    """Orders for the shell, and numbers for requests, of all that is fetched."""

    actions: deque[Action | GiveUp | Note | TellWorkers] = field(default_factory=deque)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    owners: dict[int, InfoHash] = field(default_factory=dict)  # of requests under way
