"""Pieces on disk: verified before they count as held, and again before they are first served.

Calls block on the disk (run them in threads) and may come from any thread: one lock guards
the index and short changes of names; reading, writing and hashing go on outside it. Names change on
the disk, too, so an event loop must not wait for that lock: what it asks for (`infohashes`, `held`,
`drain_evicted`, `statistics`) takes none, and reads the index by operations that are whole in CPython.
Start-up lists folders and hashes nothing. What it finds is *unchecked*: the first read of
such a piece verifies it against the manifest and drops it if the disk has changed a byte, so
neither a crash nor a bad disk can make the store serve what it should not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from shared.core import merkle
from shared.core.errors import ProtocolError, Reason, Refused, StoreFull
from shared.core.holdings import ABSENT, CHECKED, UNCHECKED, Holding, Holdings, Victim
from shared.core.ids import InfoHash
from shared.core.manifest import Manifest, parse, shape_of
from shared.core.merkle import HASH_BYTES
from shared.core.shape import Shape
from shared.piece_files import Folder, PieceFiles

CACHED_MANIFESTS = 64  # parsed ones in memory: half a megabyte each for a long film
FULL_DISK_TRIES = 4  # somebody else may fill the disk faster than we can give up pieces
WATCHED_SECONDS = 60.0  # how often a title's place in the order is written down


@dataclass(frozen=True, slots=True)
class PieceStoreStatistics:
    """What the store holds, and what it lost since it was opened."""

    used_bytes: int
    quota_bytes: int
    titles: int
    pieces: int
    evictions: int  # pieces given up for others
    dropped_bad: int  # pieces and manifests that the disk had changed or lost


class PieceStore:
    """The pieces below `root`, within `quota_bytes`.

    `durable` flushes every piece to the disk before it counts (for edges, whose copy may be
    the only one). Pins are not remembered over a restart; nothing is evicted before the first
    `put`. One that `reads_only` what another process writes begins empty, and is told by
    `look_again`. Raises StoreError if the folder cannot be used.
    """

    def __init__(
        self, root: Path, quota_bytes: int, *, durable: bool = False, reads_only: bool = False
    ) -> None:
        self._files = PieceFiles(root, durable)
        self._holdings = Holdings(quota_bytes)
        self._manifests: OrderedDict[InfoHash, Manifest] = OrderedDict()
        self._gone: dict[tuple[InfoHash, int], None] = {}
        self._dropped_bad = 0
        self._written_down: dict[InfoHash, float] = {}
        self._lock = Lock()
        for folder in [] if reads_only else self._files.scan():
            self._adopt(folder)

    def look_again(self, infohash: InfoHash) -> None:
        """Another process changed this title: what its folder has now is held, and nothing else."""
        folder = self._files.look(infohash)
        with self._lock:
            if infohash in self._holdings.titles:
                self._forget_title(infohash)
            if folder is not None:
                with suppress(ProtocolError):
                    self._take_in(folder)

    def look_for(self, infohash: InfoHash, index: int) -> None:
        """Another process stored this piece of a title that is known here; unknown ones are passed over."""
        with self._lock:
            holding = self._holdings.titles.get(infohash)
            if holding is not None and 0 <= index < holding.shape.piece_count:
                self._holdings.hold(infohash, index, UNCHECKED)

    def infohashes(self) -> list[InfoHash]:
        """Swarms with a manifest here, in no particular order; never waits."""
        return list(self._holdings.titles)

    def held(self, infohash: InfoHash) -> frozenset[int]:
        """Numbers of the pieces held; empty for a swarm that is not here. Never waits."""
        holding = self._holdings.titles.get(infohash)
        return holding.numbers() if holding else frozenset()

    def bitfield(self, infohash: InfoHash) -> bytes:
        """Held pieces, first piece highest bit; b"" for a swarm that is not here."""
        with self._lock:
            holding = self._holdings.titles.get(infohash)
            return holding.bitfield() if holding else b""

    def manifest(self, infohash: InfoHash) -> Manifest | None:
        """The manifest of a swarm; None if it is not here (or the disk has lost it)."""
        with self._lock:
            if infohash not in self._holdings.titles:
                return None
            known = self._manifests.get(infohash)
            if known is not None:
                self._manifests.move_to_end(infohash)
                return known
        try:
            found = parse(self._files.read_manifest(infohash), expect_infohash=infohash)
        except ProtocolError:
            self._lose_title(infohash)
            return None
        self._remember(found)
        return found

    def add_manifest(self, manifest: Manifest) -> None:
        """Takes a swarm in, with no pieces. Raises StoreFull or StoreError."""
        if manifest.infohash in self.infohashes():
            return
        self._write(manifest, None, (manifest.raw,))
        self._remember(manifest)

    def put(self, infohash: InfoHash, index: int, data: bytes, leaves: bytes | None = None) -> None:
        """Verifies and keeps a piece; does nothing if it is held.

        Raises ProtocolError(BAD_DATA) if the bytes (or the `leaves` that came with them) are
        not the manifest's, Refused(UNKNOWN_TITLE) without a manifest, StoreFull when all that
        is held is worth more, StoreError if the disk refuses. Held pieces stay held.
        """
        manifest = self.manifest(infohash)
        if manifest is None:
            raise _unknown(infohash)
        row = _proved_leaves(manifest, index, data)
        if row is None or leaves not in (None, row):
            raise ProtocolError(
                Reason.BAD_DATA, f"piece {index} of {infohash.hex()} is not what it should be"
            )
        if self._state(infohash, index) == ABSENT:
            self._write(manifest, index, (row, data))

    def read(self, infohash: InfoHash, index: int) -> tuple[bytes, bytes]:
        """The packed leaf hashes and the bytes of a piece. Raises Refused(NOT_HELD), StoreError."""
        return self.read_chunk(infohash, index)

    def read_chunk(
        self, infohash: InfoHash, index: int, start: int = 0, end: int | None = None
    ) -> tuple[bytes, bytes]:
        """The packed leaf hashes of a piece and its bytes from `start` to before `end`.

        No more than that is read from the disk, unless the piece was not read since the start: then
        all of it is, and verified. Raises Refused(NOT_HELD), StoreError.
        """
        with self._lock:
            holding = self._holdings.titles.get(infohash)
            state = holding.state(index) if holding else ABSENT
        if holding is None or state == ABSENT:
            raise Refused(Reason.NOT_HELD, f"piece {index} of {infohash.hex()} is not held")
        if state == UNCHECKED:
            leaves, data = self._read_stored(infohash, index, holding, 0, None)
            self._check(infohash, index, leaves, data)
            return leaves, data[start:end]
        return self._read_stored(infohash, index, holding, start, end)

    def touch(self, infohash: InfoHash, now: float) -> None:
        """Marks a title as watched at `now` seconds of any clock that does not go back."""
        with self._lock:
            holding = self._holdings.titles.get(infohash)
            if holding is None:
                return
            holding.watched_at = now
            due = now - self._written_down.get(infohash, float("-inf")) >= WATCHED_SECONDS
            if due:
                self._written_down[infohash] = now
        if due:
            self._files.mark_watched(infohash)

    def pin(self, infohash: InfoHash) -> None:
        """Keeps a title from eviction until as many `unpin`s; its manifest may come later."""
        with self._lock:
            self._holdings.pin(infohash)

    def unpin(self, infohash: InfoHash) -> None:
        """Takes one pin away. Raises ValueError if there is none."""
        with self._lock:
            self._holdings.unpin(infohash)

    def remove(self, infohash: InfoHash) -> None:
        """Deletes a title, pinned or not. Its pieces are not reported as evicted."""
        with self._lock:
            if infohash in self._holdings.titles:
                self._forget_title(infohash)
                self._files.delete_folder(infohash)

    def drain_evicted(self) -> list[tuple[InfoHash, int]]:
        """Pieces evicted or lost by the disk since the last call, and not put again; never waits."""
        gone = []
        with suppress(KeyError):  # when it is empty
            while True:  # others go on adding: each is taken here, or the next time
                gone.append(self._gone.popitem()[0])
        return gone[::-1]

    def statistics(self) -> PieceStoreStatistics:
        """A snapshot; never waits for the disk."""
        return PieceStoreStatistics(
            used_bytes=self._holdings.used_bytes,
            quota_bytes=self._holdings.quota_bytes,
            titles=len(self._holdings.titles),
            pieces=self._holdings.piece_count,
            evictions=self._holdings.evictions,
            dropped_bad=self._dropped_bad,
        )

    def _adopt(self, folder: Folder) -> None:
        try:
            self._take_in(folder)
        except ProtocolError:
            # Nothing in it can be proved any more, and it would take room outside the quota.
            if folder.manifest or folder.indices:
                self._dropped_bad += 1 + len(folder.indices)
            self._files.delete_folder(folder.infohash)

    def _take_in(self, folder: Folder) -> None:
        shape = shape_of(folder.manifest, folder.infohash)
        self._holdings.add(folder.infohash, shape, len(folder.manifest))
        for index in folder.indices:
            if index < shape.piece_count:
                self._holdings.hold(folder.infohash, index, UNCHECKED)

    def _state(self, infohash: InfoHash, index: int) -> int:
        with self._lock:
            holding = self._holdings.titles.get(infohash)
            return holding.state(index) if holding else ABSENT

    def _write(self, manifest: Manifest, index: int | None, parts: Sequence[bytes]) -> None:
        infohash, size_bytes = manifest.infohash, sum(map(len, parts))
        with self._lock:
            self._delete(self._holdings.make_room(size_bytes, infohash, index))
            self._holdings.reserved_bytes += size_bytes
        try:
            aside = self._write_aside(infohash, index, parts, size_bytes)
            with self._lock:
                self._finish(manifest, index, aside)
        finally:
            with self._lock:
                self._holdings.reserved_bytes -= size_bytes
        self._files.settle(infohash)

    def _write_aside(
        self, infohash: InfoHash, index: int | None, parts: Sequence[bytes], size_bytes: int
    ) -> Path:
        # A manifest is flushed even where pieces are not: without it none of them can be proved.
        flush = index is None
        for _ in range(FULL_DISK_TRIES - 1):
            try:
                return self._files.write(parts, flush=flush)
            except StoreFull:
                with self._lock:
                    self._delete(self._holdings.give_up(size_bytes, infohash, index))
        return self._files.write(parts, flush=flush)

    def _finish(self, manifest: Manifest, index: int | None, aside: Path) -> None:
        """Names the file and counts it; the lock is held."""
        infohash = manifest.infohash
        known = infohash in self._holdings.titles
        if known == (index is None):  # removed meanwhile; or the manifest was added twice at once
            self._files.delete(aside)
            if not known:
                raise _unknown(infohash)
        elif index is None:
            self._files.finish_manifest(infohash, aside)
            self._holdings.add(infohash, Shape(manifest.length, manifest.piece_length), len(manifest.raw))
        else:
            self._files.finish_piece(infohash, index, aside)
            self._holdings.hold(infohash, index, CHECKED)
            self._gone.pop((infohash, index), None)

    def _read_stored(
        self, infohash: InfoHash, index: int, holding: Holding, start: int, end: int | None
    ) -> tuple[bytes, bytes]:
        size_bytes, row_bytes = holding.shape.piece_size(index), holding.shape.leaf_count(index) * HASH_BYTES
        chunk = range(size_bytes)[start:end]  # cut as bytes are
        stretches = (0, row_bytes), (row_bytes + chunk.start, len(chunk))
        found = self._files.read_piece(infohash, index, row_bytes + size_bytes, stretches)
        if found is None:
            self._lose_piece(infohash, index)
            raise Refused(Reason.NOT_HELD, f"piece {index} of {infohash.hex()} was lost by the disk")
        return found[0], found[1]

    def _check(self, infohash: InfoHash, index: int, leaves: bytes, data: bytes) -> None:
        manifest = self.manifest(infohash)
        if manifest is None or _proved_leaves(manifest, index, data) != leaves:
            self._lose_piece(infohash, index)
            raise Refused(Reason.NOT_HELD, f"piece {index} of {infohash.hex()} was damaged on the disk")
        with self._lock:
            holding = self._holdings.titles.get(infohash)
            if holding is not None and holding.state(index) == UNCHECKED:
                self._holdings.hold(infohash, index, CHECKED)

    def _remember(self, manifest: Manifest) -> None:
        with self._lock:
            if manifest.infohash in self._holdings.titles:
                self._manifests[manifest.infohash] = manifest
            while len(self._manifests) > CACHED_MANIFESTS:
                self._manifests.popitem(last=False)

    def _lose_piece(self, infohash: InfoHash, index: int) -> None:
        with self._lock:
            if self._holdings.drop(infohash, index):
                self._dropped_bad += 1
                self._gone[infohash, index] = None
                self._files.delete_piece(infohash, index)

    def _lose_title(self, infohash: InfoHash) -> None:
        with self._lock:
            holding = self._holdings.titles.get(infohash)
            if holding is not None:
                lost = dict.fromkeys((infohash, index) for index in holding.from_the_last())
                self._dropped_bad += 1 + len(lost)
                self._forget_title(infohash)
                self._gone |= lost
                self._files.delete_folder(infohash)

    def _forget_title(self, infohash: InfoHash) -> None:
        self._holdings.remove(infohash)
        self._manifests.pop(infohash, None)
        self._written_down.pop(infohash, None)
        for gone in [gone for gone in list(self._gone) if gone[0] == infohash]:
            self._gone.pop(gone, None)

    def _delete(self, victims: list[Victim]) -> None:
        """Deletes what the holdings gave up; the lock is held."""
        for victim in victims:
            if victim.index is None:
                self._manifests.pop(victim.infohash, None)
                self._written_down.pop(victim.infohash, None)
                self._files.delete_folder(victim.infohash)
            else:
                self._gone[victim.infohash, victim.index] = None
                self._files.delete_piece(victim.infohash, victim.index)


def _unknown(infohash: InfoHash) -> Refused:
    return Refused(Reason.UNKNOWN_TITLE, f"no manifest of {infohash.hex()} here")


def _proved_leaves(manifest: Manifest, index: int, data: bytes) -> bytes | None:
    """The packed leaves of a piece; None unless the manifest has such a piece."""
    if not 0 <= index < manifest.piece_count or len(data) != manifest.piece_size(index):
        return None
    leaves = merkle.leaves_of(data)
    single = manifest.piece_count == 1
    proved = merkle.piece_hash(leaves, manifest.piece_length, single) == manifest.piece_hash(index)
    return leaves if proved else None
