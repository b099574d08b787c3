"""Small films with manifests, a store filled with them, and what must hold of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.core import manifest, merkle
from shared.core.errors import Reason, Refused
from shared.core.ids import TitleId
from shared.core.manifest import Manifest
from shared.piece_store import PieceStore

PIECE = 32768
STORED = PIECE + 2 * 32  # bytes of a whole piece on disk
PLENTY = 1 << 30
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


class Film:
    """A file of random bytes with its manifest."""

    def __init__(self, seed: int, length: int = 5 * PIECE + 777, piece_length: int = PIECE) -> None:
        data = Random(seed).randbytes(length)
        self.pieces = [data[at : at + piece_length] for at in range(0, length, piece_length)]
        tree = merkle.layer_of_file(self.pieces, piece_length)
        draft = manifest.build(f"{seed}.mp4", tree, title=f"Film {seed}", title_id=TitleId(b"i" * 16))
        self.manifest: Manifest = manifest.parse(manifest.sign(draft, KEY))
        self.infohash = self.manifest.infohash

    def folder(self, root: Path) -> Path:
        return root / self.infohash.hex()


@cache
def film(seed: int, length: int = 5 * PIECE + 777) -> Film:
    return Film(seed, length)


def filled(root: Path, *films: Film, quota: int = PLENTY) -> PieceStore:
    store = PieceStore(root, quota)
    for one in films:
        store.add_manifest(one.manifest)
        for index, piece in enumerate(one.pieces):
            store.put(one.infohash, index, piece)
    return store


def assert_whole(store: PieceStore, *films: Film) -> None:
    """Every piece that is held reads back right, leaves first."""
    for one in films:
        for index in store.held(one.infohash):
            assert store.read(one.infohash, index) == (merkle.leaves_of(one.pieces[index]), one.pieces[index])


def assert_not_held(store: PieceStore, one: Film, index: int) -> None:
    with pytest.raises(Refused) as caught:
        store.read(one.infohash, index)
    assert caught.value.reason is Reason.NOT_HELD


def disk_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def room_for(pieces: int, *films: Film) -> int:
    return pieces * STORED + sum(len(one.manifest.raw) for one in films)


def whole(seed: int) -> Film:
    return film(seed, 4 * PIECE)
