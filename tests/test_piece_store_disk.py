"""Invariant: kills, full and failing disks and many threads lose nothing that was held."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from shared.core import merkle
from shared.core.errors import LocalError, Refused, StoreError, StoreFull
from shared.piece_store import PieceStore
from tests.films_in_store import (
    PIECE,
    PLENTY,
    Film,
    assert_not_held,
    assert_whole,
    disk_bytes,
    filled,
    film,
    room_for,
    whole,
)

HOUSE = Path(__file__).parents[1]

CHILD = """
import sys
from pathlib import Path
from tests.films_in_store import PLENTY, film
from shared.piece_store import PieceStore
store = PieceStore(Path(sys.argv[1]), PLENTY)
for seed in range(1, 1000):
    one = film(seed)
    store.add_manifest(one.manifest)
    for index, piece in enumerate(one.pieces):
        store.put(one.infohash, index, piece)
        print(seed, index, flush=True)
"""


@pytest.mark.parametrize("kill_after", [1, 14, 40])
def test_kill_in_mid_write(tmp_path: Path, kill_after: int) -> None:
    """After kill -9 every piece that was reported is held and right, and no half piece is listed."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=HOUSE
    )
    with child:
        assert child.stdout is not None
        reported = [line for _, line in zip(range(kill_after), child.stdout, strict=False)]
        child.send_signal(signal.SIGKILL)
        reported += [line for line in child.stdout if line.endswith("\n")]
    assert child.returncode == -signal.SIGKILL
    store = PieceStore(tmp_path, PLENTY)
    seeds = range(1, int(reported[-1].split()[0]) + 3)
    for line in reported:
        seed, index = map(int, line.split())
        assert index in store.held(film(seed).infohash)
    assert_whole(store, *map(film, seeds))
    assert store.statistics().pieces >= len(reported)
    assert store.statistics().dropped_bad == 0
    assert store.statistics().used_bytes == disk_bytes(tmp_path)
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB of its own."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run([umount, disk], check=True)


def test_full_disk(small_disk: Path) -> None:
    """A disk smaller than the quota: less valuable pieces make way, then StoreFull; nothing breaks."""
    store = PieceStore(small_disk, PLENTY)
    old, new = film(1, 20 * PIECE), film(2, 60 * PIECE)
    for one in (old, new):
        store.add_manifest(one.manifest)
    store.touch(new.infohash, 5.0)
    for index, piece in enumerate(old.pieces):
        store.put(old.infohash, index, piece)
    with pytest.raises(StoreFull) as caught:
        for index, piece in enumerate(new.pieces):
            store.put(new.infohash, index, piece)
    assert "\n" not in str(caught.value)
    assert store.held(old.infohash) == frozenset()
    held = store.held(new.infohash)
    assert 20 <= len(held) < 32 and held == set(range(len(held)))
    assert_whole(PieceStore(small_disk, PLENTY), new)
    assert store.statistics().used_bytes <= 1 << 20
    assert not list(small_disk.rglob("*.part"))


