"""Where uploads land: one folder each, its file only ever growing from its front.

Chunks travel on several streams and may overtake each other; one that comes early waits for its
turn (few bytes do, whatever the publisher sends). So the size of the file *is* what has been received,
after a cut connection, a restart or kill -9 alike, and nothing else has to be remembered.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec
import trio

from shared.core.bulk import MAX_UPLOAD_BYTES
from shared.core.errors import Reason, Refused
from shared.core.ids import NodeId, TitleId

FORGOTTEN_AFTER_SECONDS = 3 * 24 * 3600.0
SPARE_DISK_BYTES = 256 << 20  # never fill the disk to the brim: databases live there, too
EARLY_SECONDS = 30.0  # an early chunk waits this long for those before it
WINDOW_BYTES = 8 * MAX_UPLOAD_BYTES  # of one upload in memory: chunks further ahead are not read yet


@dataclass(frozen=True, slots=True)
class Order:
    """What a publisher wants: kept beside the file."""

    name: str
    title: str
    length: int
    sha256: str

    def upload_id(self, publisher: NodeId) -> bytes:
        """Names the upload: the same file of the same publisher goes on where it was."""
        return sha256(b"penstock upload 1\n" + publisher + msgspec.json.encode(self)).digest()

    def title_id(self, edge: NodeId) -> TitleId:
        """Names the title that this edge makes of the file, whatever it is called."""
        content = b"penstock title 1\n" + edge + bytes.fromhex(self.sha256) + self.name.encode()
        return TitleId(sha256(content).digest()[:16])


class Landing:
    """One upload's folder."""

    def __init__(self, root: Path, upload: bytes, order: Order) -> None:
        self.folder = root / upload.hex()
        self.source = self.folder / "source"
        self.target = self.folder / "prepared.mp4"
        self.order = order
        self._grown = trio.Condition()
        self._size = 0
        self._in_memory_bytes = 0
        self._for_room = trio.lowlevel.ParkingLot()

    def open(self) -> None:
        """Makes the folder, or finds what was received. Raises Refused(NO_SPACE), OSError; blocking."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.source.touch()
        self._size = self.source.stat().st_size
        self._need(self.order.length - self._size)

    def _need(self, size_bytes: int) -> None:
        if shutil.disk_usage(self.folder).free < size_bytes + SPARE_DISK_BYTES:
            raise Refused(Reason.NO_SPACE, "the edge's disk has no room for this file")

    @property
    def received_bytes(self) -> int:
        """All bytes below are here."""
        return min(self._size, self.order.length)

    @property
    def whole(self) -> bool:
        """Whether all of it was received."""
        return self._size >= self.order.length

    @asynccontextmanager
    async def place(self, offset: int, length: int) -> AsyncIterator[None]:
        """Room in memory for a chunk while the context is open; take it before reading the bytes.

        Chunks that do not overlap always fit in the window together: none waits for one behind it.
        Raises Refused: MALFORMED beyond the end, TIMEOUT if what comes before does not come.
        """
        if offset + length > self.order.length or length > MAX_UPLOAD_BYTES:
            raise Refused(Reason.MALFORMED, "bytes beyond the end of the file")
        with trio.move_on_after(EARLY_SECONDS) as patience:
            while not self._has_place(offset + length, length):
                await self._for_room.park()
        if patience.cancelled_caught:
            raise Refused(Reason.TIMEOUT, f"the bytes before {offset} did not come")
        self._in_memory_bytes += length
        try:
            yield
        finally:
            self._in_memory_bytes -= length
            self._for_room.unpark_all()

    def _has_place(self, end: int, length: int) -> bool:
        near = end <= self._size + WINDOW_BYTES
        return near and self._in_memory_bytes + length <= WINDOW_BYTES

    async def write(self, offset: int, data: bytes) -> int:
        """Appends a chunk that has its `place` when its turn comes; how much is on the disk then.

        Raises Refused: TIMEOUT if what comes before does not come, NO_SPACE if the disk is full.
        """
        with trio.move_on_after(EARLY_SECONDS):
            async with self._grown:
                while self._size < offset:
                    await self._grown.wait()
                if offset + len(data) > self._size:
                    await trio.to_thread.run_sync(self._append, data[self._size - offset :])
                    self._grown.notify_all()
                return self.received_bytes
        raise Refused(Reason.TIMEOUT, f"the bytes before {offset} did not come")

    def _append(self, data: bytes) -> None:
        try:
            self._need(len(data))  # other uploads have been growing, too
            with self.source.open("r+b") as file:
                file.seek(self._size)
                file.write(data)
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as error:
            raise Refused(Reason.NO_SPACE, f"the edge cannot write: {error.strerror}") from error
        self._size += len(data)

    def check(self) -> None:
        """Compares the file with its promised hash. Raises Refused(BAD_DATA); blocking."""
        digest = sha256()
        with self.source.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        if digest.hexdigest() != self.order.sha256:
            raise Refused(Reason.BAD_DATA, "the file arrived damaged; it is thrown away, upload it again")

    def discard_prepared(self) -> None:
        """Keeps what was uploaded alone, for another try. Raises OSError; blocking."""
        self.target.unlink(missing_ok=True)

    def discard(self) -> None:
        """Leaves nothing behind; blocking."""
        shutil.rmtree(self.folder, ignore_errors=True)


def sweep(root: Path, under_way: Set[str] = frozenset()) -> None:
    """Deletes uploads that nobody went on with for days, except those `under_way` (names of
    folders). Raises OSError if `root` cannot be listed; blocking."""
    root.mkdir(parents=True, exist_ok=True)
    oldest = time.time() - FORGOTTEN_AFTER_SECONDS
    for folder in root.iterdir():
        if folder.name not in under_way and folder.is_dir() and _touched_at(folder) < oldest:
            shutil.rmtree(folder, ignore_errors=True)


def _touched_at(folder: Path) -> float:
    """When anything in it changed last: a file that grows does not touch its folder."""
    touched_at = float("-inf")
    for path in (folder, folder / "source"):
        with suppress(OSError):
            touched_at = max(touched_at, path.stat().st_mtime)
    return touched_at
