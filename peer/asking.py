"""Asking sources on bulk streams, checking every leaf, and storing whole pieces: the shell of
`peer.core.fetch`."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

import trio

from peer.core.peer import Peer
from shared import clock
from shared.core.actions import Ask, AskManifest, Cancel
from shared.core.bulk import PieceRequest
from shared.core.errors import LocalError, Reason, Refused, RemoteError, StoreError
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.manifest import Manifest
from shared.node import Node
from shared.piece_store import PieceStore
from shared.requesting import ask_leaves, ask_manifest

log = logging.getLogger(__name__)

MAX_PARTS = 64  # unfinished pieces kept in memory, 256 KiB each
MAX_UNSTORED = 64  # whole pieces that the disk would not take, kept for the player
MANIFEST_SECONDS = 20.0

MISSING, FROM_EDGE, FROM_PEER, FROM_BEFORE = b".ep1"
Place = tuple[InfoHash, int]


class Asking:
    """Carries out Ask, Cancel and AskManifest; `changed` is called when pieces or errors arrive."""

    def __init__(self, core: Peer, store: PieceStore, changed: Callable[[], None]) -> None:
        self._core = core
        self._store = store
        self._changed = changed
        self._scopes: dict[int, trio.CancelScope] = {}
        self._parts: OrderedDict[Place, list[bytes]] = OrderedDict()  # leaves, in order
        self._unstored: OrderedDict[Place, bytes] = OrderedDict()
        self._disk_warned = False
        self.origins: dict[InfoHash, bytearray] = {}
        self.node: Node

    def act(self, order: Ask | Cancel | AskManifest) -> None:
        """Starts or cancels a request."""
        match order:
            case Ask():
                self._scopes[order.request] = trio.CancelScope()
                self.node.nursery.start_soon(self._ask, order)
            case Cancel():
                scope = self._scopes.get(order.request)
                if scope is not None:
                    scope.cancel()
            case AskManifest():
                self.node.nursery.start_soon(self._ask_manifest, order)

    def unstored(self, infohash: InfoHash, piece: int) -> bytes | None:
        """A piece that is only in memory."""
        return self._unstored.get((infohash, piece))

    def lost(self, infohash: InfoHash, piece: int) -> None:
        """The store no longer has a piece it was thought to have."""
        self._core.lost(infohash, piece, clock.now())
        self.node.pump()

    # -- manifests ------------------------------------------------------------------------------

    async def _ask_manifest(self, order: AskManifest) -> None:
        manifest, reason = None, Reason.TIMEOUT
        try:
            with trio.move_on_after(MANIFEST_SECONDS):
                connection = self.node.connection(order.node)
                manifest = await ask_manifest(connection, order.infohash, order.signer)
        except RemoteError as error:
            reason = error.reason
            log.warning("no manifest from %s: %s", order.node.hex()[:8], error)
        if manifest is None:
            self._core.fetches[order.infohash].manifest_failed(order.node, reason, clock.now())
        else:
            await self._keep_manifest(manifest)
            self.origins[order.infohash] = bytearray([MISSING]) * manifest.piece_count
            self._core.hold(manifest, self._store.held(order.infohash), clock.now())
        self.node.pump()
        self._changed()

    async def _keep_manifest(self, manifest: Manifest) -> None:
        try:
            await trio.to_thread.run_sync(self._store.add_manifest, manifest)
        except StoreError as error:
            self._warn(error)  # its pieces will not be taken either, and stay in memory

    # -- pieces ---------------------------------------------------------------------------------

    async def _ask(self, order: Ask) -> None:
        reason = Reason.CANCELLED
        manifest = self._core.fetches[order.infohash].manifest
        assert manifest is not None
        with self._scopes[order.request]:
            try:
                await self._take_chunk(order, manifest)
                reason = Reason.NONE
            except RemoteError as error:
                reason = error.reason if error.reason is not Reason.NONE else Reason.SHUTDOWN
                log.debug("piece %d from %s: %s", order.piece, order.node.hex()[:8], error)
        del self._scopes[order.request]
        place = self._core.request_place(order.request)
        self._core.chunk_ended(order.request, reason, clock.now())
        self.node.pump()
        if reason is Reason.NONE and place is not None:
            await self._keep(manifest, order.piece, order.node)

    async def _take_chunk(self, order: Ask, manifest: Manifest) -> None:
        request = PieceRequest(
            order.infohash, order.piece, order.first_leaf, order.leaf_count, order.slack_ms
        )

        def take(leaf: bytes) -> None:
            if self._core.leaf_arrived(order.request, order.node, len(leaf), clock.now()):
                self._part((order.infohash, order.piece)).append(leaf)

        await ask_leaves(self.node.connection(order.node), request, manifest, take)

    def _part(self, place: Place) -> list[bytes]:
        part = self._parts.get(place)
        if part is None:
            part = self._parts[place] = []
            self._drop_old_parts()
        return part

    def _drop_old_parts(self) -> None:
        busy = {place for n in self._scopes if (place := self._core.request_place(n)) is not None}
        for old in [place for place in self._parts if place not in busy]:
            if len(self._parts) <= MAX_PARTS:
                return
            del self._parts[old]
            self._core.fetches[old[0]].forget_part(old[1])

    async def _keep(self, manifest: Manifest, piece: int, source: NodeId) -> None:
        data = b"".join(self._parts.pop((manifest.infohash, piece)))
        held = True
        try:
            await trio.to_thread.run_sync(self._put, manifest, piece, data)
        except (StoreError, RemoteError) as error:
            # The player goes on from memory; the piece is neither announced nor served.
            held = False
            self._warn(error)
            self._keep_in_memory((manifest.infohash, piece), data)
        kind = self._core.kind_of(source)
        self.origins[manifest.infohash][piece] = FROM_EDGE if kind is Kind.EDGE else FROM_PEER
        now = clock.now()
        for infohash, lost in self._store.drain_evicted():
            self._core.lost(infohash, lost, now)
        self._core.stored(manifest.infohash, piece, held, now)
        self.node.pump()
        self._changed()

    def _put(self, manifest: Manifest, piece: int, data: bytes) -> None:
        try:
            self._store.put(manifest.infohash, piece, data)
        except Refused as error:
            if error.reason is not Reason.UNKNOWN_TITLE:
                raise
            # The whole title had been given up for others, its manifest too.
            self._store.add_manifest(manifest)
            self._store.put(manifest.infohash, piece, data)

    def _warn(self, error: LocalError | RemoteError) -> None:
        if not self._disk_warned:
            self._disk_warned = True
            log.warning("pieces are kept in memory only, for the player: %s", error)

    def _keep_in_memory(self, place: Place, data: bytes) -> None:
        self._unstored[place] = data
        if len(self._unstored) > MAX_UNSTORED:
            (infohash, piece), _ = self._unstored.popitem(last=False)
            with suppress(KeyError):
                self._core.fetches[infohash].faded(piece)