class BrokenDisk:
    """Writes that fail with an errno after some bytes, as often as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failures: list[int] = []
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file: int, data: Any) -> int:
        if self.failures:
            self._write(file, data[:100])
            raise OSError(self.failures.pop(), "told to")
        return self._write(file, data[:5000])  # short writes are no errors


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EIO, StoreError),
        (errno.EROFS, StoreError),
    ],
)
def test_failing_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[LocalError]
) -> None:
    one = film(1)
    store = filled(tmp_path, film(2))
    store.add_manifest(one.manifest)
    store.pin(film(2).infohash)
    before = store.statistics()
    disk = BrokenDisk(monkeypatch)
    disk.failures = [number]
    with pytest.raises(error) as caught:
        store.put(one.infohash, 0, one.pieces[0])
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert (store.statistics(), disk_bytes(tmp_path)) == (before, before.used_bytes)
    store.put(one.infohash, 0, one.pieces[0])
    assert_whole(store, one, film(2))


def test_no_space_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = film(1), film(2)
    store = filled(tmp_path, old)
    store.add_manifest(new.manifest)
    disk = BrokenDisk(monkeypatch)
    disk.failures = [errno.ENOSPC] * 2
    store.put(new.infohash, 0, new.pieces[0])
    assert store.held(old.infohash) == {0, 1, 2}  # the last, short one was not enough
    assert store.statistics().evictions == 3
    disk.failures = [errno.ENOSPC] * 100
    with pytest.raises(StoreFull):
        store.put(new.infohash, 1, new.pieces[1])
    assert store.statistics().evictions < 3 + 4  # somebody else's disk usage does not empty the store
    assert_whole(store, old, new)


def test_full_disk_for_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, disk = PieceStore(tmp_path, PLENTY), BrokenDisk(monkeypatch)
    disk.failures = [errno.ENOSPC]
    with pytest.raises(StoreFull):
        store.add_manifest(film(1).manifest)
    assert (store.infohashes(), disk_bytes(tmp_path)) == ([], 0)
    store.add_manifest(film(1).manifest)
    assert store.infohashes() == PieceStore(tmp_path, PLENTY).infohashes() == [film(1).infohash]
    assert store.statistics().dropped_bad == 0


def test_name_that_is_taken_by_a_folder(tmp_path: Path) -> None:
    one = film(1)
    store = PieceStore(tmp_path, PLENTY)
    store.add_manifest(one.manifest)
    (one.folder(tmp_path) / "0").mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        store.put(one.infohash, 0, one.pieces[0])
    assert store.held(one.infohash) == frozenset()
    assert store.statistics().used_bytes == disk_bytes(tmp_path)


@pytest.mark.parametrize(("durable", "for_manifest", "for_piece"), [(False, 1, 0), (True, 3, 2)])
def test_flushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, for_manifest: int, for_piece: int
) -> None:
    """Durable: the file, its folder, and for a new folder the root; otherwise manifests alone."""
    store, flushed, real = PieceStore(tmp_path, PLENTY, durable=durable), [], os.fsync

    def counting(file: int) -> None:
        flushed.append(file)
        real(file)

    monkeypatch.setattr(os, "fsync", counting)
    store.add_manifest(film(1).manifest)
    assert len(flushed) == for_manifest
    store.put(film(1).infohash, 0, film(1).pieces[0])
    assert len(flushed) == for_manifest + for_piece


def test_unusable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="cannot"):
            PieceStore(path, PLENTY)


def test_restart_reads_only_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of pieces cost no opened file and no hash of theirs at start-up."""
    pieces = 3000
    one = Film(1, pieces * 16384, 16384)
    PieceStore(tmp_path, PLENTY).add_manifest(one.manifest)
    for index in range(pieces):
        (one.folder(tmp_path) / str(index)).touch()
    opened: list[str] = []
    real_open = os.open

    def counting_open(path: Any, *rest: Any, **more: Any) -> int:
        opened.append(Path(path).name)
        return real_open(path, *rest, **more)

    monkeypatch.setattr(os, "open", counting_open)
    store = PieceStore(tmp_path, PLENTY)
    assert opened == ["manifest"]
    assert len(store.held(one.infohash)) == pieces
    assert store.bitfield(one.infohash) == b"\xff" * (pieces // 8)
    assert_not_held(store, one, 17)  # what counts as held is proved before it is served


def test_first_read_alone_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = film(1)
    filled(tmp_path, one)
    store = PieceStore(tmp_path, PLENTY)
    hashed: list[int] = []
    real = merkle.leaves_of

    def counting(piece: bytes) -> bytes:
        hashed.append(len(piece))
        return real(piece)

    monkeypatch.setattr(merkle, "leaves_of", counting)
    for _ in range(3):
        assert store.read(one.infohash, 0)[1] == one.pieces[0]
    assert hashed == [PIECE]


def test_many_manifests_do_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.piece_store.CACHED_MANIFESTS", 2)
    films = [film(seed) for seed in range(1, 6)]
    store = filled(tmp_path, *films)
    assert len(store._manifests) == 2
    assert [store.manifest(one.infohash) for one in films] == [one.manifest for one in films]
    assert len(store._manifests) == 2


def test_from_many_threads(tmp_path: Path) -> None:
    """Writers, readers and removals at once: accounts equal the disk and every byte is right."""
    films = [whole(seed) for seed in range(21, 27)]
    store = PieceStore(tmp_path, room_for(10, *films))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        dice = Random(seed)
        try:
            for step in range(150):
                one = dice.choice(films)
                index = dice.randrange(4)
                store.touch(one.infohash, float(step))
                try:
                    if dice.random() < 0.02:
                        store.remove(one.infohash)
                    elif dice.random() < 0.6:
                        store.add_manifest(one.manifest)
                        store.put(one.infohash, index, one.pieces[index])
                    else:
                        assert store.read(one.infohash, index)[1] == one.pieces[index]
                except (Refused, StoreFull):
                    continue
        except BaseException as error:  # noqa: B036 - shown by the thread that asserts
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = store.statistics()
    assert found.used_bytes == disk_bytes(tmp_path) <= found.quota_bytes
    assert found.evictions > 0
    assert_whole(store, *films)
    restarted = PieceStore(tmp_path, PLENTY)
    assert {one.infohash: restarted.held(one.infohash) for one in films} == {
        one.infohash: store.held(one.infohash) for one in films
    }
