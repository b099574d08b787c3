"""Small builders for tests of fetching: a film, its sources, and what they deliver."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from peer.core.company import Company
from peer.core.fetch import Fetch
from shared.core.actions import Action, Ask
from shared.core.bitfield import Bitfield
from shared.core.ids import Kind, NodeId
from shared.core.merkle import LEAF_BYTES
from shared.core.messages import Redirect, Source, Why
from tests.world_parts import film

NOW = 5_000.0
MANIFEST, _ = film(seconds=12, bit_rate=2_000_000.0)
PIECES = MANIFEST.piece_count
EDGE, OTHER_EDGE = NodeId(b"E" * 32), NodeId(b"F" * 32)
PEER, OTHER_PEER, THIRD_PEER = NodeId(b"P" * 32), NodeId(b"Q" * 32), NodeId(b"R" * 32)
EVERYBODY = (EDGE, OTHER_EDGE, PEER, OTHER_PEER, THIRD_PEER)
EVERYTHING = range(PIECES)


def named(node: NodeId) -> Source:
    is_edge = node in (EDGE, OTHER_EDGE)
    kind, why = (Kind.EDGE, Why.EDGE_FIRST) if is_edge else (Kind.PC, Why.NEAR_PC)
    return Source(node, "192.0.2.1:4430", kind, "", 4, why)


def redirect(*nodes: NodeId, connections: int = 8) -> Redirect:
    return Redirect(
        1, MANIFEST.infohash, MANIFEST.signer_id, b"ticket", connections, tuple(map(named, nodes))
    )


def orders(fetch: Fetch) -> list[Action]:
    taken: list[Action] = []
    while (action := fetch.next_action()) is not None:
        taken.append(action)
    return taken


def asks(fetch: Fetch) -> list[Ask]:
    return [action for action in orders(fetch) if isinstance(action, Ask)]


def wire(pieces: Iterable[int]) -> bytes:
    return Bitfield(PIECES, pieces).to_wire()


def fetching(*nodes: NodeId, held: tuple[int, ...] = ()) -> Fetch:
    """A fetch whose sources let us in and hold everything."""
    fetch = Fetch(MANIFEST.infohash, Random(1), Company())
    fetch.redirected(redirect(*nodes), NOW)
    fetch.learn(MANIFEST, Bitfield(PIECES, held), NOW)
    for node in nodes:
        fetch.connected(node)
        fetch.have(node, wire(EVERYTHING), NOW)
    orders(fetch)
    return fetch


def deliver(fetch: Fetch, ask: Ask, leaves: int, now: float) -> None:
    """The first leaves of a request arrive."""
    piece_size = MANIFEST.piece_size(ask.piece)
    for leaf in range(ask.first_leaf, ask.first_leaf + leaves):
        assert fetch.leaf_arrived(ask.request, min(LEAF_BYTES, piece_size - leaf * LEAF_BYTES), now)
