"""What an edge and its tracker say to each other about load and about content to hold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from shared.core.codec import Limit
from shared.core.errors import Reason
from shared.core.fields import BIG, EDGE, TRACKER, U32, Bytes, Detail, Hash, Node, Rate
from shared.core.ids import Kind
from shared.core.records import Source

Order = Annotated[int, Limit(1, U32, "the tracker's number of the order")]


class PlaceStage(StrEnum):
    """How far an edge is with an order to hold a title."""

    ACCEPTED = "accepted"
    FETCHING = "fetching"
    HELD = "held"  # whole and verified
    DECLINED = "declined"


@dataclass(frozen=True, slots=True)
class Load:
    """How loaded an edge is; every report interval, and at once when it begins or ends to drain."""

    code: ClassVar[int] = 20
    said_by: ClassVar[frozenset[Kind]] = EDGE
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    capacity_rate: Annotated[int, Limit(1, 1 << 40, "what it can send, bytes per second")]
    load_rate: Rate  # sent now
    quota_bytes: Annotated[int, Limit(0, BIG, "room for titles; 0: it takes no orders")]
    held_bytes: Bytes  # of that room in use
    clock_ms: Annotated[int, Limit(0, BIG, "its clock, milliseconds since 1970")]
    draining: Annotated[int, Limit(0, 1, "1: it wants nobody new")] = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Orders an edge to hold a rendition; answered by Placed, at every change of stage."""

    code: ClassVar[int] = 21
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = EDGE

    order: Order
    infohash: Hash
    signer: Node  # whose signature the manifest must carry
    length: Bytes  # of the file
    before: Annotated[int, Limit(0, BIG, "seconds since 1970; 0: viewers are waiting")]
    ticket: Annotated[bytes, Limit(1, 512, "see Tickets")]
    sources: Annotated[tuple[Source, ...], Limit(1, 8, "edges that hold it, best first")]


@dataclass(frozen=True, slots=True)
class Placed:
    """How far an order is."""

    code: ClassVar[int] = 22
    said_by: ClassVar[frozenset[Kind]] = EDGE
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    order: Order
    stage: Annotated[PlaceStage, Limit(1, 16, "stage")]
    permille: Annotated[int, Limit(0, 1000, "of the file held")]
    reason: Annotated[Reason, Limit(0, 255, "why it is declined")]
    detail: Detail = ""


@dataclass(frozen=True, slots=True)
class Evict:
    """A rendition that is worth least on this edge: when room is wanted, it may go first."""

    code: ClassVar[int] = 23
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = EDGE

    infohash: Hash
