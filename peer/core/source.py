"""Somebody a piece can be asked from, and how well that went so far."""

from __future__ import annotations

from dataclasses import dataclass

from shared.core import spare
from shared.core.bitfield import Bitfield
from shared.core.ids import HostPort, Kind, NodeId

EDGE_FIRST_RATE = 1_500_000.0  # bytes/s believed of an edge before anything was measured
PEER_FIRST_RATE = 400_000.0  # and of a peer that says it has a lot to spare
PEER_FIRST_SHARE = 0.5  # of what it says it has: others are sent there, too
RATE_MEMORY_SECONDS = 2.0  # of its work that the estimate remembers
QUEUE_SECONDS = 1.5  # ask for no more than it delivers in this time
LEAST_QUEUE_PIECES = 2  # but always keep the next request waiting at the source
LEAST_SEEN_SECONDS = 1.0  # of work, before it says anything against what is believed
LEAST_RATE = 8_000.0  # bytes/s; who is believed to be slower is never asked again
SNUB_SECONDS = 8.0  # forgiven after this


@dataclass(slots=True)
class Source:
    """One source of one rendition."""

    node: NodeId
    at: HostPort
    kind: Kind
    spare: int
    is_second: bool = False  # an edge that takes over when the first is busy or gone
    named_at: float = 0.0
    rate: float = 0.0
    connected: bool = False
    joined: bool = False  # it took our ticket
    raw_held: bytes = b""  # until the manifest tells how many pieces there are
    held: Bitfield | None = None
    outstanding_bytes: int = 0
    taken_bytes: int = 0
    busy_until: float = 0.0
    progress_at: float = 0.0
    sample_since: float = 0.0  # while it has work: since when `sample_bytes` came
    sample_bytes: int = 0
    failures: int = 0
    was_ahead: bool = False
    is_named: bool = True  # by the tracker; else it came to us

    def __post_init__(self) -> None:
        if self.kind is Kind.EDGE:
            self.rate = EDGE_FIRST_RATE
        else:
            self.rate = max(32_000.0, min(PEER_FIRST_RATE, PEER_FIRST_SHARE * spare.rate_of(self.spare)))

    @property
    def is_edge(self) -> bool:
        """Whether its bytes cost the platform money."""
        return self.kind is Kind.EDGE

    def learn_total(self, total: int) -> None:
        """The manifest is here. Raises ProtocolError if its bitfield does not fit."""
        self.held = Bitfield.parse(self.raw_held, total)

    def has(self, piece: int) -> bool:
        """Whether it said that it holds the piece."""
        return self.held is not None and piece in self.held

    def leads(self, pieces: int) -> bool:
        """Whether it has, or once had, more than so many pieces: then it is ahead of us in the film, and
        needs everything before we do, even when we have caught up with all that it holds."""
        self.was_ahead |= self.held is not None and len(self.held) > pieces
        return self.was_ahead

    def note(self, pieces: tuple[int, ...], *, gone: bool = False) -> None:
        """It gained pieces, or gave them up. Raises ProtocolError for impossible numbers."""
        if self.held is None:
            self._note_raw(pieces, gone)
            return
        for piece in pieces:
            if gone:
                self.held.discard(piece)
            else:
                self.held.add(piece)

    def _note_raw(self, pieces: tuple[int, ...], gone: bool) -> None:
        raw = bytearray(self.raw_held)
        for piece in pieces:
            index, bit = piece // 8, 0x80 >> piece % 8
            if index < len(raw):
                raw[index] = raw[index] & ~bit if gone else raw[index] | bit
        self.raw_held = bytes(raw)

    def queue_seconds(self, more_bytes: int = 0) -> float:
        """Queue time: how long until what was asked, and `more_bytes`, will be here."""
        return (self.outstanding_bytes + more_bytes) / self.rate

    def has_room(self, size: int, now: float) -> bool:
        """Whether asking for `size` more bytes keeps its queue short enough."""
        if not self.joined or now < self.busy_until:
            return False
        limit = max(LEAST_QUEUE_PIECES * size, self.rate * QUEUE_SECONDS)
        return self.outstanding_bytes + size <= limit

    def promised(self, size: int, now: float) -> None:
        """It was asked for `size` more bytes."""
        if self.outstanding_bytes == 0:
            self.sample_since = self.progress_at = now
            self.sample_bytes = 0
        self.outstanding_bytes += size

    def leaf_arrived(self, size: int, now: float) -> None:
        """It delivered `size` bytes of what was asked."""
        self.outstanding_bytes -= size
        self.taken_bytes += size
        self.sample_bytes += size
        self.progress_at = now

    def chunk_arrived(self, now: float) -> None:
        """A chunk is whole: its rate is judged by all that came while it had work, because
        chunks that travel side by side end together and say nothing one by one."""
        seconds = now - self.sample_since
        believed = self.rate * RATE_MEMORY_SECONDS + self.sample_bytes
        self.rate = max(LEAST_RATE, believed / (RATE_MEMORY_SECONDS + seconds))
        self.sample_since, self.sample_bytes = now, 0
        self.failures = 0

    def rate_seen(self, now: float) -> float:
        """Its rate at the work it has now, if that is worse than what is believed of it."""
        seconds = now - self.sample_since
        if not self.outstanding_bytes or seconds < LEAST_SEEN_SECONDS:
            return self.rate
        return min(self.rate, max(LEAST_RATE, self.sample_bytes / seconds))

    def snub(self, now: float) -> None:
        """It promised and did not deliver: leave it alone for a while."""
        self.failures += 1
        self.rate = max(LEAST_RATE, self.rate / 2)
        self.busy_until = now + SNUB_SECONDS * min(self.failures, 4)
