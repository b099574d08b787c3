"""The control messages: *the* wire specification (`docs/protocol.md` is printed from it).

Every connection is QUIC with both sides' certificates pinned to their node ids. The dialler
opens one bidirectional stream for control; on it each side sends frames of a 4-byte
big-endian length and a bencoded dictionary: key `t` holds the message's code, the others its
fields. Fields at their default are left out; unknown keys are refused. `Hello` comes first,
once, from both sides. Who may say what to whom stands in each class (`said_by`, `heard_by`)
and is enforced by `shared/core/session.py`. Bulk bytes never travel here: see
`shared/core/bulk.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from shared.core import bencode, codec
from shared.core.codec import Limit
from shared.core.edge_messages import Evict as Evict
from shared.core.edge_messages import Load as Load
from shared.core.edge_messages import Place as Place
from shared.core.edge_messages import Placed as Placed
from shared.core.edge_messages import PlaceStage as PlaceStage
from shared.core.errors import ProtocolError, Reason
from shared.core.fields import (
    ANYBODY,
    BIG,
    CLIENTS,
    EDGE,
    HOLDERS,
    TOOL,
    TRACKER,
    U32,
    Bytes,
    Count,
    Detail,
    Hash,
    Node,
    Rate,
    Request,
    Title,
)  # fmt: skip
from shared.core.fields import TERMINALS as TERMINALS
from shared.core.ids import Kind, Mode
from shared.core.records import MAX_USES as MAX_USES
from shared.core.records import Entry as Entry
from shared.core.records import Rendition as Rendition
from shared.core.records import Share as Share
from shared.core.records import Source as Source
from shared.core.records import Use as Use
from shared.core.records import Why as Why
from shared.core.sealed_messages import Seal as Seal
from shared.core.sealed_messages import WantSeal as WantSeal
from shared.core.tier_messages import Fellow as Fellow
from shared.core.tier_messages import Fellows as Fellows
from shared.core.tier_messages import Found as Found
from shared.core.tier_messages import Holds as Holds
from shared.core.tier_messages import Seek as Seek
from shared.core.tier_messages import SwarmHeld as SwarmHeld
from shared.core.tier_messages import Withdrawn as Withdrawn
from shared.core.web_seed_messages import AskOpen as AskOpen
from shared.core.web_seed_messages import IsOpen as IsOpen
from shared.core.web_seed_messages import WebSeed as WebSeed

PROTOCOL_VERSION = 1
ALPN = "penstock/1"
MAX_MESSAGE_BYTES = 256 * 1024


class Event(StrEnum):
    """What an announce reports, as in BitTorrent."""

    STARTED = "started"
    UPDATE = "update"
    COMPLETED = "completed"
    STOPPED = "stopped"


class Stage(StrEnum):
    """Where an upload stands."""

    RECEIVING = "receiving"
    PREPARING = "preparing"
    HASHING = "hashing"
    REGISTERING = "registering"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Hello:
    """First on every control stream, once, from both sides."""

    code: ClassVar[int] = 1
    said_by: ClassVar[frozenset[Kind]] = ANYBODY
    heard_by: ClassVar[frozenset[Kind]] = ANYBODY

    version: Annotated[int, Limit(1, 255, "protocol version; both must speak the same")]
    kind: Annotated[Kind, Limit(1, 16, "kind of node")]
    mode: Annotated[Mode, Limit(1, 16, "direct never uploads")]
    region: Annotated[str, Limit(0, 32, "where the node says it is; may be empty")]
    software: Annotated[str, Limit(0, 64, "name and version, for operators")]
    observed: Annotated[str, Limit(3, 300, "the address the other side is seen at")]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The tracker's answer to a holder's Hello: how often to write."""

    code: ClassVar[int] = 2
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = CLIENTS

    announce_seconds: Annotated[int, Limit(1, 3600, "announce each swarm at least this often")]
    report_seconds: Annotated[int, Limit(1, 3600, "send a Report this often")]


