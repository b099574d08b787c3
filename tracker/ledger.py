"""Carries the core's orders to write into the database, and tells the core how that ended."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from shared import clock
from shared.core.errors import Reason, Refused, StoreError, StoreFull
from shared.core.ids import NodeId
from tracker.core.nodes import Node
from tracker.core.tracker import StoreNode, StoreTitle, Tracker, TrackerAction
from tracker.dbs import placement, usage
from tracker.store import Store

log = logging.getLogger("penstock.tracker")

TITLES_WAITING = 256  # an edge that registers faster than the disk writes is told to wait
NODES_WAITING = 10_000
NODES_EVERY_SECONDS = 1.0  # one transaction for a crowd that comes at once
COUNTS_EVERY_SECONDS = 2.0  # what kill -9 may cost of redirects and viewers
TIDY_EVERY_SECONDS = 3600.0


class Ledger:
    """Titles one after the other, each answered once it is on the disk; nodes in batches."""

    def __init__(self, core: Tracker, store: Store) -> None:
        self._core = core
        self._store = store
        self._titles, self._queue = trio.open_memory_channel[StoreTitle](TITLES_WAITING)
        self._nodes: dict[NodeId, Node] = {}
        self._nodes_waiting = trio.Event()

    def act(self, action: TrackerAction) -> None:
        """Takes an order of the core; never waits."""
        match action:
            case StoreTitle():
                self._queue_title(action)
            case StoreNode() if len(self._nodes) < NODES_WAITING:
                self._nodes[action.node.id] = action.node
                self._nodes_waiting.set()
            case _:
                pass  # more nodes than anybody will look through: the record of this one is given up

    def _queue_title(self, order: StoreTitle) -> None:
        try:
            self._titles.send_nowait(order)
        except trio.WouldBlock:
            self._core.not_stored(order, Reason.BUSY, "too many titles at once; try again")

    @asynccontextmanager
    async def open(self, pump: Callable[[], None]) -> AsyncIterator[None]:
        """Writes while the context is open; `pump` is called when the core has been told."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_titles, pump)
            nursery.start_soon(self._write_nodes)
            nursery.start_soon(self._write_counts)
            yield
            nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await self.write_counts()

    async def _write_titles(self, pump: Callable[[], None]) -> None:
        async for order in self._queue:
            await self._write_title(order)
            pump()

    async def _write_title(self, order: StoreTitle) -> None:
        try:
            await self._store.store_title(order.entry)
        except Refused as refusal:
            self._core.not_stored(order, refusal.reason, refusal.detail)
        except StoreFull as error:
            log.error("cannot store a title: %s", error)
            self._core.not_stored(order, Reason.NO_SPACE, "the tracker's disk is full")
        except StoreError as error:
            log.error("cannot store a title: %s", error)
            self._core.not_stored(order, Reason.INTERNAL, "the tracker's database failed; see its log")
        else:
            self._core.stored(order)

    async def _write_nodes(self) -> None:
        while True:
            await self._nodes_waiting.wait()
            self._nodes_waiting = trio.Event()
            batch, self._nodes = list(self._nodes.values()), {}
            try:
                await self._store.store_nodes(batch)
            except StoreError as error:
                log.warning("%d nodes are not recorded: %s", len(batch), error)
            await trio.sleep(NODES_EVERY_SECONDS)

    async def _write_counts(self) -> None:
        tidy_at = 0.0
        while True:
            await trio.sleep(COUNTS_EVERY_SECONDS)
            await self.write_counts()
            now = clock.now()
            if now >= tidy_at:
                tidy_at = now + TIDY_EVERY_SECONDS
                await self._tidy(now)

    async def write_counts(self) -> None:
        """Writes what usage and placement have become; what the database refuses waits for the next time."""
        batch, record = self._core.usage.take(), self._core.content.placement.record
        changes = record.take()
        try:
            if batch:
                await self._store.write(usage.write_batch, batch, clock.now())
        except StoreError as error:
            self._core.usage.give_back(batch)
            log.warning("usage is not recorded yet: %s", error)
        try:
            if changes:
                await self._store.write(placement.write_changes, changes)
        except StoreError as error:
            record.give_back(changes)
            log.warning("placement is not recorded yet: %s", error)

    async def _tidy(self, now: float) -> None:
        if self._core.usage.dropped:
            log.warning("%d counts of usage are lost: too many at once", self._core.usage.dropped)
            self._core.usage.dropped = 0
        try:
            await self._store.write(usage.tidy, list(self._core.nodes), now)
        except StoreError as error:
            log.warning("old usage marks are not removed: %s", error)
