"""Fetching what the tracker ordered, and deleting what makes room for it: the shell of `edge.core.orders`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

import trio

from edge.core.edge import Edge
from edge.core.outbox import GiveUp, Note
from shared import clock
from shared.core.actions import Ask, AskManifest, Cancel
from shared.core.bulk import PieceRequest
from shared.core.errors import LocalError, Reason, RemoteError, StoreError
from shared.core.ids import InfoHash
from shared.core.manifest import Manifest
from shared.node import Node
from shared.piece_store import PieceStore
from shared.requesting import ask_leaves, ask_manifest

log = logging.getLogger(__name__)

MANIFEST_SECONDS = 20.0


class Fetching:
    """Carries out what the core wants of other edges and of the disk."""

    def __init__(self, core: Edge, store: PieceStore, pump: Callable[[], None]) -> None:
        self._core = core
        self._store = store
        self._pump = pump
        self._scopes: dict[int, trio.CancelScope] = {}
        self._disk = trio.Lock()  # what goes is gone before what comes is written
        self._going: set[InfoHash] = set()
        self.node: Node

    def act(self, order: Ask | Cancel | AskManifest | GiveUp | Note) -> None:
        """Starts or cancels a request, deletes a title, writes to the log."""
        match order:
            case Ask():
                self._scopes[order.request] = trio.CancelScope()
                self.node.nursery.start_soon(self._ask, order)
            case Cancel():
                if order.request in self._scopes:
                    self._scopes[order.request].cancel()
            case AskManifest():
                self.node.nursery.start_soon(self._ask_manifest, order)
            case GiveUp():
                self._core.forget(order.infohash)
                self._going.add(order.infohash)
                self.node.nursery.start_soon(self.clear)
            case Note():
                log.log(logging.WARNING if order.is_warning else logging.INFO, "%s", order.text)

    async def make_room(self, size_bytes: int) -> None:
        """Gives up what an upload of that size may drive out. The store says if that is not enough."""
        self._core.orders.room_for(size_bytes, clock.now())
        self._pump()
        await self.clear()

    async def clear(self) -> None:
        """Returns when all that was given up is deleted."""
        async with self._disk:
            while self._going:
                infohash = self._going.pop()
                try:
                    with suppress(ValueError):  # it was not pinned
                        self._store.unpin(infohash)
                    await trio.to_thread.run_sync(self._store.remove, infohash)
                except StoreError as error:
                    log.warning("%s cannot be deleted: %s", infohash.hex()[:8], error)

    # -- manifests ------------------------------------------------------------------------------

    async def _ask_manifest(self, order: AskManifest) -> None:
        orders, reason = self._core.orders, Reason.TIMEOUT
        try:
            with trio.move_on_after(MANIFEST_SECONDS):
                manifest = await self._find_manifest(order)
                orders.learned(manifest, self._store.held(order.infohash), clock.now())
                reason = Reason.NONE
        except RemoteError as error:
            log.warning("no manifest from %s: %s", order.node.hex()[:8], error)
            reason = error.reason if error.reason is not Reason.NONE else Reason.SHUTDOWN
        except StoreError as error:
            log.warning("the store takes no manifest: %s", error)
            orders.not_stored(order.infohash, clock.now())
            reason = Reason.NONE
        if reason is not Reason.NONE:
            orders.manifest_failed(order.infohash, order.node, reason, clock.now())
        self._pump()

    async def _find_manifest(self, order: AskManifest) -> Manifest:
        """From the disk, where a killed process has left it, or from the source; in the store, and pinned."""
        await self.clear()
        manifest = await trio.to_thread.run_sync(self._store.manifest, order.infohash)
        if manifest is None or manifest.signer_id != order.signer:
            manifest = await ask_manifest(self.node.connection(order.node), order.infohash, order.signer)
            await trio.to_thread.run_sync(self._store.add_manifest, manifest)
            self._store.pin(order.infohash)
        return manifest

    # -- pieces ---------------------------------------------------------------------------------

    async def _ask(self, order: Ask) -> None:
        reason, leaves = Reason.CANCELLED, list[bytes]()
        manifest = self._core.orders.manifest_of(order.infohash)

        def take(leaf: bytes) -> None:
            leaves.append(leaf)
            self._core.orders.leaf_arrived(order.request, clock.now())

        with self._scopes[order.request]:
            try:
                if manifest is not None:
                    request = PieceRequest(
                        order.infohash, order.piece, order.first_leaf, order.leaf_count, order.slack_ms
                    )
                    await ask_leaves(self.node.connection(order.node), request, manifest, take)
                    reason = Reason.NONE
            except RemoteError as error:
                reason = error.reason if error.reason is not Reason.NONE else Reason.SHUTDOWN
                log.debug("piece %d from %s: %s", order.piece, order.node.hex()[:8], error)
        del self._scopes[order.request]
        wanted = self._core.orders.chunk_ended(order.request, reason, clock.now())
        self._pump()
        if wanted:
            await self._keep(order, b"".join(leaves))

    async def _keep(self, order: Ask, data: bytes) -> None:
        try:
            await trio.to_thread.run_sync(self._store.put, order.infohash, order.piece, data)
        except (LocalError, RemoteError) as error:
            log.warning("piece %d of %s is not stored: %s", order.piece, order.infohash.hex()[:8], error)
            self._core.orders.not_stored(order.infohash, clock.now())
        else:
            self._core.orders.stored(order.infohash, order.piece, clock.now())
        self._pump()
