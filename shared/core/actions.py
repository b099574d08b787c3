"""What cores ask their shells to do: small frozen orders, carried out in the order given."""

from __future__ import annotations

from dataclasses import dataclass

from shared.core.errors import Reason
from shared.core.ids import HostPort, InfoHash, NodeId
from shared.core.messages import Fellow, Message


@dataclass(frozen=True, slots=True)
class Send:
    """Say this to a connected node; dropped if it is gone."""

    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect; ends in `connected` or `disconnected`."""

    node: NodeId
    at: HostPort


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the connection, telling why."""

    node: NodeId
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Serve:
    """Answer this waiting piece request now; ends in `served`."""

    request: int


@dataclass(frozen=True, slots=True)
class Decline:
    """Answer this waiting piece request with a reason."""

    request: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a source for leaves of a piece on a bulk stream; ends in `chunk_ended`."""

    request: int
    node: NodeId
    infohash: InfoHash
    piece: int
    first_leaf: int
    leaf_count: int
    slack_ms: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give up an Ask; what has arrived stays. Ends in `chunk_ended` with CANCELLED."""

    request: int


@dataclass(frozen=True, slots=True)
class AskManifest:
    """Ask a source for a swarm's manifest; ends in `manifest_arrived` or `manifest_failed`."""

    node: NodeId
    infohash: InfoHash
    signer: NodeId


@dataclass(frozen=True, slots=True)
class Answer:
    """The tracker answered a request of ours (None: the link broke first)."""

    request: int
    message: Message | None


@dataclass(frozen=True, slots=True)
class Attend:
    """Notice soon if this node falls silent, or be patient again."""

    node: NodeId
    hasty: bool


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep these for the next start: whom to turn to when our tracker is dead."""

    fellows: tuple[Fellow, ...]


Action = (
    Answer | Attend | Remember | Send | Dial | Hangup | Serve | Decline | Ask | Cancel | AskManifest
)  # fmt: skip