@dataclass(frozen=True, slots=True)
class Browse:
    """Asks for a page of the catalogue."""

    code: ClassVar[int] = 3
    said_by: ClassVar[frozenset[Kind]] = ANYBODY
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    request: Request
    skip: Count = 0  # of titles to pass over


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A page of the catalogue, newest title first."""

    code: ClassVar[int] = 4
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = ANYBODY

    request: Request
    total: Count  # of all titles
    entries: Annotated[tuple[Entry, ...], Limit(0, 25, "at most 25 a page")]


@dataclass(frozen=True, slots=True)
class Describe:
    """Asks what a title is; answered by a Catalogue of one entry, or a Refusal."""

    code: ClassVar[int] = 5
    said_by: ClassVar[frozenset[Kind]] = ANYBODY
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    request: Request
    title_id: Title


@dataclass(frozen=True, slots=True)
class Locate:
    """Asks where a rendition can be had; answered by a Redirect or a Refusal."""

    code: ClassVar[int] = 6
    said_by: ClassVar[frozenset[Kind]] = CLIENTS
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    request: Request
    infohash: Hash
    stretch: Annotated[int, Limit(0, 32, "which of 32 stretches of the title is wanted next; 0: any")] = 0


@dataclass(frozen=True, slots=True)
class Redirect:
    """The tracker's ordered sources, each with its reason, and the ticket that opens them."""

    code: ClassVar[int] = 7
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = CLIENTS

    request: Request
    infohash: Hash
    signer: Node  # whose signature the manifest must carry
    ticket: Annotated[bytes, Limit(1, 512, "see Tickets")]
    connections: Annotated[int, Limit(1, 32, "how many sources to use at once")]
    sources: Annotated[tuple[Source, ...], Limit(0, 32, "best first, edges last")]


@dataclass(frozen=True, slots=True)
class Announce:
    """What the sender holds of one swarm."""

    code: ClassVar[int] = 8
    said_by: ClassVar[frozenset[Kind]] = HOLDERS
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    infohash: Hash
    event: Annotated[Event, Limit(1, 16, "as in BitTorrent")]
    held: Count  # of pieces
    total: Annotated[int, Limit(0, U32, "pieces of the swarm; 0 while unknown")]
    spare: Annotated[int, Limit(0, 7, "class of spare upload")]
    summary: Annotated[int, Limit(0, U32, "bit n: holds all of the n-th of 32 stretches")] = 0


@dataclass(frozen=True, slots=True)
class Report:
    """How the sender is doing; counters run from its start."""

    code: ClassVar[int] = 9
    said_by: ClassVar[frozenset[Kind]] = HOLDERS
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    up_rate: Rate  # sent
    down_rate: Rate  # received
    cap_rate: Annotated[int, Limit(0, 1 << 40, "upload cap in bytes per second; 0 is none")]
    edge_bytes: Bytes  # taken from edges
    peer_bytes: Bytes  # taken from peers
    uploaded_bytes: Bytes  # given to others
    held_bytes: Bytes  # on disk
    connections: Count  # of nodes connected now
    stalls: Count  # of times a picture stood still
    shares: Annotated[tuple[Share, ...], Limit(0, 8, "largest sources first")] = ()
    run: Annotated[int, Limit(0, BIG, "milliseconds since 1970 when the counters began")] = 0
    uses: Annotated[tuple[Use, ...], Limit(0, MAX_USES, "of renditions whose counters grew")] = ()


@dataclass(frozen=True, slots=True)
class Register:
    """An edge made a title and holds all of it; answered by Registered or a Refusal."""

    code: ClassVar[int] = 10
    said_by: ClassVar[frozenset[Kind]] = EDGE
    heard_by: ClassVar[frozenset[Kind]] = TRACKER

    request: Request
    title_id: Title
    title: Annotated[str, Limit(1, 800, "display title")]
    rendition_list: Annotated[tuple[Rendition, ...], Limit(1, 16, "best first")]


@dataclass(frozen=True, slots=True)
class Registered:
    """The title is in the tracker's database for good."""

    code: ClassVar[int] = 11
    said_by: ClassVar[frozenset[Kind]] = TRACKER
    heard_by: ClassVar[frozenset[Kind]] = EDGE

    request: Request


@dataclass(frozen=True, slots=True)
class Join:
    """Shows a ticket to a source; answered by Have, or by a Refusal with the same request."""

    code: ClassVar[int] = 12
    said_by: ClassVar[frozenset[Kind]] = TERMINALS | EDGE | TOOL
    heard_by: ClassVar[frozenset[Kind]] = HOLDERS

    request: Request
    infohash: Hash
    ticket: Annotated[bytes, Limit(1, 512, "see Tickets")]


