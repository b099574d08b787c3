"""The piece store's directory: one folder per swarm, one file per piece.

    <root>/<infohash>/manifest    the signed manifest
    <root>/<infohash>/<index>     packed leaf hashes, then the bytes of the piece
    <root>/.*.part                being written

A file gets its name only when it is whole (written aside, then renamed), so killing the
process leaves at most a `.part`; a folder gets its name together with its manifest. Names are
made of checked numbers alone and symbolic links are not followed: nothing from outside can
point elsewhere. Other files are let be.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeVar

from shared.core.errors import StoreError, StoreFull
from shared.core.ids import INFOHASH_BYTES, InfoHash
from shared.core.manifest import MAX_MANIFEST_BYTES

_FOLDER = re.compile(r"[0-9a-f]{64}\Z")
_INDEX = re.compile(r"(0|[1-9][0-9]{0,9})\Z")
_PART = re.compile(r"\.[0-9]+-[0-9]+\.part\Z")
_MANIFEST = "manifest"
T = TypeVar("T")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# The file is gone, is no file, or its sectors cannot be read: the piece is lost, the store is not.
_LOST = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EIO}


@dataclass(frozen=True, slots=True)
class Folder:
    """What lies in a swarm's folder at start-up."""

    infohash: InfoHash
    manifest: bytes  # b"" if there is none
    watched_at: float  # clock of the disk
    indices: tuple[int, ...]


class PieceFiles:
    """Disk work of the store; every OSError leaves as StoreError or StoreFull."""

    def __init__(self, root: Path, durable: bool) -> None:
        self.root = root
        self.durable = durable  # every file is flushed to the disk before it counts
        self._serial = count()
        with _translated("open", root):
            root.mkdir(parents=True, exist_ok=True)

    def scan(self) -> list[Folder]:
        """All folders, longest not watched first; removes what was never finished."""
        with _translated("list", self.root), os.scandir(self.root) as entries:
            listed = list(entries)
        for entry in listed:
            if _PART.match(entry.name):
                self.delete(self.root / entry.name)
        names = [e.name for e in listed if _FOLDER.match(e.name) and e.is_dir(follow_symlinks=False)]
        folders = [self._scan_folder(InfoHash(bytes.fromhex(name))) for name in names]
        return sorted(folders, key=lambda folder: folder.watched_at)

    def look(self, infohash: InfoHash) -> Folder | None:
        """One folder as it is now; None if it is not there."""
        return self._scan_folder(infohash) if self._folder(infohash).is_dir() else None

    def write(self, parts: Sequence[bytes], *, flush: bool = False) -> Path:
        """Writes a file aside; `finish` gives it its name. `flush` waits for the disk in any case."""
        aside = self.root / f".{os.getpid()}-{next(self._serial)}.part"
        with _translated("write", aside):
            try:
                _write_new(aside, parts, flush=flush or self.durable)
            except OSError:
                with suppress(OSError):
                    aside.unlink(missing_ok=True)
                raise
        return aside

    def finish_manifest(self, infohash: InfoHash, aside: Path) -> None:
        """Makes the folder of a new swarm and gives its manifest its name."""
        folder = self._folder(infohash)
        with _translated("create", folder):
            folder.mkdir(exist_ok=True)
            _rename(aside, folder / _MANIFEST)
            if self.durable:
                _flush(self.root)

    def finish_piece(self, infohash: InfoHash, index: int, aside: Path) -> None:
        """Gives a written piece its name."""
        path = self._folder(infohash) / str(index)
        with _translated("write", path):
            _rename(aside, path)

    def settle(self, infohash: InfoHash) -> None:
        """Makes the names of finished files durable too, where that is asked for."""
        folder = self._folder(infohash)
        if self.durable:
            with _translated("write", folder), suppress(FileNotFoundError):  # removed meanwhile
                _flush(folder)

    def read_piece(
        self, infohash: InfoHash, index: int, size_bytes: int, stretches: Sequence[tuple[int, int]]
    ) -> list[bytes] | None:
        """Stretches (offset, length) of a piece file of that size; None if the disk has lost any of it."""
        path = self._folder(infohash) / str(index)

        def read(file: int) -> list[bytes] | None:
            if os.fstat(file).st_size != size_bytes:
                return None
            found = [_read_all(file, length, offset) for offset, length in stretches]
            whole = all(len(some) == length for some, (_, length) in zip(found, stretches, strict=True))
            return found if whole else None

        return _read(path, read)

    def read_manifest(self, infohash: InfoHash) -> bytes:
        """The bytes of a manifest, b"" if the disk has lost it."""
        path = self._folder(infohash) / _MANIFEST
        return _read(path, lambda file: _read_all(file, MAX_MANIFEST_BYTES + 1)) or b""

    def mark_watched(self, infohash: InfoHash) -> None:
        """Remembers over a restart that a title was just watched."""
        with suppress(OSError):  # only an order of eviction hangs on it
            os.utime(self._folder(infohash) / _MANIFEST)

    def delete(self, path: Path) -> None:
        """Deletes a file if it is there."""
        with _translated("delete", path):
            path.unlink(missing_ok=True)

    def delete_piece(self, infohash: InfoHash, index: int) -> None:
        """Deletes a piece file if it is there."""
        self.delete(self._folder(infohash) / str(index))

    def delete_folder(self, infohash: InfoHash) -> None:
        """Deletes a swarm's files; the folder too unless somebody else's files are in it."""
        folder = self._folder(infohash)
        with _translated("delete", folder):
            # Pieces go first: pieces without a manifest would be worthless, the reverse is not.
            for path in sorted(folder.iterdir(), key=lambda path: path.name == _MANIFEST):
                if path.name == _MANIFEST or _INDEX.match(path.name):
                    path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()

    def _folder(self, infohash: InfoHash) -> Path:
        if len(infohash) != INFOHASH_BYTES:
            raise ValueError(f"an infohash of {len(infohash)} bytes")
        return self.root / infohash.hex()

    def _scan_folder(self, infohash: InfoHash) -> Folder:
        folder = self._folder(infohash)
        indices: list[int] = []
        with _translated("list", folder), os.scandir(folder) as entries:
            for entry in entries:
                if _INDEX.match(entry.name) and entry.is_file(follow_symlinks=False):
                    indices.append(int(entry.name))
        watched_at = 0.0
        with suppress(OSError):
            watched_at = (folder / _MANIFEST).stat().st_mtime
        return Folder(infohash, self.read_manifest(infohash), watched_at, tuple(indices))


def _write_new(path: Path, parts: Sequence[bytes], *, flush: bool) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(file, rest) :]
        if flush:
            os.fsync(file)
    finally:
        os.close(file)


def _rename(aside: Path, path: Path) -> None:
    try:
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def _read(path: Path, read: Callable[[int], T]) -> T | None:
    """What `read` makes of the open file; None if the disk has lost it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return read(file)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno in _LOST:
            return None
        raise _named(error, "read", path) from None


def _read_all(file: int, limit_bytes: int, offset: int = 0) -> bytes:
    found = os.pread(file, limit_bytes, offset)
    while missing := limit_bytes - len(found):
        more = os.pread(file, missing, offset + len(found))
        if not more:
            break
        found += more
    return found


def _flush(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _translated(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _named(error, doing, path) from None


def _named(error: OSError, doing: str, path: Path) -> StoreError:
    why = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return StoreFull(f"cannot {doing} {path}: {why}; free the disk or lower the store's quota")
    return StoreError(f"cannot {doing} {path}: {why}; check that the store's folder can be written")
