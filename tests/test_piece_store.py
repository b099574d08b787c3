"""Invariant: what the store serves is what the manifest promised, whatever lies on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shared import piece_files
from shared.core import merkle
from shared.core.errors import ProtocolError, Reason, Refused
from shared.core.ids import InfoHash
from shared.piece_store import PieceStore
from tests.films_in_store import (
    PIECE,
    PLENTY,
    STORED,
    assert_not_held,
    assert_whole,
    disk_bytes,
    filled,
    film,
)


@pytest.mark.parametrize("durable", [False, True])
def test_round_trip(tmp_path: Path, durable: bool) -> None:
    one = film(1)
    store = PieceStore(tmp_path / "a" / "b", PLENTY, durable=durable)
    store.add_manifest(one.manifest)
    assert (store.held(one.infohash), store.bitfield(one.infohash)) == (frozenset(), b"\0")
    for index in (0, 2, 5):
        store.put(one.infohash, index, one.pieces[index], merkle.leaves_of(one.pieces[index]))
        store.put(one.infohash, index, one.pieces[index])
    assert store.held(one.infohash) == {0, 2, 5}
    assert store.bitfield(one.infohash) == bytes([0b10100100])
    assert store.manifest(one.infohash) == one.manifest
    assert store.infohashes() == [one.infohash]
    assert_whole(store, one)
    assert_not_held(store, one, 1)
    found = store.statistics()
    assert (found.titles, found.pieces, found.evictions, found.dropped_bad) == (1, 3, 0, 0)
    assert found.used_bytes == disk_bytes(tmp_path)


def test_empty_and_tiny_files(tmp_path: Path) -> None:
    empty, tiny = film(1, 0), film(2, 1)
    store = filled(tmp_path, empty, tiny)
    assert (store.held(empty.infohash), store.bitfield(empty.infohash)) == (frozenset(), b"")
    assert_not_held(store, empty, 0)
    assert store.held(tiny.infohash) == {0}
    assert_whole(PieceStore(tmp_path, PLENTY), empty, tiny)


def test_restart_finds_everything(tmp_path: Path) -> None:
    before = filled(tmp_path, film(1), film(2)).statistics()
    store = PieceStore(tmp_path, PLENTY)
    assert store.statistics() == before
    assert store.held(film(1).infohash) == set(range(6))
    assert store.manifest(film(2).infohash) == film(2).manifest
    assert_whole(store, film(1), film(2))


def test_what_is_not_here(tmp_path: Path) -> None:
    store, one = PieceStore(tmp_path, PLENTY), film(1)
    assert (store.held(one.infohash), store.bitfield(one.infohash)) == (frozenset(), b"")
    assert store.manifest(one.infohash) is None
    assert_not_held(store, one, 0)
    store.touch(one.infohash, 1.0)
    store.remove(one.infohash)
    with pytest.raises(Refused) as caught:
        store.put(one.infohash, 0, one.pieces[0])
    assert caught.value.reason is Reason.UNKNOWN_TITLE
    with pytest.raises(ValueError, match="not pinned"):
        store.unpin(one.infohash)


def test_wrong_bytes_are_never_held(tmp_path: Path) -> None:
    one, other = film(1), film(2)
    store = PieceStore(tmp_path, PLENTY)
    store.add_manifest(one.manifest)
    flipped = bytearray(one.pieces[0])
    flipped[20000] ^= 1
    row = merkle.leaves_of(one.pieces[0])
    offers: list[tuple[int, bytes, bytes | None]] = [
        (0, bytes(flipped), None),
        (0, bytes(flipped), row),
        (0, one.pieces[1], None),
        (0, other.pieces[0], merkle.leaves_of(other.pieces[0])),
        (0, one.pieces[0][:-1], None),
        (0, one.pieces[0] + b"x", None),
        (0, b"", None),
        (0, one.pieces[0], row[:-1]),
        (0, one.pieces[0], row[::-1]),
        (5, one.pieces[5] + bytes(PIECE - 777), None),
        (6, one.pieces[5], None),
        (-1, one.pieces[5], None),
    ]
    for index, data, leaves in offers:
        with pytest.raises(ProtocolError) as caught:
            store.put(one.infohash, index, data, leaves)
        assert caught.value.reason is Reason.BAD_DATA
    assert store.held(one.infohash) == frozenset()
    assert os.listdir(one.folder(tmp_path)) == ["manifest"]  # noqa: PTH208 - order does not matter


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 0x10
    path.write_bytes(raw)


@pytest.mark.parametrize("at", [0, 63, 64, 20000, STORED - 1])
def test_flipped_bit_is_found_at_first_read(tmp_path: Path, at: int) -> None:
    one = film(1)
    filled(tmp_path, one)
    flip(one.folder(tmp_path) / "3", at)
    store = PieceStore(tmp_path, PLENTY)
    assert 3 in store.held(one.infohash)  # nothing was hashed yet
    assert_not_held(store, one, 3)
    assert store.held(one.infohash) == {0, 1, 2, 4, 5}
    assert store.drain_evicted() == [(one.infohash, 3)]
    assert store.statistics().dropped_bad == 1
    assert not (one.folder(tmp_path) / "3").exists()
    assert store.statistics().used_bytes == disk_bytes(tmp_path)
    store.put(one.infohash, 3, one.pieces[3])
    assert_whole(store, one)
    assert len(store.held(one.infohash)) == 6


@pytest.mark.parametrize("size", [0, 1, 64, STORED - 1, STORED + 1])
@pytest.mark.parametrize("restarted", [False, True])
def test_torn_piece_is_not_served(tmp_path: Path, size: int, restarted: bool) -> None:
    one = film(1)
    store = filled(tmp_path, one)
    path = one.folder(tmp_path) / "0"
    path.write_bytes((path.read_bytes() + b"x")[:size])
    if restarted:
        store = PieceStore(tmp_path, PLENTY)
    assert_not_held(store, one, 0)
    assert 0 not in store.held(one.infohash)
    assert_whole(store, one)


def test_piece_that_vanished_or_became_something_else(tmp_path: Path) -> None:
    one, secret = film(1), tmp_path / "secret"
    root = tmp_path / "store"
    store = filled(root, one)
    folder = one.folder(root)
    secret.write_bytes((folder / "2").read_bytes())
    for index in range(4):
        (folder / str(index)).unlink()
    (folder / "1").mkdir()
    (folder / "2").symlink_to(secret)
    os.mkfifo(folder / "3")
    restarted = PieceStore(root, PLENTY)
    assert restarted.held(one.infohash) == {4, 5}
    for index in (0, 2, 3):
        assert_not_held(store, one, index)
    assert secret.exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty", "other"])
def test_damaged_manifest(tmp_path: Path, damage: str) -> None:
    """Without its manifest nothing of a title can be proved: it is given up, the rest is not."""
    one, other = film(1), film(2)
    filled(tmp_path, one, other)
    path = one.folder(tmp_path) / "manifest"
    if damage == "flip":
        flip(path, path.read_bytes().index(b"piece length") + 15)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "gone":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(other.manifest.raw)
    store = PieceStore(tmp_path, PLENTY)
    assert store.infohashes() == [other.infohash]
    assert not one.folder(tmp_path).exists()
    assert store.statistics().dropped_bad == 7
    assert store.statistics().used_bytes == disk_bytes(tmp_path)
    assert_whole(store, other)


def test_manifest_damaged_where_start_up_does_not_look(tmp_path: Path) -> None:
    one = film(1)
    filled(tmp_path, one)
    path = one.folder(tmp_path) / "manifest"
    flip(path, path.read_bytes().index(one.manifest.layer) + 5)
    store = PieceStore(tmp_path, PLENTY)
    assert_not_held(store, one, 0)
    assert store.infohashes() == []
    assert sorted(store.drain_evicted()) == [(one.infohash, index) for index in range(6)]
    assert store.statistics().used_bytes == disk_bytes(tmp_path) == 0


def test_foreign_files_are_let_be(tmp_path: Path) -> None:
    one = film(1)
    filled(tmp_path, one)
    folder = one.folder(tmp_path)
    foreign = [
        tmp_path / "notes.txt",
        tmp_path / ".notes.part",
        tmp_path / ("A" * 64),
        tmp_path / ("f" * 64),  # a file where a folder would be
        folder / "00",
        folder / "-1",
        folder / "1.bak",
        folder / "٣",
        folder / ".hidden",
        folder / "6",  # no such piece
        folder / "99999999999999999999",
    ]
    for path in foreign:
        path.write_bytes(b"mine")
    (tmp_path / "lost+found").mkdir()
    leftovers = [tmp_path / ".77-0.part", tmp_path / ".1-123.part"]
    for path in leftovers:
        path.write_bytes(b"half")
    store = PieceStore(tmp_path, PLENTY)
    assert store.infohashes() == [one.infohash]
    assert store.held(one.infohash) == set(range(6))
    assert not any(path.exists() for path in leftovers)
    store.remove(one.infohash)
    assert store.statistics().used_bytes == 0
    assert {path.name for path in folder.iterdir()} == {
        "00",
        "-1",
        "1.bak",
        "٣",
        ".hidden",
        "99999999999999999999",
    }
    assert all(path.exists() for path in foreign if path.name != "6")


@pytest.mark.parametrize("infohash", [b"", b"..", b"../../etc", b"x" * 31, b"x" * 33])
def test_names_cannot_lead_elsewhere(tmp_path: Path, infohash: bytes) -> None:
    store = filled(tmp_path / "store", film(1))
    name = InfoHash(infohash)
    assert (store.held(name), store.bitfield(name), store.manifest(name)) == (frozenset(), b"", None)
    store.remove(name)
    with pytest.raises(Refused):
        store.read(name, 0)
    with pytest.raises(Refused):
        store.put(name, 0, b"x")
    with pytest.raises(ValueError, match="an infohash of"):
        piece_files.PieceFiles(tmp_path / "store", durable=False).delete_folder(name)
    assert_whole(store, film(1))


def test_linked_folder_is_not_entered(tmp_path: Path) -> None:
    one = film(1)
    filled(tmp_path / "elsewhere", one)
    (tmp_path / "store").mkdir()
    one.folder(tmp_path / "store").symlink_to(one.folder(tmp_path / "elsewhere"))
    assert PieceStore(tmp_path / "store", PLENTY).infohashes() == []


def test_remove(tmp_path: Path) -> None:
    a, b = film(1), film(2)
    store = filled(tmp_path, a, b)
    store.remove(a.infohash)
    assert (store.infohashes(), store.manifest(a.infohash), store.drain_evicted()) == ([b.infohash], None, [])
    assert_not_held(store, a, 0)
    assert store.statistics().used_bytes == disk_bytes(tmp_path)
    store.add_manifest(a.manifest)
    assert store.held(a.infohash) == frozenset()
    assert PieceStore(tmp_path, PLENTY).statistics() == store.statistics()
