"""Small builders for tests of the peer's core: a film, a peer that watches it, and its orders."""

from __future__ import annotations

from random import Random

from peer.core.peer import Peer, PeerSettings
from shared.core import tickets
from shared.core.actions import Action, Ask, AskManifest, Send
from shared.core.bitfield import Bitfield
from shared.core.errors import Reason
from shared.core.ids import Address, HostPort, Kind, Mode, NodeId
from shared.core.merkle import LEAF_BYTES
from shared.core.messages import (
    Have,
    Join,
    Locate,
    Message,
    Redirect,
    Schedule,
    Source,
    Why,
)
from tests.tracker_parts import KEY, NOW, TRACKER_ID, hello, node
from tests.world_parts import film

FILM, _ = film(seconds=8, bit_rate=2_000_000.0)
OTHER, _ = film(seconds=8, bit_rate=3_000_000.0)
SWARM, TOTAL = FILM.infohash, FILM.piece_count
TRACKER_AT, AT = HostPort("192.0.2.1", 4430), HostPort("192.0.2.2", 4430)
EDGE, ANN = node("edge"), node("ann")
TICKET = tickets.issue(KEY, tickets.Ticket(ANN, SWARM, int(NOW) + 600, tickets.UNLIMITED))


def peer(mode: Mode = Mode.SHARED, uplink_rate: float = 1_250_000.0) -> Peer:
    settings = PeerSettings(Address(TRACKER_ID, TRACKER_AT), mode, uplink_rate)
    core = Peer(settings, Random(1))
    core.connected(TRACKER_ID, TRACKER_AT, hello(Kind.TRACKER), NOW)
    core.receive(Schedule(60, 5), TRACKER_ID, NOW)
    return core


def orders(core: Peer) -> list[Action]:
    taken: list[Action] = []
    while (action := core.next_action()) is not None:
        taken.append(action)
    return taken


def tell(core: Peer, message: Message, sender: NodeId, now: float = NOW) -> list[Action]:
    core.receive(message, sender, now)
    return orders(core)


def sent(core: Peer, now: float) -> list[Message]:
    core.handle_timer(now)
    return [action.message for action in orders(core) if isinstance(action, Send)]


def located(core: Peer) -> Locate:
    core.fetch(SWARM, NOW)
    (locate,) = [message for message in sent(core, NOW) if isinstance(message, Locate)]
    return locate


def redirect(request: int, *nodes: NodeId) -> Redirect:
    sources = tuple(Source(n, str(AT), Kind.EDGE, "", 7, Why.EDGE_FIRST) for n in nodes)
    return Redirect(request, SWARM, FILM.signer_id, TICKET, 3, sources)


def watching(core: Peer) -> Peer:
    """A peer with one edge, the manifest, and a reader at the start."""
    core.receive(redirect(located(core).request, EDGE), TRACKER_ID, NOW)
    core.connected(EDGE, AT, hello(Kind.EDGE), NOW)
    (join,) = [a.message for a in orders(core) if isinstance(a, Send) and isinstance(a.message, Join)]
    core.receive(Have(join.request, SWARM, Bitfield(TOTAL, range(TOTAL)).to_wire()), EDGE, NOW)
    assert AskManifest(EDGE, SWARM, FILM.signer_id) in orders(core)
    core.hold(FILM, frozenset(), NOW)
    core.fetches[SWARM].read(0, NOW)
    return core


def take_all(core: Peer, ask: Ask, now: float = NOW) -> None:
    for leaf in range(ask.leaf_count):
        size = min(LEAF_BYTES, FILM.piece_size(ask.piece) - leaf * LEAF_BYTES)
        assert core.leaf_arrived(ask.request, ask.node, size, now)
    core.chunk_ended(ask.request, Reason.NONE, now)
    core.stored(SWARM, ask.piece, True, now)
