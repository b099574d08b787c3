"""Rows and their index, against a dictionary; and that growing copies nothing big."""

from __future__ import annotations

from array import array
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from shared.core.ids import Kind
from tests.tracker_parts import NOW, announce, infohash, node
from tracker.core.columns import FIRST_CHAINS, ROWS_PER_CHAIN, Index, Rows, seen
from tracker.core.records import ROWS_A_LOOK, TICKS
from tracker.core.swarm import CLEARED_AT_ONCE, EXPIRY_INTERVALS, Swarms


class Book:
    """Keys in rows, as nodes and records keep theirs."""

    def __init__(self, bits: int) -> None:
        self.keys = array("I")
        self.rows = Rows([self.keys], [1])
        self.mask = (1 << bits) - 1  # few bits: many keys of one hash
        self.index = Index(self.rows, lambda row: self.hashed(self.keys[row]))

    def hashed(self, key: int) -> int:
        return key * 0x9E3779B1 & self.mask

    def find(self, key: int) -> int:
        row = self.index.first(self.hashed(key))
        while row and self.keys[row] != key:
            row = self.rows.chain[row]
        return row

    def add(self, key: int) -> None:
        row = self.rows.take()
        self.keys[row] = key
        self.index.add(row, self.hashed(key))

    def remove(self, key: int) -> None:
        row = self.find(key)
        self.index.remove(row, self.hashed(key))
        self.rows.give_back(row)


@given(st.integers(0, 1 << 32), st.integers(1, 400), st.sampled_from([1, 4, 30]))
def test_the_index_finds_exactly_what_is_there(seed: int, steps: int, bits: int) -> None:
    """After any adding and removing, every key that is there is found in a row of its own, and no other."""
    rng, book, there = Random(seed), Book(bits), set[int]()
    for _ in range(steps):
        key = rng.randrange(200)
        if key not in there:
            book.add(key)
            there.add(key)
        elif rng.random() < 0.4:
            book.remove(key)
            there.discard(key)
    rows = {key: book.find(key) for key in range(200)}
    assert {key for key, row in rows.items() if row} == there
    assert len({rows[key] for key in there}) == len(there) == book.rows.count


def test_chains_stay_short_however_many_rows_there_are() -> None:
    book = Book(30)
    for key in range(1, 5001):
        book.add(key)
    chains = book.index.bytes // 4
    assert FIRST_CHAINS < chains <= 5000 / ROWS_PER_CHAIN + 1
    lengths = []
    for place in range(chains):
        row, length = book.index._heads[place], 0
        while row:
            row, length = book.rows.chain[row], length + 1
        lengths.append(length)
    assert sum(lengths) == 5000
    assert max(lengths) <= 8 * ROWS_PER_CHAIN


def test_numpy_sees_the_columns_own_memory_and_columns_grow_in_small_steps() -> None:
    book = Book(30)
    for key in range(1, 10_000):
        book.add(key)
        assert len(book.keys) <= max(65, (key + 1) * 1.1 + 64)
    view = seen(book.keys)
    book.keys[7] = 123
    assert view[7] == 123


def test_the_hand_of_expiry_finds_everybody_once_wherever_it_rests() -> None:
    swarms = Swarms(60.0)
    for number in range(3 * CLEARED_AT_ONCE):
        swarms.announce(announce(infohash(0)), node(number), Kind.PC, "", NOW + number / 1000)
    assert len(swarms.records.chain) < ROWS_A_LOOK
    due = NOW + 60 * EXPIRY_INTERVALS + 1
    swarms.announce(announce(infohash(0)), node(700), Kind.PC, "", due)
    assert not swarms.expire(due - 2)
    for left in (2 * CLEARED_AT_ONCE, CLEARED_AT_ONCE, 1):
        swarms.expire(due + 2 / TICKS + 3)
        assert swarms.records.count == left
    assert swarms.has(infohash(0), node(700))
