"""What is remembered of nodes and of their part in swarms: two tables, no object per peer.

A node that is in no swarm has no row, so strangers leave no trace. Bytes per record, a node in
one swarm being the dearest case: 52 for the node, 45 for its part, 4 for both indexes' heads and
4 for its place in a bucket.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.core.ids import NODE_ID_BYTES, Kind, NodeId
from tracker.core.columns import NONE, Index, Rows, seen

RESERVATION_HALF_LIFE_SECONDS = 20.0  # a redirect's load shows in the next report by then
TICKS = 8  # to a second
KINDS = (None, Kind.PC, Kind.STB, Kind.MOBILE, Kind.EDGE)
KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS) if kind is not None}
GONE = 0x80
ROWS_A_LOOK = 1 << 16
NEVER = (1 << 32) - 1
_MIX = 0x9E3779B97F4A7C15  # 2^64 by the golden ratio
_WORD = (1 << 64) - 1


class Nodes(Rows):
    """Nodes that are in at least one swarm, and what we promised of each lately."""

    def __init__(self) -> None:
        self.ids = bytearray()
        self.kind = array("B")  # of KIND_NUMBERS, and GONE while records of a node that left are cleared away
        self.region = array("H")
        self.first = array("I")  # of its records
        self.records = array("I")  # how many
        self.card = array("B")  # whether it has one (`packing.py`); 0 for whoever takes the row
        self._reserved_rate = array("f")
        self._reserved_tick = array("I")
        columns: list[array[Any]] = [self.kind, self.region, self.first, self.records, self.card]
        columns += [self._reserved_rate, self._reserved_tick]
        super().__init__([self.ids, *columns], [NODE_ID_BYTES] + [1] * len(columns))
        self.index = Index(self, lambda row: hash(self.id(row)))

    def id(self, row: int) -> NodeId:
        """The node's id."""
        return NodeId(bytes(self.ids[row * NODE_ID_BYTES : (row + 1) * NODE_ID_BYTES]))

    def find(self, node: NodeId) -> int:
        """The node's row, or 0."""
        row, ids = self.index.first(hash(node)), self.ids
        while row and not ids.startswith(node, row * NODE_ID_BYTES):
            row = self.chain[row]
        return row

    def add(self, node: NodeId, kind: Kind, region: int) -> int:
        """A row for a node that has none."""
        row = self.take()
        self.ids[row * NODE_ID_BYTES : (row + 1) * NODE_ID_BYTES] = node
        self.kind[row], self.region[row] = KIND_NUMBERS[kind], region
        self.first[row], self.records[row], self.card[row] = NONE, 0, 0
        self._reserved_rate[row] = 0.0
        self.index.add(row, hash(node))
        return row

    def hide(self, row: int) -> None:
        """The node is gone: nothing finds it any more, though its row is kept."""
        self.index.remove(row, hash(self.id(row)))
        self.kind[row] |= GONE

    def reserved_of(self, rows: NDArray[Any], tick: int) -> NDArray[Any]:
        """Bytes per second promised of each by our redirects that no report shows yet."""
        rates = seen(self._reserved_rate).take(rows).astype(np.float64)
        if rates.any():
            age = np.maximum(0, tick - seen(self._reserved_tick).take(rows).astype(np.int64))
            rates *= np.exp2(age / (-TICKS * RESERVATION_HALF_LIFE_SECONDS))
        return rates

    def reserve(self, rows: NDArray[Any], before: NDArray[Any], rates: NDArray[Any], tick: int) -> None:
        """Notes that viewers were sent to these, of which some may be the same, and may take so much.
        `before`: what `reserved_of` says of them."""
        reserved = seen(self._reserved_rate)
        reserved[rows] = before
        seen(self._reserved_tick)[rows] = tick
        np.add.at(reserved, rows, rates.astype(np.float32))


class Records(Rows):
    """Parts of nodes in swarms. Each is linked with the others of its node."""

    def __init__(self) -> None:
        self.node = array("I")
        self.swarm = array("I")
        self.held = array("I")
        self.total = array("I")
        self.summary = array("I")  # bit n: holds all of stretch n of the title
        self.expires = array("I")  # the tick at which it is forgotten; of a free row NEVER
        self.place = array("I")  # its index in its bucket
        self.after = array("I")
        self.before = array("I")
        self.spare = array("B")
        columns: list[array[Any]] = [self.node, self.swarm, self.held, self.total, self.summary]
        columns += [self.expires, self.place, self.after, self.before, self.spare]
        super().__init__(columns, [1] * len(columns))
        self._hand = 1  # the row that `due` looks at next
        self.index = Index(self, lambda row: _mixed(self.node[row], self.swarm[row]))

    def find(self, node: int, swarm: int) -> int:
        """The row of a node's part in a swarm, or 0."""
        row = self.index.first(_mixed(node, swarm))
        while row and (self.node[row] != node or self.swarm[row] != swarm):
            row = self.chain[row]
        return row

    def add(self, nodes: Nodes, node: int, swarm: int) -> int:
        """A row for a part that is new."""
        row = self.take()
        self.node[row], self.swarm[row] = node, swarm
        self.held[row] = self.total[row] = self.summary[row] = self.spare[row] = 0
        self.index.add(row, _mixed(node, swarm))
        first = nodes.first[node]
        self.after[row], self.before[row] = first, NONE
        if first:
            self.before[first] = row
        nodes.first[node] = row
        nodes.records[node] += 1
        return row

    def drop(self, nodes: Nodes, row: int) -> None:
        """The part is over."""
        node = self.node[row]
        self.index.remove(row, _mixed(node, self.swarm[row]))
        before, after = self.before[row], self.after[row]
        if before:
            self.after[before] = after
        else:
            nodes.first[node] = after
        if after:
            self.before[after] = before
        nodes.records[node] -= 1
        self.expires[row] = NEVER
        self.give_back(row)

    def due(self, tick: int, most: int) -> list[int]:
        """Up to `most` rows that are to be forgotten by now. The wheel is the column itself: a hand
        goes over it, a million rows in 0.3 ms, and rests where it found enough."""
        found: list[int] = []
        unseen = self.used - 1
        while unseen and len(found) < most:
            start = self._hand if self._hand < self.used else 1
            self._hand = min(self.used, start + min(ROWS_A_LOOK, unseen))
            unseen -= self._hand - start
            due = np.flatnonzero(seen(self.expires)[start : self._hand] <= tick)
            if len(due) > most - len(found):
                due = due[: most - len(found)]
                self._hand = start + int(due[-1]) + 1
            found += (due + start).tolist()
        return found


def _mixed(node: int, swarm: int) -> int:
    return (((node << 32 | swarm) * _MIX) & _WORD) >> 32
