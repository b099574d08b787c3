"""What trackers of two tiers say to each other, and whom a tracker vouches for to everybody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from shared.core.codec import Limit
from shared.core.fields import BIG, HOLDERS, TRACKER, U32, Hash, Node, Request, Title
from shared.core.ids import NODE_ID_BYTES, Kind
from shared.core.records import Entry, Source

MAX_FELLOWS = 64
MAX_ADMITTED = 1024  # edges of other regions
HOLDS_ENTRIES = 8  # of the longest: with the swarms they stay under the longest message
HOLDS_SWARMS = 64
SWARM_EDGES = 4


@dataclass(frozen=True, slots=True)
class SwarmHeld:
    """How one rendition is held in a region; without edges and holders it is held there no more."""

    infohash: Hash
    edges: Annotated[tuple[Source, ...], Limit(0, SWARM_EDGES, "that hold all of it, least loaded first")]
    holders: Annotated[tuple[int, ...], Limit(0, 8, "terminals by class of spare upload, 0 first")]
    heat: Annotated[int, Limit(0, BIG, "decayed count of asks, in thousandths")]


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A title that is no more for everybody, or gone."""

    title_id: Title


@dataclass(frozen=True, slots=True)
class Fellow:
    """A tracker of the same platform: its tickets are as good as those of the one that names it."""

    node: Node
    at: Annotated[str, Limit(3, 300, "host:port to dial")]
    region: Annotated[str, Limit(0, 32, "region")]


@dataclass(frozen=True, slots=True)
class Holds:
    """What a region holds: all of it in the first message of a connection and those it announces
    with `more`, then changes only."""

    code: ClassVar[int] = 25
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    sequence: Annotated[int, Limit(1, U32, "from 1 on in each connection, without a gap")]
    entries: Annotated[tuple[Entry, ...], Limit(0, HOLDS_ENTRIES, "titles registered here, for everybody")]
    swarms: Annotated[tuple[SwarmHeld, ...], Limit(0, HOLDS_SWARMS, "that changed")]
    withdrawn: Annotated[tuple[Withdrawn, ...], Limit(0, HOLDS_SWARMS, "titles to be forgotten")] = ()
    more: Annotated[int, Limit(0, 1, "1: the full state goes on in the next")] = 0
    at: Annotated[str, Limit(0, 300, "where others dial this tracker, if not where it is seen at")] = ""


@dataclass(frozen=True, slots=True)
class Seek:
    """Asks the central tier who else holds a rendition; answered by Found or a Refusal."""

    code: ClassVar[int] = 26
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    request: Request
    infohash: Hash


@dataclass(frozen=True, slots=True)
class Found:
    """The title of a rendition and the edges of other regions that hold it."""

    code: ClassVar[int] = 27
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    request: Request
    entry: Annotated[tuple[Entry, ...], Limit(1, 1, "the title")]
    sources: Annotated[tuple[Source, ...], Limit(0, 8, "edges, best first")]


@dataclass(frozen=True, slots=True)
class Fellows:
    """All trackers whose tickets count and to whom a node may turn when its own is gone; replaces
    what was said before. A tracker hears of the edges they admit, too."""

    code: ClassVar[int] = 28
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = HOLDERS | TRACKER

    trackers: Annotated[tuple[Fellow, ...], Limit(0, MAX_FELLOWS, "without the one that hears it")]
    edges: Annotated[bytes, Limit(0, MAX_ADMITTED * NODE_ID_BYTES, "node ids, one after the other")] = b""
    calm: Annotated[int, Limit(0, 1, "1: too many nodes are here to be pinged every second by each")] = 0
