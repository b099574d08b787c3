"""Who joined a swarm that we hold pieces of, and what they were told."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.core.bitfield import Bitfield
from shared.core.ids import NodeId

MAX_GUESTS = 512  # per swarm: bounds memory against ticket holders in masses
FOREVER = float("inf")


@dataclass(slots=True)
class Guest:
    """Somebody who joined a swarm here."""

    expires_at: float
    quota_bytes: int
    taken_bytes: int = 0


@dataclass(slots=True)
class Holding:
    """One swarm we hold pieces of."""

    held: Bitfield
    guests: dict[NodeId, Guest] = field(default_factory=dict)
    gone_guests: dict[NodeId, Guest] = field(default_factory=dict)  # leaving renews no quota
    news: list[int] = field(default_factory=list)
    losses: list[int] = field(default_factory=list)
    tell_at: float = FOREVER
    announce_at: float = 0.0
    started: bool = False
    completed: bool = False
    promised: bool = False  # what is missing is on its way here: guests may ask for all of it

    def part(self, node: NodeId) -> None:
        """A guest goes; what it took is remembered for a while, the latest to go longest."""
        guest = self.guests.pop(node, None)
        if guest is not None:
            self.gone_guests[node] = guest
            if len(self.gone_guests) > MAX_GUESTS:
                del self.gone_guests[next(iter(self.gone_guests))]
