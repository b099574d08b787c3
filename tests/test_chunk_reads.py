"""What the store reads of a piece, and what it never waits for."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import piece_files
from shared.core.bulk import PieceRequest
from shared.core.errors import Refused
from shared.core.merkle import HASH_BYTES, LEAF_BYTES
from shared.piece_store import PieceStore
from tests.films_in_store import PIECE, PLENTY, Film, filled, film
from tests.node_parts import Published, open_house, published_once, stranger

ROW_BYTES = PIECE // LEAF_BYTES * HASH_BYTES


class Reading:
    """Counts the bytes that come from the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = 0
        monkeypatch.setattr(piece_files, "os", self)

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def pread(self, file: int, count: int, offset: int) -> bytes:
        found = os.pread(file, count, offset)
        self.taken += len(found)
        return found

    def take(self) -> int:
        """Since the last call."""
        taken, self.taken = self.taken, 0
        return taken


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Film, PieceStore]:
    one = film(7)
    return one, filled(tmp_path_factory.mktemp("store"), one)


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_chunk_is_those_bytes_of_its_piece(shelf: tuple[Film, PieceStore], data: st.DataObject) -> None:
    """For any piece and stretch of it, as Python cuts bytes; the leaf hashes are all of the piece's."""
    one, store = shelf
    index = data.draw(st.integers(0, one.manifest.piece_count - 1))
    start = data.draw(st.integers(0, PIECE))
    end = data.draw(st.integers(0, 2 * PIECE) | st.none())
    leaves, chunk = store.read_chunk(one.infohash, index, start, end)
    assert chunk == one.pieces[index][start:end]
    assert leaves == store.read(one.infohash, index)[0]


def test_a_chunk_costs_its_bytes_and_the_leaf_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first read after a start takes the whole piece, to verify it."""
    one = film(1)
    filled(tmp_path, one)
    store, reading = PieceStore(tmp_path, PLENTY), Reading(monkeypatch)
    store.manifest(one.infohash)  # read once, too
    chunk = (LEAF_BYTES, 2 * LEAF_BYTES)
    reading.take()
    assert store.read_chunk(one.infohash, 1, *chunk)[1] == one.pieces[1][slice(*chunk)]
    assert reading.take() == ROW_BYTES + PIECE
    for _ in range(3):
        assert store.read_chunk(one.infohash, 1, *chunk)[1] == one.pieces[1][slice(*chunk)]
        assert reading.take() == ROW_BYTES + LEAF_BYTES


@pytest.mark.parametrize("damage", ["shorter", "longer", "flipped"])
def test_the_first_chunk_of_a_damaged_piece_is_refused(tmp_path: Path, damage: str) -> None:
    """Wherever in the piece the damage is."""
    one = film(1)
    filled(tmp_path, one)
    path = tmp_path / one.infohash.hex() / "1"
    raw = path.read_bytes()
    changed = {"shorter": raw[:-1], "longer": raw + b"x", "flipped": raw[:-1] + bytes([raw[-1] ^ 1])}
    path.write_bytes(changed[damage])
    store = PieceStore(tmp_path, PLENTY)
    with pytest.raises(Refused):
        store.read_chunk(one.infohash, 1, 0, LEAF_BYTES)
    assert 1 not in store.held(one.infohash)
    assert store.drain_evicted() == [(one.infohash, 1)]


def test_what_an_event_loop_asks_never_waits_for_the_disk(tmp_path: Path) -> None:
    """While another thread deletes or renames under the store's lock."""
    one = film(1)
    store, answers = filled(tmp_path, one), list[object]()

    def ask() -> None:
        answers.extend(
            [store.infohashes(), store.held(one.infohash), store.drain_evicted(), store.statistics()]
        )

    with store._lock:
        asking = Thread(target=ask)
        asking.start()
        asking.join(5.0)
        assert len(answers) == 4
    assert answers[:3] == [[one.infohash], frozenset(range(one.manifest.piece_count)), []]


def test_every_loss_is_drained_once_whoever_adds_meanwhile() -> None:
    """Nothing that is lost while somebody drains is forgotten or told twice."""
    store = PieceStore.__new__(PieceStore)
    store._gone = {}
    names = [(film(1).infohash, index) for index in range(20_000)]

    def lose() -> None:
        for name in names:
            store._gone[name] = None

    losing, drained = Thread(target=lose), list[object]()
    losing.start()
    while losing.is_alive():
        drained += store.drain_evicted()
    drained += store.drain_evicted()
    assert sorted(drained) == sorted(names)  # type: ignore[type-var]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


async def test_an_edge_reads_what_it_is_asked_for(
    tmp_path: Path, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leaf asked over the network costs a leaf from the disk, once its piece was verified."""
    async with open_house(tmp_path, published) as house, stranger(house.edge.ready.address) as viewer:
        await viewer.join(house, published)
        reading = Reading(monkeypatch)
        costs = []
        for leaf in (0, 1, 2):
            answer = await viewer.ask(PieceRequest(published.infohash, 0, leaf, 1).encode())
            assert answer.endswith(published.piece(0)[leaf * LEAF_BYTES : (leaf + 1) * LEAF_BYTES])
            costs.append(reading.take())
        row_bytes = published.manifest.leaf_count(0) * HASH_BYTES
        assert costs[0] >= row_bytes + len(published.piece(0))
        assert costs[1:] == [row_bytes + LEAF_BYTES] * 2
