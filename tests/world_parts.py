"""What a world is made of: a film, access lines, hosts, viewers, and the clock that moves them."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.core import manifest as manifests
from shared.core.bulk import PieceRequest
from shared.core.ids import HostPort, InfoHash, NodeId, TitleId
from shared.core.manifest import Manifest
from shared.core.merkle import FileTree, root_of_layer
from shared.core.messages import Hello
from shared.core.segments import Media, lay_out
from shared.core.shape import PIECE_BYTES

START_AT = 1_000_000.0
SEGMENT_MS = 4000


def key_of(name: str) -> Ed25519PrivateKey:
    """A key that is the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


def film(
    seconds: int = 60, bit_rate: float = 3_960_000.0, number: int = 0
) -> tuple[Manifest, Ed25519PrivateKey]:
    """A signed manifest of a film whose bytes nobody needs, and the key of its publisher's edge."""
    key = key_of("publisher's edge")
    each = int(bit_rate / 8 * SEGMENT_MS / 1000)
    segments = lay_out(1000, [(each, SEGMENT_MS)] * (seconds * 1000 // SEGMENT_MS))
    length = segments[-1].offset + segments[-1].length
    seed = b"%d " % number if number else b""
    layer = b"".join(sha256(seed + b"%d" % n).digest() for n in range(-(-length // PIECE_BYTES)))
    tree = FileTree(length, PIECE_BYTES, layer, root_of_layer(layer, PIECE_BYTES))
    media = Media(
        bandwidth=int(bit_rate),
        average_bandwidth=int(bit_rate),
        codecs="avc1.64001f",
        duration_ms=len(segments) * SEGMENT_MS,
        height=720,
        width=1280,
        init_bytes=1000,
        segments=segments,
    )
    title_id = TitleId(number.to_bytes(16, "big"))
    draft = manifests.build("film.mp4", tree, title="Film", title_id=title_id, media=media)
    return manifests.parse(manifests.sign(draft, key)), key


@dataclass(slots=True, eq=False)
class Region:
    """What the households of a region share: one link to the rest, in bytes per second each way.

    All that they send and get goes through it, their neighbours' bytes too, so that peers are no
    cloud. It is crossed in the order of leaving the sender's line."""

    name: str = ""
    up_rate: float = float("inf")
    down_rate: float = float("inf")
    up_free_at: float = 0.0
    down_free_at: float = 0.0

    def up(self, at: float, size: int) -> float:
        """When `size` bytes that come at `at` have left it."""
        self.up_free_at = max(at, self.up_free_at) + size / self.up_rate
        return self.up_free_at

    def down(self, at: float, size: int) -> float:
        """The same, towards the households."""
        self.down_free_at = max(at, self.down_free_at) + size / self.down_rate
        return self.down_free_at


@dataclass(slots=True)
class Line:
    """An access line: bytes per second each way, and one way of latency in seconds."""

    up_rate: float
    down_rate: float = 6_250_000.0
    latency_seconds: float = 0.015
    loss: float = 0.0


@dataclass(slots=True)
class Flow:
    """One request being served, by its asker's number."""

    asker: Host
    number: int
    sizes: deque[int]  # of its leaves
    request: int  # the source's own number


@dataclass(slots=True, eq=False)
class Host:
    """A core on its line."""

    name: str
    node: NodeId
    core: Any
    line: Line
    hello: Hello
    alive: bool = True
    links: dict[NodeId, None] = field(default_factory=dict)  # a set would be walked in hash order
    flows: deque[Flow] = field(default_factory=deque)
    sending: bool = False
    asked: dict[int, tuple[Host, int, PieceRequest]] = field(default_factory=dict)
    asking: dict[int, Host] = field(default_factory=dict)  # our requests under way, by number
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    down_free_at: float = 0.0
    timer_at: float = float("inf")
    poisonous: bool = False
    sent_bytes: int = 0
    received_bytes: int = 0
    stored: list[int] = field(default_factory=list)  # pieces, in the order they were verified
    region: Region = field(default_factory=Region)
    asks: int = 0  # of peers
    failed_asks: int = 0  # that they did not answer in whole

    @property
    def at(self) -> HostPort:
        """Where others see it."""
        return HostPort(f"{self.name}.test", 4430)


@dataclass(slots=True)
class Viewer:
    """Somebody watching; counts what a person would notice."""

    host: Host
    began_at: float
    startup_seconds: float | None = None
    shown_seconds: float = 0.0
    read_offset: int = 0
    stalls: int = 0
    stalled: bool = False
    stall_seconds: float = 0.0
    downloads: bool = False  # wants the file, not the picture
    whole_at: float | None = None  # when all of it was here
    waits_for: int | None = None
    waits_since: float = 0.0
    done: bool = False
    left: bool = False  # had enough before the end
    infohash: InfoHash | None = None  # None: the first film


@dataclass(frozen=True, slots=True)
class Scale:
    """How finely a world is simulated; the cores are the same in any."""

    turn_seconds: float = 0.0  # of a line's turn of one stream; 0: a leaf
    tick_seconds: float = 0.05  # between a player's looks, once it shows a picture
    encodes: bool = True  # messages go through their wire form
    keeps_trace: bool = True  # else only its hash


FINE = Scale()
COARSE = Scale(turn_seconds=0.25, tick_seconds=0.25, encodes=False, keeps_trace=False)


class VirtualClock:
    """Everything that will happen, in one heap; equal moments keep their order."""

    def __init__(self, seed: int, *, keeps_trace: bool = True) -> None:
        self.rng = Random(seed)
        self.now = START_AT
        self.trace: list[str] = []
        self.events = 0
        self._keeps_trace = keeps_trace  # else only its hash
        self._digest = sha256()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Does `what` at clock time `when`."""
        heapq.heappush(self._events, (max(when, self.now), next(self._order), what))

    def run(self, seconds: float) -> None:
        """Runs that much virtual time."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heapq.heappop(self._events)
            self.events += 1
            what()
        self.now = end

    def note(self, line: str) -> None:
        """Adds to the trace."""
        dated = f"{self.now - START_AT:.4f} {line}"
        self._digest.update(dated.encode() + b"\n")
        if self._keeps_trace:
            self.trace.append(dated)

    def fingerprint(self) -> str:
        """A hash of all that was noted."""
        return self._digest.hexdigest()

    def delay(self, a: Host, b: Host) -> float:
        """One way from one host to the other; what is lost comes a retransmission later."""
        way = a.line.latency_seconds + b.line.latency_seconds
        lost = 0
        while self.rng.random() < max(a.line.loss, b.line.loss) and lost < 5:
            lost += 1
        return way + lost * 2.5 * way
