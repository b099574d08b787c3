"""The hash tree of a file as BitTorrent v2 (BEP 52) defines it.

    pieces root                      one per file, in the info dictionary
       /      \\
    piece    piece   ...             the piece layer: one hash per piece, in the manifest
    /  \\      /  \\
  leaf leaf leaf [0]                 SHA-256 of 16 KiB; the last one of what is left

Leaves beyond the end of the file are 32 zero bytes, not the hash of anything, up to the next
power of two. In a file of more than one piece every piece is a subtree of full width, and
whole pieces that are missing are subtrees of zero leaves. A file that fits one piece has no
layer: its only piece hash is the root, over as few leaves as a power of two allows.
Rows of hashes are packed: 32 bytes each, without separators.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

LEAF_BYTES = 16384
HASH_BYTES = 32
ZERO_LEAF = bytes(HASH_BYTES)


def leaves_of(piece: bytes | bytearray | memoryview) -> bytes:
    """The packed leaf hashes of a piece (or any stretch that starts on a leaf); none of no bytes."""
    view = memoryview(piece).cast("B")
    return b"".join(
        sha256(view[start : start + LEAF_BYTES]).digest() for start in range(0, len(view), LEAF_BYTES)
    )


def verify_leaf(leaf: bytes | bytearray | memoryview, expected: bytes) -> bool:
    """Whether up to 16 KiB have the expected hash. Hashes are public: no need of constant time."""
    return len(leaf) <= LEAF_BYTES and sha256(leaf).digest() == expected


def piece_hash(leaves: bytes, piece_length: int, whole_file_in_one_piece: bool) -> bytes:
    """The hash of one piece from its packed leaves. Raises ValueError unless 1..width leaves fit."""
    width = piece_length // LEAF_BYTES
    if not 1 <= _count(leaves) <= width:
        raise ValueError(f"{len(leaves) // HASH_BYTES} leaves in a piece of 1 to {width}")
    return _fold(leaves, _power_of_two_from(_count(leaves)) if whole_file_in_one_piece else width, ZERO_LEAF)


def root_of_layer(layer: bytes, piece_length: int) -> bytes:
    """The pieces root over a packed piece layer; of a single hash it is that hash.

    Raises ValueError for an empty layer: an empty file has no root.
    """
    if not layer:
        raise ValueError("an empty file has no pieces root")
    return _fold(layer, _power_of_two_from(_count(layer)), zero_piece(piece_length // LEAF_BYTES))


@dataclass(frozen=True, slots=True)
class FileTree:
    """What a manifest says about a file's bytes.

    `layer` has one packed hash per piece (of a single piece: the root); `layer` and `root`
    are empty for an empty file.
    """

    length: int
    piece_length: int
    layer: bytes
    root: bytes


def layer_of_file(pieces: Iterable[bytes], piece_length: int) -> FileTree:
    """Hashes a file handed in piece by piece, in order; only the last may be short.

    Raises ValueError for a piece that is empty, too long, or short before the last.
    """
    length, hashes, first_leaves = 0, [], b""
    for piece in pieces:
        if not 0 < len(piece) <= piece_length or length % piece_length:
            raise ValueError(f"a piece of {len(piece)} bytes at {length}")
        leaves = leaves_of(piece)
        first_leaves = first_leaves or leaves
        hashes.append(piece_hash(leaves, piece_length, False))
        length += len(piece)
    if len(hashes) == 1:
        hashes = [piece_hash(first_leaves, piece_length, True)]
    layer = b"".join(hashes)
    return FileTree(length, piece_length, layer, root_of_layer(layer, piece_length) if layer else b"")


@cache
def zero_piece(width: int) -> bytes:
    """The hash of a subtree of `width` (a power of two) zero leaves."""
    return ZERO_LEAF if width == 1 else sha256(zero_piece(width // 2) * 2).digest()


def _count(row: bytes) -> int:
    count, rest = divmod(len(row), HASH_BYTES)
    if rest:
        raise ValueError(f"{len(row)} bytes are not a row of hashes")
    return count


def _power_of_two_from(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _fold(row: bytes, width: int, padding: bytes) -> bytes:
    """The root of `width` nodes, of which those not in `row` are `padding`.

    Level by level, padding only an odd end: a short row in a wide tree costs its own
    length and the depth, not the width.
    """
    while width > 1:
        if len(row) % (2 * HASH_BYTES):
            row += padding
        row = b"".join(
            sha256(row[start : start + 2 * HASH_BYTES]).digest()
            for start in range(0, len(row), 2 * HASH_BYTES)
        )
        padding = sha256(padding * 2).digest()
        width //= 2
    return row
