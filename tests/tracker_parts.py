"""Small builders for tests of the tracker: nodes, titles and the messages they send."""

from __future__ import annotations

from hashlib import sha256
from random import Random

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.core.ids import HostPort, InfoHash, Kind, Mode, NodeId, TitleId
from shared.core.messages import (
    PROTOCOL_VERSION,
    Announce,
    Entry,
    Event,
    Hello,
    Message,
    Register,
    Rendition,
)
from shared.core.signing import node_id
from tracker.core.tracker import Tracker, TrackerAction, TrackerSettings

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRACKER_ID = node_id(KEY.public_key().public_bytes_raw())
NOW = 1_000_000.0


def node(name: str | int) -> NodeId:
    """The id of a node by its name in the test."""
    return NodeId(sha256(f"node {name}".encode()).digest())


def infohash(name: str | int) -> InfoHash:
    """The name of a swarm by its name in the test."""
    return InfoHash(sha256(f"swarm {name}".encode()).digest())


def title_id(name: str | int) -> TitleId:
    """The id of a title by its name in the test."""
    return TitleId(sha256(f"title {name}".encode()).digest()[:16])


def rendition(name: str | int, *, bandwidth: int = 4_000_000) -> Rendition:
    """One 720p encoding of two minutes."""
    return Rendition(
        infohash(name), f"{name}.mp4", 60_000_000, bandwidth, "avc1.64001f,mp4a.40.2", 1280, 720, 120_000
    )


def entry(name: str | int, signer: NodeId, *, title: str | None = None) -> Entry:
    """A title of one rendition."""
    return Entry(title_id(name), title or f"Film {name}", signer, (rendition(name),))


def hello(kind: Kind, region: str = "", mode: Mode = Mode.SHARED) -> Hello:
    """How a node of this kind presents itself."""
    return Hello(PROTOCOL_VERSION, kind, mode, region, "test 1", "192.0.2.9:4430")


def announce(
    swarm: InfoHash, held: int = 10, total: int = 10, spare: int = 4, event: Event = Event.UPDATE
) -> Announce:
    """What a holder says of a swarm."""
    return Announce(swarm, event, held, total, spare)


def register(request: int, made: Entry) -> Register:
    """The message with which an edge registers a title."""
    return Register(request, made.title_id, made.title, made.renditions)


def tracker(*entries: Entry, edges: frozenset[NodeId] = frozenset(), open_to_edges: bool = False) -> Tracker:
    """A tracker whose database holds `entries`."""
    settings = TrackerSettings(edges=edges, open_to_edges=open_to_edges)
    return Tracker(KEY, settings, list(entries), Random(7))


def join(
    core: Tracker,
    name: str | int,
    kind: Kind = Kind.PC,
    region: str = "",
    mode: Mode = Mode.SHARED,
    now: float = NOW,
) -> NodeId:
    """Connects a node."""
    core.connected(node(name), HostPort("192.0.2.1", 4430), hello(kind, region, mode), now)
    return node(name)


def orders(core: Tracker) -> list[TrackerAction]:
    """Everything the core wants done."""
    taken: list[TrackerAction] = []
    while (action := core.next_action()) is not None:
        taken.append(action)
    return taken


def ask(core: Tracker, message: Message, sender: NodeId, now: float = NOW) -> list[TrackerAction]:
    """Tells the core one message and returns what follows from it."""
    orders(core)
    core.receive(message, sender, now)
    return orders(core)
