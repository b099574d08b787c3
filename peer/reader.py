"""One player's way through a rendition: waits for pieces, takes its wishes back when it leaves."""

from __future__ import annotations

from types import TracebackType

import trio

from peer.asking import Asking
from peer.core.fetch import Fetch
from peer.core.wishes import DOWNLOAD_PATIENCE_SECONDS, PATIENCE_SECONDS
from shared import clock
from shared.core.errors import Reason, Refused
from shared.core.ids import InfoHash
from shared.node import Node
from shared.piece_store import PieceStore

NO_SOURCE_SECONDS = 20.0  # without a single leaf from anybody: then say so


class PieceReader:
    """Reads one rendition piece by piece; made by the daemon, one for each request."""

    _patience = PATIENCE_SECONDS

    def __init__(
        self, fetch: Fetch, store: PieceStore, asking: Asking, node: Node, lot: trio.lowlevel.ParkingLot
    ) -> None:
        self._fetch = fetch
        self._store = store
        self._asking = asking
        self._node = node
        self._lot = lot
        self._piece = -1
        self._bytes = b""

    async def read(self, offset: int, max_bytes: int) -> bytes:
        """Up to `max_bytes` verified bytes from `offset`, empty only at the end.

        Raises Refused if the tracker refuses the title or nobody has the bytes.
        """
        manifest = self._fetch.manifest
        if manifest is None:
            raise Refused(Reason.UNKNOWN_TITLE, "its manifest is not here yet")
        if offset >= manifest.length:
            return b""
        piece, inside = divmod(offset, manifest.piece_length)
        if piece != self._piece:
            self._bytes = await self._take(manifest.infohash, piece, offset)
            self._piece = piece
        else:
            self._look(offset)
        return self._bytes[inside : inside + max_bytes]

    async def _take(self, infohash: InfoHash, piece: int, offset: int) -> bytes:
        began = clock.now()
        waited = not self._look(offset)
        while True:
            if not self._fetch.known.here(piece):
                await self._wait(piece)
            data = self._asking.unstored(infohash, piece) or await self._from_store(infohash, piece)
            if data is None:
                continue
            if waited:
                self._waited(offset, began)
            return data

    def _look(self, offset: int) -> bool:
        """Moves the playhead; whether the piece at `offset` is here."""
        is_here = self._fetch.read(offset, clock.now())
        self._node.pump()
        return is_here

    def _waited(self, offset: int, since: float) -> None:
        self._fetch.known.playhead.waited(offset, since, clock.now())

    async def _from_store(self, infohash: InfoHash, piece: int) -> bytes | None:
        """None if the store has it no more: evicted, or found damaged."""
        try:
            return (await trio.to_thread.run_sync(self._store.read, infohash, piece))[1]
        except Refused:
            self._asking.lost(infohash, piece)
            return None

    async def _wait(self, piece: int) -> None:
        self._fetch.wait(piece, clock.now(), self._patience)
        self._node.pump()
        try:
            while not self._fetch.known.here(piece):
                if self._fetch.refused is not None:
                    raise Refused(self._fetch.refused, "the tracker refuses this title")
                before = self._fetch.edge_bytes + self._fetch.peer_bytes
                with trio.move_on_after(NO_SOURCE_SECONDS) as patience:
                    await self._lot.park()
                if patience.cancelled_caught and before == self._fetch.edge_bytes + self._fetch.peer_bytes:
                    raise Refused(Reason.TIMEOUT, "no source delivers this title at present")
        finally:
            self._fetch.stop_waiting(piece)

    async def __aenter__(self) -> PieceReader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._bytes = b""


class DownloadReader(PieceReader):
    """A reader of somebody who wants the file, not the picture: everything is fetched at once, and
    no deadline follows from what is read."""

    _patience = DOWNLOAD_PATIENCE_SECONDS

    def _look(self, offset: int) -> bool:
        known = self._fetch.known
        known.playhead.pass_by(offset)
        return known.here(offset // known.manifest.piece_length)

    def _waited(self, offset: int, since: float) -> None:
        pass  # nobody looked at it

    async def __aenter__(self) -> PieceReader:
        self._fetch.download(True, clock.now())
        self._node.pump()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._fetch.download(False, clock.now())
        await super().__aexit__(kind, error, trace)
