"""Invariant: room is made from what is worth least, and never from what is worth more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.errors import StoreFull
from shared.core.holdings import CHECKED, Holdings, Victim
from shared.core.ids import InfoHash
from shared.core.shape import Shape
from shared.piece_store import PieceStore
from tests.films_in_store import (
    PIECE,
    STORED,
    assert_whole,
    disk_bytes,
    filled,
    room_for,
    whole,
)


def test_eviction_order(tmp_path: Path) -> None:
    """Longest not watched first, and of it the last piece first; pinned ones never."""
    a, b, c, new = (whole(seed) for seed in (11, 12, 13, 14))
    store = filled(tmp_path, a, b, c, quota=room_for(12, a, b, c, new))
    for one, now in ((b, 1.0), (a, 2.0), (c, 3.0)):
        store.touch(one.infohash, now)
    store.pin(b.infohash)
    store.add_manifest(new.manifest)
    for index, piece in enumerate(new.pieces):
        store.put(new.infohash, index, piece)
    gone = [(a.infohash, index) for index in (3, 2, 1, 0)]
    assert store.drain_evicted() == gone
    assert store.drain_evicted() == []
    assert (len(store.held(b.infohash)), len(store.held(c.infohash))) == (4, 4)
    store.unpin(b.infohash)
    store.touch(a.infohash, 9.0)
    for index in (0, 1):
        store.put(a.infohash, index, a.pieces[index])
    assert store.drain_evicted() == [(b.infohash, 3), (b.infohash, 2)]
    found = store.statistics()
    assert found.evictions == 6
    assert found.used_bytes == disk_bytes(tmp_path) <= found.quota_bytes
    assert_whole(store, a, b, c, new)


def test_a_title_larger_than_the_quota_keeps_its_beginning(tmp_path: Path) -> None:
    one = whole(11)
    store = PieceStore(tmp_path, room_for(2, one))
    store.add_manifest(one.manifest)
    for index in (3, 2):
        store.put(one.infohash, index, one.pieces[index])
    for index in (0, 1):
        store.put(one.infohash, index, one.pieces[index])
    for index in (2, 3):
        with pytest.raises(StoreFull, match="raise its quota"):
            store.put(one.infohash, index, one.pieces[index])
    assert store.held(one.infohash) == {0, 1}


def test_a_less_valuable_piece_evicts_nothing(tmp_path: Path) -> None:
    old, new = whole(11), whole(12)
    store = PieceStore(tmp_path, room_for(4, old, new))
    for one, now in ((old, 1.0), (new, 2.0)):
        store.add_manifest(one.manifest)
        store.touch(one.infohash, now)
    for index, piece in enumerate(new.pieces):
        store.put(new.infohash, index, piece)
    with pytest.raises(StoreFull):
        store.put(old.infohash, 0, old.pieces[0])
    assert len(store.held(new.infohash)) == 4
    store.pin(old.infohash)
    store.put(old.infohash, 0, old.pieces[0])
    assert store.held(new.infohash) == {0, 1, 2}


def test_titles_without_pieces_go_too(tmp_path: Path) -> None:
    a, b = whole(11), whole(12)
    store = PieceStore(tmp_path, len(a.manifest.raw) + 10)
    store.add_manifest(a.manifest)
    store.add_manifest(b.manifest)
    assert store.infohashes() == [b.infohash]
    assert not a.folder(tmp_path).exists()
    store.pin(b.infohash)
    with pytest.raises(StoreFull):
        store.add_manifest(a.manifest)
    assert store.infohashes() == PieceStore(tmp_path, 0).infohashes() == [b.infohash]


def test_order_survives_a_restart(tmp_path: Path) -> None:
    a, b, c, new = (whole(seed) for seed in (11, 12, 13, 14))
    filled(tmp_path, a, b, c)
    for one, at in ((c, 1000), (a, 2000), (b, 3000)):
        os.utime(one.folder(tmp_path) / "manifest", (at, at))
    store = PieceStore(tmp_path, room_for(12, a, b, c, new))
    store.touch(c.infohash, 0.5)  # counts as later than anything before the restart, and is written down
    store.add_manifest(new.manifest)
    store.put(new.infohash, 0, new.pieces[0])
    assert store.drain_evicted() == [(a.infohash, 3)]
    again = PieceStore(tmp_path, room_for(9, a, b, c, new))
    again.put(new.infohash, 1, new.pieces[1])
    assert {name for name, _ in again.drain_evicted()} == {a.infohash, b.infohash}


@settings(max_examples=150, deadline=None)
@given(
    quota=st.integers(0, 12),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), max_size=60),
)
def test_holdings_stay_within_the_quota(quota: int, steps: list[tuple[int, int, bool]]) -> None:
    """Whatever is held and watched, the quota is kept, pins hold, and only cheaper pieces go."""
    shape = Shape(5 * PIECE, PIECE)
    holdings = Holdings(quota * STORED)
    names = [InfoHash(bytes([n]) * 32) for n in range(4)]
    pinned = names[3]
    holdings.pin(pinned)
    for name in names:
        holdings.add(name, shape, 0)
    for now, (title, index, watch) in enumerate(steps):
        name = names[title]
        if name not in holdings.titles:
            holdings.add(name, shape, 0)
        if watch:
            holdings.titles[name].watched_at = float(now)
        if holdings.titles[name].state(index):
            continue
        before = {n: (h.watched_at, h.order) for n, h in holdings.titles.items()}
        try:
            victims = holdings.make_room(STORED, name, index)
        except StoreFull:
            continue
        holdings.hold(name, index, CHECKED)
        assert holdings.used_bytes <= holdings.quota_bytes
        for victim in victims:
            assert victim.infohash != pinned
            assert name == pinned or before[victim.infohash] <= before[name]
            assert victim.infohash != name or (victim.index is not None and victim.index > index)
    assert holdings.used_bytes == STORED * sum(len(list(h.from_the_last())) for h in holdings.titles.values())
    assert holdings.piece_count == sum(h.count for h in holdings.titles.values())


def test_room_is_all_or_nothing() -> None:
    holdings, name, other = Holdings(2 * STORED), InfoHash(b"a" * 32), InfoHash(b"b" * 32)
    for one in (name, other):
        holdings.add(one, Shape(4 * PIECE, PIECE), 0)
    holdings.hold(name, 0, CHECKED)
    holdings.hold(other, 0, CHECKED)
    with pytest.raises(StoreFull):
        holdings.make_room(3 * STORED, other, 1)
    assert holdings.used_bytes == 2 * STORED
    assert holdings.make_room(STORED, other, 1) == [Victim(name, 0)]
