"""What fields of messages have in common: who speaks, and the limits of what is said."""

from __future__ import annotations

from typing import Annotated

from shared.core.codec import Limit
from shared.core.ids import InfoHash, Kind, NodeId, TitleId

TERMINALS = frozenset({Kind.PC, Kind.STB, Kind.MOBILE})
HOLDERS = TERMINALS | {Kind.EDGE}
ANYBODY = frozenset(Kind)
TRACKER, EDGE, TOOL = (frozenset({kind}) for kind in (Kind.TRACKER, Kind.EDGE, Kind.TOOL))
CLIENTS = ANYBODY - TRACKER

U32 = (1 << 32) - 1
BIG = (1 << 53) - 1  # largest integer every JSON reader keeps exact
Request = Annotated[int, Limit(1, U32, "chosen by the asker; the answer carries it back")]
Hash = Annotated[InfoHash, Limit(32, 32, "SHA-256 of the info dictionary (BEP 52)")]
Node = Annotated[NodeId, Limit(32, 32, "SHA-256 of the node's Ed25519 public key")]
Title = Annotated[TitleId, Limit(16, 16, "names a title for good")]
Rate = Annotated[int, Limit(0, 1 << 40, "bytes per second")]
Count = Annotated[int, Limit(0, U32, "a count")]
Bytes = Annotated[int, Limit(0, BIG, "bytes")]
Detail = Annotated[str, Limit(0, 400, "one line for a person")]
