"""How a node and its tracker agree on a seal: see `shared/core/sealed.py` for what it is good for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from shared.core.codec import Limit
from shared.core.fields import HOLDERS, TRACKER, Request
from shared.core.ids import Kind


@dataclass(frozen=True, slots=True)
class Seal:
    """The answer to a WantSeal: what asks by datagram are sealed with. One more ends the one before."""

    code: ClassVar[int] = 29
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = HOLDERS

    request: Request
    number: Annotated[bytes, Limit(7, 7, "names the seal in every datagram")]
    ask_key: Annotated[bytes, Limit(16, 16, "AES-128-GCM, of what the node sends")]
    answer_key: Annotated[bytes, Limit(16, 16, "AES-128-GCM, of what the tracker sends")]
    life_seconds: Annotated[int, Limit(1, 86_400, "from now on it is good for so long")]
    worker: Annotated[int, Limit(0, 255, "takes infohashes whose first byte, modulo `workers`, is this")] = 0
    workers: Annotated[int, Limit(1, 256, "of the tracker, each with a door and seals of its own")] = 1
    at: Annotated[str, Limit(0, 300, "host:port of the door; empty: where this connection goes to")] = ""


@dataclass(frozen=True, slots=True)
class WantSeal:
    """Asks for a seal; answered by a Seal for each worker, or a Refusal: then ask on this stream."""

    code: ClassVar[int] = 30
    said_by: ClassVar[frozenset[Kind]] = HOLDERS
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    request: Request