@dataclass(frozen=True, slots=True)
class Have:
    """What the sender holds of a swarm; an edge that is fetching it promises all of it."""

    code: ClassVar[int] = 13
    said_by: ClassVar[frozenset[Kind]] = HOLDERS
    heard_by: ClassVar[frozenset[Kind]] = HOLDERS | TOOL

    request: Request
    infohash: Hash
    bitfield: Annotated[bytes, Limit(0, 128 * 1024, "first piece in the highest bit")]


@dataclass(frozen=True, slots=True)
class HaveMore:
    """Pieces gained since the last Have or HaveMore, batched at 250 ms."""

    code: ClassVar[int] = 14
    said_by: ClassVar[frozenset[Kind]] = HOLDERS
    heard_by: ClassVar[frozenset[Kind]] = HOLDERS | TOOL

    infohash: Hash
    pieces: Annotated[tuple[int, ...], Limit(1, 1024, "piece numbers")]


@dataclass(frozen=True, slots=True)
class Gone:
    """Pieces given up to make room."""

    code: ClassVar[int] = 15
    said_by: ClassVar[frozenset[Kind]] = HOLDERS
    heard_by: ClassVar[frozenset[Kind]] = HOLDERS | TOOL

    infohash: Hash
    pieces: Annotated[tuple[int, ...], Limit(1, 1024, "piece numbers")]


@dataclass(frozen=True, slots=True)
class Leave:
    """The sender wants no more of this swarm; its ticket may be forgotten."""

    code: ClassVar[int] = 16
    said_by: ClassVar[frozenset[Kind]] = TERMINALS | EDGE | TOOL
    heard_by: ClassVar[frozenset[Kind]] = HOLDERS

    infohash: Hash


@dataclass(frozen=True, slots=True)
class Upload:
    """A publisher wants to hand in a file, or go on with one; answered by UploadState."""

    code: ClassVar[int] = 17
    said_by: ClassVar[frozenset[Kind]] = TOOL
    heard_by: ClassVar[frozenset[Kind]] = EDGE

    request: Request
    name: Annotated[str, Limit(1, 255, "file name, no slashes")]
    title: Annotated[str, Limit(1, 800, "display title")]
    length: Annotated[int, Limit(1, 1 << 40, "bytes")]
    sha256: Annotated[bytes, Limit(32, 32, "of the whole file")]


@dataclass(frozen=True, slots=True)
class UploadState:
    """How far an upload is; sent on every change of stage and while one runs."""

    code: ClassVar[int] = 18
    said_by: ClassVar[frozenset[Kind]] = EDGE
    heard_by: ClassVar[frozenset[Kind]] = TOOL

    request: Request
    upload: Annotated[bytes, Limit(32, 32, "names the upload on bulk streams")]
    stage: Annotated[Stage, Limit(1, 16, "stage")]
    received_bytes: Bytes  # safe on the edge's disk
    permille: Annotated[int, Limit(0, 1000, "of this stage")] = 0
    address: Annotated[str, Limit(0, 400, "the title's, once published")] = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that is declined."""

    code: ClassVar[int] = 19
    said_by: ClassVar[frozenset[Kind]] = ANYBODY
    heard_by: ClassVar[frozenset[Kind]] = ANYBODY

    request: Request
    reason: Annotated[Reason, Limit(1, 255, "number of the reason")]
    detail: Detail = ""


Message = (
    Hello | Schedule | Browse | Catalogue | Describe | Locate | Redirect | Announce | Report
    | Register | Registered | Join | Have | HaveMore | Gone | Leave | Upload | UploadState | Refusal
    | Load | Place | Placed | Evict | Holds | Seek | Found | Fellows
    | Seal | WantSeal | WebSeed | AskOpen | IsOpen
)  # fmt: skip

ALL: tuple[type[Message], ...] = Message.__args__
BY_CODE = {kind.code: kind for kind in ALL}


def encode(message: Message) -> bytes:
    """The bencoded body of a message. Raises LocalError if a field is over its limit."""
    return bencode.dumps({b"t": message.code, **codec.to_wire(message)})


def decode(body: bytes) -> Message:
    """A message from its body. Raises ProtocolError for anything not exactly right."""
    wire = bencode.loads(body, max_bytes=MAX_MESSAGE_BYTES)
    if not isinstance(wire, dict) or not isinstance(wire.get(b"t"), int):
        raise ProtocolError(Reason.MALFORMED, "not a message")
    code = wire.pop(b"t")
    kind = BY_CODE.get(code) if isinstance(code, int) else None
    if kind is None:
        raise ProtocolError(Reason.MALFORMED, f"unknown message {code!r}")
    return codec.from_wire(kind, wire)
