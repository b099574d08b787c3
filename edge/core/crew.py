"""What the processes of one edge tell each other, and how often one that dies may come back.

The *supervisor* holds the sockets and starts the others. The *lead* has the tracker, the uploads and
the store; *workers* serve. To everybody outside they are one node.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.core.ids import InfoHash, NodeId
from shared.core.rates import Rates

# -- the supervisor to a child, with a socket each but for Finish --------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """Be this process; the socket is the port."""

    is_lead: bool
    berth: int
    berths: int
    config: bytes


@dataclass(frozen=True, slots=True)
class Meet:
    """The socket leads to the lead, or for the lead to the worker of this name."""

    name: int


@dataclass(frozen=True, slots=True)
class PassOn:
    """Take nobody new: strangers' datagrams go to the heir at the other end of the socket."""


@dataclass(frozen=True, slots=True)
class Inherit:
    """Strangers' datagrams come through the socket from the worker before."""


@dataclass(frozen=True, slots=True)
class Drain:
    """To the lead: the tracker shall send nobody new, or again."""

    draining: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """No datagram will come any more: answer what is there, and end."""


@dataclass(frozen=True, slots=True)
class StandFor:
    """The process at this berth is gone: what still comes for its connections is answered here."""

    berth: int


# -- a child to the supervisor -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """It answers."""


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot begin; the text is for the operator."""

    text: str


@dataclass(frozen=True, slots=True)
class Drained:
    """Nobody is connected any more."""


@dataclass(frozen=True, slots=True)
class LeadLost:
    """The channel to the lead of this name has ended."""

    name: int


# -- the lead to its workers -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hold:
    """This title is in the store, or changed there."""

    infohash: InfoHash


@dataclass(frozen=True, slots=True)
class Expect:
    """This title is on its way here, so guests may wait for it; or it is no more."""

    infohash: InfoHash
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Gained:
    """A piece of a title that is on its way came into the store."""

    infohash: InfoHash
    piece: int


@dataclass(frozen=True, slots=True)
class Forget:
    """It is there no more."""

    infohash: InfoHash


@dataclass(frozen=True, slots=True)
class TrackerIs:
    """Whether the tracker can be reached: while it cannot, tickets do not run out."""

    up: bool


@dataclass(frozen=True, slots=True)
class Issuers:
    """The trackers whose tickets count."""

    trackers: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """All titles were named."""


@dataclass(frozen=True, slots=True)
class Say:
    """For a publisher: the body of an UploadState or a Refusal."""

    node: NodeId
    body: bytes


@dataclass(frozen=True, slots=True)
class Stray:
    """A stranger's datagram; also from a worker to its heir."""

    sender: tuple[str | int, ...]
    datagram: bytes


# -- a worker to the lead ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lost:
    """The disk had damaged a piece; it was dropped."""

    infohash: InfoHash
    piece: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A guest waits for a piece that is on its way here, until `deadline`, seconds since 1970."""

    infohash: InfoHash
    piece: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Watched:
    """The first guest of a title came, or the last one went."""

    infohash: InfoHash
    is_open: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A publisher at this address hands in a file: the body of an Upload."""

    node: NodeId
    host: str
    port: int
    body: bytes


@dataclass(frozen=True, slots=True)
class PublisherGone:
    """Its connection ended."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Chunk:
    """A publisher's bulk stream with this header: its bytes, and the answer, pass through the socket."""

    node: NodeId
    header: bytes


Word = (
    Begin | Meet | PassOn | Inherit | Drain | Finish | StandFor | Ready | Failed | Drained | LeadLost
    | Hold | Expect | Gained | Forget | TrackerIs | Issuers | CaughtUp | Say | Stray
    | Rates | Lost | Wanted | Watched | Asked | PublisherGone | Chunk
)  # fmt: skip


class Loads:
    """The load of all processes as one node's."""

    def __init__(self) -> None:
        self._now: dict[int, Rates] = {}
        self._uploaded_before_bytes = 0  # by workers that are gone

    def take(self, worker: int, rates: Rates) -> None:
        """What a worker measured last."""
        self._now[worker] = rates

    def gone(self, worker: int) -> None:
        """It serves no more; what it served stays served."""
        rates = self._now.pop(worker, None)
        if rates is not None:
            self._uploaded_before_bytes += rates.uploaded_bytes

    def with_own(self, own: Rates) -> Rates:
        """The sum of all; held is what the lead holds, since the store is everybody's."""
        everybody = [own, *self._now.values()]
        return Rates(
            sum(one.up_rate for one in everybody),
            sum(one.down_rate for one in everybody),
            self._uploaded_before_bytes + sum(one.uploaded_bytes for one in everybody),
            own.held_bytes,
            sum(one.connections for one in everybody),
        )
