"""Waves of answers as bytes for sealed datagrams: the sources of all of them in a few numpy operations.

What a redirect says of a source whoever asks is its *card* (`shared/core/sealed.py`). The cards of peers
stand in a column of bytes, each at its node's row in the table of nodes. A card is made when it is first
wanted; whoever takes over a row, or connects anew, has none (`Nodes.add`).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shared.core import sealed, spare
from shared.core.ids import NodeId
from shared.core.sealed import CARD, SOURCE_BYTES
from tracker.core.answers import Sources, Wave
from tracker.core.columns import seen
from tracker.core.nodes import Node
from tracker.core.swarm import Swarms

FEW = 6  # answers of a wave; up to so many, one by one is cheaper
_UNKNOWN, _KNOWN, _UNTELLABLE = 0, 1, 2  # of a card
_CARD = np.dtype((np.void, CARD.size))
_SOURCE = np.dtype([("card", _CARD), ("spare", "u1"), ("why", "u1"), ("region", "u1")])


class Packed(NamedTuple):
    """What one answer says, but for its signer and ticket."""

    connections: int
    named: int
    tail: bytes  # its sources, and the names of their regions


class Packer:
    """Keeps the cards; packs waves as soon as they were answered."""

    def __init__(self, nodes: Mapping[NodeId, Node], swarms: Swarms) -> None:
        self._nodes = nodes
        self._swarms = swarms
        self._cards = bytearray(CARD.size)  # row 0 is nobody's
        swarms.nodes.card[0] = _KNOWN

    def pack(self, wave: Wave) -> list[Packed | None]:
        """Each of its answers; None for one that has to be told over the connection."""
        few = len(wave.questions) <= FEW
        return [self._one(wave, row) for row in range(len(wave.questions))] if few else self._many(wave)

    def _one(self, wave: Wave, row: int) -> Packed | None:
        found, places = wave.found, wave.ranked.order[row, : wave.ranked.named[row]]
        columns = (found.rows, found.spare, found.why, found.regions)
        peers, levels, whys, regions = [column[row].take(places).tolist() for column in columns]
        view, _, picked = wave.edges[row]
        cards: list[bytes | bytearray] = [self._peer_card(peer) for peer in peers]
        for n, why in picked:
            cards.append(self._edge_card(view.states[n].node))
            levels.append(spare.HIGHEST)
            whys.append(sealed.WHY_NUMBERS[why])
            regions.append(view.regions[n])
        if not all(cards):
            return None
        names = wave.region_names
        at, tail = sealed.name_places([names[number] for number in regions])
        said = map(bytes, zip(levels, whys, at, strict=True))
        both = chain.from_iterable(zip(cards, said, strict=True))
        return Packed(int(wave.ranked.connections[row]), len(cards), b"".join((*both, tail)))

    def _many(self, wave: Wave) -> list[Packed | None]:
        found = wave.sources()
        table: NDArray[Any] = np.empty(found.spare.shape, _SOURCE)
        told = self._told(found.peers)
        peers = np.frombuffer(self._cards, _CARD).take(found.peers)
        table["card"][:, : peers.shape[1]] = peers
        left_out = set((told == _UNTELLABLE).any(axis=1).nonzero()[0].tolist())
        if found.states:
            edges = {node: self._edge_card(node) for node in {state.node for state in found.states}}
            cards = [edges[state.node] or bytes(CARD.size) for state in found.states]
            table["card"][found.states_at] = np.frombuffer(b"".join(cards), _CARD)
            if not all(edges.values()):
                rows = zip(found.states_at[0].tolist(), found.states, strict=True)
                left_out.update(row for row, state in rows if not edges[state.node])
        table["spare"], table["why"] = found.spare, found.why
        table["region"], names = _names(found, wave.region_names)
        data, width = table.view(np.uint8).reshape(-1).data, table.shape[1] * SOURCE_BYTES
        counts, connections = (found.named + found.edges).tolist(), wave.ranked.connections.tolist()
        packed: list[Packed | None] = [
            Packed(use, count, b"".join((data[at : at + count * SOURCE_BYTES], name)))
            for use, count, name, at in zip(
                connections, counts, names, range(0, width * len(counts), width), strict=True
            )
        ]
        for row in left_out:
            packed[row] = None
        return packed

    def _told(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """Makes cards where there are none yet; how each row's is."""
        made = self._swarms.nodes.card
        told: NDArray[np.uint8] = seen(made).take(rows)
        unknown = told == _UNKNOWN
        if not unknown.any():
            return told
        for row in set(rows[unknown].tolist()):
            self._make(row)
        return seen(made).take(rows)

    def _make(self, row: int) -> None:
        made, node = self._swarms.nodes.card, self._nodes.get(self._swarms.nodes.id(row))
        lacking = CARD.size * len(made) - len(self._cards)
        if lacking > 0:
            self._cards.extend(bytes(lacking))
        card = None if node is None else sealed.card(node.id, node.at, node.kind)
        made[row] = _KNOWN if card else _UNTELLABLE
        self._cards[row * CARD.size : (row + 1) * CARD.size] = card or bytes(CARD.size)

    def _peer_card(self, row: int) -> bytes | bytearray:
        made = self._swarms.nodes.card
        if made[row] == _UNKNOWN:
            self._make(row)
        return self._cards[row * CARD.size : (row + 1) * CARD.size] if made[row] == _KNOWN else b""

    def _edge_card(self, edge: NodeId) -> bytes:
        node = self._nodes.get(edge)
        if node is None:
            return b""
        if node.card is None:
            node.card = sealed.card(edge, node.at, node.kind) or b""
        return node.card


def _names(found: Sources, region_names: list[str]) -> tuple[NDArray[np.uint8], list[bytes]]:
    """Places of sources' regions among the names that follow them, and these; most rows are alike."""
    regions = found.regions.astype(np.uint16)
    count, width = regions.shape
    view, known = regions.reshape(-1).data.cast("B"), dict[bytes, tuple[bytes, bytes]]()
    places, names = [], []
    for row, told in enumerate((found.named + found.edges).tolist()):
        key = bytes(view[2 * row * width : 2 * (row * width + told)])
        both = known.get(key)
        if both is None:
            numbers = np.frombuffer(key, np.uint16).tolist()
            place, name = sealed.name_places([region_names[number] for number in numbers])
            both = known[key] = place.ljust(width, b"\0"), name
        places.append(both[0])
        names.append(both[1])
    return np.frombuffer(b"".join(places), np.uint8).reshape(count, width), names
