"""What an edge and its tracker say about the edge's door for stock BitTorrent clients (BEP 19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from shared.core.codec import Limit
from shared.core.fields import EDGE, TRACKER, Hash, Request
from shared.core.ids import Kind


@dataclass(frozen=True, slots=True)
class WebSeed:
    """The edge serves renditions that are for everybody over HTTP, at the address it is seen at."""

    code: ClassVar[int] = 31
    said_by: ClassVar[frozenset[Kind]] = EDGE
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    port: Annotated[int, Limit(1, 65535, "TCP port")]


@dataclass(frozen=True, slots=True)
class AskOpen:
    """Asks whether a rendition is for everybody; answered by IsOpen or a Refusal."""

    code: ClassVar[int] = 32
    said_by: ClassVar[frozenset[Kind]] = EDGE
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    request: Request
    infohash: Hash


@dataclass(frozen=True, slots=True)
class IsOpen:
    """The rendition is for everybody; ask again when the time is over."""

    code: ClassVar[int] = 33
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = EDGE

    request: Request
    seconds: Annotated[int, Limit(1, 3600, "so long the answer holds")]
