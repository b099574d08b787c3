"""Invariant: every shortcut gives what the whole tree, written out leaf by leaf, gives."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import merkle
from shared.core.merkle import LEAF_BYTES


def naive_tree(data: bytes, least_width: int = 1) -> list[list[bytes]]:
    """All levels, leaves first, over leaves padded with zeros to a power of two."""
    leaves = [sha256(data[at : at + LEAF_BYTES]).digest() for at in range(0, len(data), LEAF_BYTES)]
    width = least_width
    while width < len(leaves):
        width *= 2
    levels = [leaves + [bytes(32)] * (width - len(leaves))]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([sha256(below[at] + below[at + 1]).digest() for at in range(0, len(below), 2)])
    return levels


def layer_and_root(data: bytes, piece_length: int) -> tuple[bytes, bytes]:
    pieces = [data[at : at + piece_length] for at in range(0, len(data), piece_length)]
    single = len(pieces) == 1
    layer = b"".join(merkle.piece_hash(merkle.leaves_of(one), piece_length, single) for one in pieces)
    return layer, merkle.root_of_layer(layer, piece_length)


@settings(max_examples=150, deadline=None)
@given(
    leaves=st.integers(0, 40),
    tail=st.sampled_from([1, 2, LEAF_BYTES - 1, LEAF_BYTES]),
    piece_leaves=st.sampled_from([1, 2, 4, 16]),
    seed=st.integers(0, 255),
)
def test_against_the_whole_tree(leaves: int, tail: int, piece_leaves: int, seed: int) -> None:
    """Layer and root equal those of the whole tree for every size and piece length."""
    data = bytes((seed + n) % 251 for n in range(997)) * (LEAF_BYTES * 41 // 997 + 1)
    data = data[: leaves * LEAF_BYTES + tail]
    piece_length = piece_leaves * LEAF_BYTES
    layer, root = layer_and_root(data, piece_length)
    tree = naive_tree(data, least_width=1 if len(data) <= piece_length else piece_leaves)
    assert root == tree[-1][0]
    if len(data) > piece_length:
        pieces = -(-len(data) // piece_length)
        assert layer == b"".join(tree[piece_leaves.bit_length() - 1][:pieces])
    else:
        assert layer == root


def test_known_tree() -> None:
    """Three leaves by hand: the fourth is 32 zero bytes, not the hash of nothing."""
    data = b"a" * LEAF_BYTES + b"b" * LEAF_BYTES + b"c"
    a, b, c = (sha256(part).digest() for part in (b"a" * LEAF_BYTES, b"b" * LEAF_BYTES, b"c"))
    expected = sha256(sha256(a + b).digest() + sha256(c + bytes(32)).digest()).digest()
    assert merkle.leaves_of(data) == a + b + c
    assert merkle.piece_hash(a + b + c, 4 * LEAF_BYTES, True) == expected
    assert merkle.piece_hash(a + b + c, 16 * LEAF_BYTES, True) == expected
    assert merkle.piece_hash(a + b + c, 16 * LEAF_BYTES, False) != expected


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_leaves_of_any_buffer(kind: type) -> None:
    data = bytes(range(256)) * 100
    assert merkle.leaves_of(kind(data)) == merkle.leaves_of(data)
    assert len(merkle.leaves_of(data)) == 2 * 32
    assert merkle.leaves_of(kind(b"")) == b""


def test_verify_leaf() -> None:
    leaf = b"x" * LEAF_BYTES
    expected = merkle.leaves_of(leaf)
    assert merkle.verify_leaf(leaf, expected)
    assert not merkle.verify_leaf(leaf[:-1] + b"y", expected)
    assert not merkle.verify_leaf(leaf[:-1], expected)
    assert not merkle.verify_leaf(leaf * 2, sha256(leaf * 2).digest())


@pytest.mark.parametrize("leaves", [b"", b"x" * 31, b"x" * 33, b"x" * 32 * 5])
def test_rows_that_fit_no_piece(leaves: bytes) -> None:
    with pytest.raises(ValueError, match="leaves in a piece|row of hashes"):
        merkle.piece_hash(leaves, 4 * LEAF_BYTES, False)


@pytest.mark.parametrize("layer", [b"", b"x" * 31])
def test_rows_that_are_no_layer(layer: bytes) -> None:
    with pytest.raises(ValueError, match="empty file|row of hashes"):
        merkle.root_of_layer(layer, 4 * LEAF_BYTES)
