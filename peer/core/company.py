"""What the fetches of one peer know together, so that a library of many titles costs no more
than the few that are being watched."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from shared.core.actions import Action
from shared.core.ids import HostPort, InfoHash, Kind, NodeId


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A node that is connected, as it said in its Hello."""

    at: HostPort
    kind: Kind
    shares: bool


@dataclass(slots=True)
class Company:
    """Shared by a peer and all its fetches."""

    numbers: Iterator[int] = field(default_factory=lambda: count(1))  # fresh request numbers
    actions: deque[Action] = field(default_factory=deque)  # orders for the shell
    connected: dict[NodeId, Neighbour] = field(default_factory=dict)  # said Hello and are still there
    banned: set[NodeId] = field(default_factory=set)  # who lied about one title is asked for none
    owners: dict[int, InfoHash] = field(default_factory=dict)  # running requests
    awake: dict[InfoHash, None] = field(default_factory=dict)  # fetches that wait for a moment to come
