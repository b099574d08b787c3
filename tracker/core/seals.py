"""The seals of this tracker's nodes, in columns: who, until when, and which counters were taken.

Which counters were taken is known of the last WINDOW, in a ring of words as in RFC 6479: a counter's
word is cleared when the first of it comes, so nothing is ever shifted. Keys are drawn from a
secret by HMAC. A seal belongs to a connection, so there are never more than nodes, and in any case
no more than `capacity`: when all places are taken, one that has ended is given anew, else there is none.
"""

from __future__ import annotations

import hmac
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from shared.core.sealed import MOST_COUNTER
from tracker.core.nodes import Node

LIFE_SECONDS = 3600
CAPACITY = 65_536  # memory is taken when a place is first used
WORDS = 4
WINDOW = (WORDS - 1) * 64

Vector = NDArray[Any]
Flags = NDArray[np.bool_]


class Window:
    """Which counters each place took."""

    def __init__(self, capacity: int) -> None:
        self._ring = np.zeros((capacity, WORDS), np.uint64)
        self._next = np.zeros(capacity, np.uint64)  # one more than the highest taken
        self._ring_at, self._next_at = self._ring.reshape(-1).data, self._next.data

    def clear(self, place: int) -> None:
        """Nothing was taken yet."""
        self._ring[place], self._next[place] = 0, 0

    def take(self, place: int, counter: int) -> bool:
        """Takes a counter; False if it was taken before, or may have been."""
        following, word = self._next_at[place], counter >> 6
        at, bit = place * WORDS + (word & WORDS - 1), 1 << (counter & 63)
        if counter < following:
            if following - counter > WINDOW or self._ring_at[at] & bit:
                return False
            self._ring_at[at] |= bit
            return True
        last = (following - 1 >> 6) if following else -1
        for passed in range(max(last + 1, word - WORDS + 1), word + 1):
            self._ring_at[place * WORDS + (passed & WORDS - 1)] = 0
        self._ring_at[at] |= bit
        self._next_at[place] = counter + 1
        return True

    def may_take(self, places: Vector, counters: Vector) -> Flags:
        """Which of these counters `take` would take, each for itself."""
        following = self._next[places]
        words = self._ring[places, (counters >> np.uint64(6)) & np.uint64(WORDS - 1)]
        taken = (words >> (counters & np.uint64(63))) & np.uint64(1) == 1
        with np.errstate(over="ignore"):  # where it wraps, the counter is new
            old = following - counters > WINDOW
        fresh: Flags = (counters >= following) | ~(old | taken)
        return fresh


class Seals:
    """Made and found by place; a place's number on the wire has a check that strangers cannot guess."""

    def __init__(self, secret: bytes, capacity: int = CAPACITY) -> None:
        """`secret`: 32 random bytes."""
        self._secret = secret
        self._made = 0
        self._ciphers: list[tuple[AESGCM, AESGCM] | None] = []
        self.nodes: list[Node | None] = []  # by place
        self.window = Window(capacity)
        self._check = np.zeros(capacity, np.uint32)
        self._ends = np.zeros(capacity, np.float64)
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.nodes) - len(self._free)

    def make(self, node: Node, now: float) -> tuple[bytes, bytes, bytes] | None:
        """A number and two keys, in place of those that the node had; None if all places are taken."""
        if node.seal is None:
            node.seal = self._place(now)
            if node.seal is None:
                return None
        place = node.seal
        self._made += 1
        drawn = hmac.digest(self._secret, b"penstock seal 1\n" + self._made.to_bytes(8, "big"), "sha512")
        check, ask_key, answer_key = drawn[:4], drawn[16:32], drawn[32:48]
        self.nodes[place] = node
        self._ciphers[place] = AESGCM(ask_key), AESGCM(answer_key)
        self._check[place] = int.from_bytes(check, "big")
        self._ends[place] = now + LIFE_SECONDS
        self.window.clear(place)
        return place.to_bytes(3, "big") + check, ask_key, answer_key

    def end(self, node: Node) -> None:
        """The node's connection is gone."""
        if node.seal is not None:
            self._clear(node.seal)
            self._free.append(node.seal)
            node.seal = None

    def find(self, heads: NDArray[np.uint8], now: float) -> tuple[Vector, Flags, Flags]:
        """Places of heads of datagrams, (n, 16); which are known, and which of these have not ended."""
        numbers = np.ascontiguousarray(heads[:, :8]).view(">u4")
        places = (numbers[:, 0] & 0xFFFFFF).astype(np.int64)
        known = places < len(self.nodes)
        places[~known] = 0
        if not self.nodes:
            return places, known, known
        known &= (self._check[places] == numbers[:, 1]) & (self._ends[places] > 0)
        return places, known, known & (self._ends[places] > now)

    def ciphers(self, place: int) -> tuple[AESGCM, AESGCM]:
        """Of asks and of answers."""
        found = self._ciphers[place]
        assert found is not None, "a known place has keys"
        return found

    def _place(self, now: float) -> int | None:
        if self._free:
            return self._free.pop()
        if len(self.nodes) < len(self._ends):
            self.nodes.append(None)
            self._ciphers.append(None)
            return len(self.nodes) - 1
        oldest = int(self._ends.argmin())
        if self._ends[oldest] > now:
            return None
        owner = self.nodes[oldest]
        if owner is not None:
            owner.seal = None
        self._clear(oldest)
        return oldest

    def _clear(self, place: int) -> None:
        self.nodes[place], self._ciphers[place] = None, None
        self._check[place], self._ends[place] = 0, 0.0


def counters_of(heads: NDArray[np.uint8]) -> tuple[Vector, Flags]:
    """The counters of heads of datagrams, (n, 16), and which of them are small enough."""
    counters = np.ascontiguousarray(heads[:, 8:16]).view(">u8").ravel().astype(np.uint64)
    return counters, counters <= MOST_COUNTER
