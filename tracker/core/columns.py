"""Rows without objects: columns that grow in place, and an index over them that grows row by row.

A row is a number; what is known of it stands at that number in several typed columns. A column
is an `array`: one element is read in 30 ns, and numpy sees the same memory when all of them are
wanted (`seen`). Columns grow by a few percent at their end, where the C library moves pages instead
of copying bytes, so a tracker that grows never stands still for it. Row 0 means "none".
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NONE = 0
FEWEST_NEW_ROWS = 64
GROWTH = 32  # a column grows by this part of itself
ROWS_PER_CHAIN = 2
FIRST_CHAINS = 16  # a power of two


class Rows:
    """Rows in columns of equal length; a row given back is taken again first."""

    def __init__(self, columns: Sequence[array[Any] | bytearray], widths: Sequence[int]) -> None:
        """`widths`: elements of each column that make a row."""
        self.chain = array("I")  # the next row in the index's chain; of a free row the next free one
        self.count = 0
        self._columns: list[tuple[array[Any] | bytearray, int]] = [
            (self.chain, 1), *zip(columns, widths, strict=True)
        ]  # fmt: skip
        self._free = NONE
        self._next = 1
        self._grow(FEWEST_NEW_ROWS)

    def take(self) -> int:
        """A row for something new; what stood there before still stands there."""
        row = self._free
        if row:
            self._free = self.chain[row]
        else:
            row = self._next
            if row == len(self.chain):
                self._grow(max(FEWEST_NEW_ROWS, row // GROWTH))
            self._next += 1
        self.count += 1
        return row

    def give_back(self, row: int) -> None:
        """The row holds nothing any more."""
        self.chain[row] = self._free
        self._free = row
        self.count -= 1

    @property
    def used(self) -> int:
        """Rows from 1 up to, not including, this one have been taken at least once."""
        return self._next

    @property
    def bytes(self) -> int:
        """What all columns occupy."""
        return sum(len(column) * _item_bytes(column) for column, _ in self._columns)

    def _grow(self, rows: int) -> None:
        for column, width in self._columns:
            fresh = bytes(rows * width * _item_bytes(column))
            if isinstance(column, bytearray):
                column.extend(fresh)
            else:
                column.frombytes(fresh)


def _item_bytes(column: array[Any] | bytearray) -> int:
    return column.itemsize if isinstance(column, array) else 1


def seen(column: array[Any]) -> NDArray[Any]:
    """The column's own memory as a numpy vector; let it go before anything grows."""
    return np.frombuffer(column, dtype=column.typecode)


class Index:
    """Finds rows by key: linear hashing (Litwin, 1980), chained through a column of the rows.

    There are half as many chains as rows; with every second row one old chain is split in two.
    So no row costs more than the one before it, however many there are.
    """

    def __init__(self, rows: Rows, hash_of: Callable[[int], int]) -> None:
        """`hash_of` gives the hash of the key that stands in a row."""
        self._chain = rows.chain
        self._hash_of = hash_of
        self._heads = array("I", bytes(4 * FIRST_CHAINS))
        self._level = FIRST_CHAINS  # chains before this doubling began
        self._count = 0

    def first(self, hashed: int) -> int:
        """The first row that may hold a key of this hash; `chain` leads to the others."""
        heads = self._heads
        place = hashed & (2 * self._level - 1)
        return heads[place if place < len(heads) else hashed & (self._level - 1)]

    def add(self, row: int, hashed: int) -> None:
        """The key that now stands in `row` can be found."""
        place = self._place(hashed)
        self._chain[row] = self._heads[place]
        self._heads[place] = row
        self._count += 1
        if self._count > ROWS_PER_CHAIN * len(self._heads):
            self._split()

    def remove(self, row: int, hashed: int) -> None:
        """The key in `row`, which must be there, is found no more."""
        place = self._place(hashed)
        chain = self._chain
        at = self._heads[place]
        if at == row:
            self._heads[place] = chain[row]
        else:
            while chain[at] != row:
                at = chain[at]
            chain[at] = chain[row]
        self._count -= 1

    @property
    def bytes(self) -> int:
        """What the heads of the chains occupy; the links stand in the rows."""
        return 4 * len(self._heads)

    def _place(self, hashed: int) -> int:
        place = hashed & (2 * self._level - 1)
        return place if place < len(self._heads) else hashed & (self._level - 1)

    def _split(self) -> None:
        old, new = len(self._heads) - self._level, len(self._heads)
        kept = moved = NONE
        row = self._heads[old]
        while row:
            following = self._chain[row]
            if self._hash_of(row) & (2 * self._level - 1) == old:
                self._chain[row], kept = kept, row
            else:
                self._chain[row], moved = moved, row
            row = following
        self._heads[old] = kept
        self._heads.append(moved)
        if new + 1 == 2 * self._level:
            self._level *= 2
