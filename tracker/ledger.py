"""Carries the core's orders to write into the database, and tells the core how that ended."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from shared.core.errors import Reason, Refused, StoreError, StoreFull
from shared.core.ids import NodeId
from tracker.core.nodes import Node
from tracker.core.tracker import StoreNode, StoreTitle, Tracker, TrackerAction
from tracker.store import Store

log = logging.getLogger("penstock.tracker")

TITLES_WAITING = 256  # an edge that registers faster than the disk writes is told to wait
NODES_WAITING = 10_000
NODES_EVERY_SECONDS = 1.0  # one transaction for a crowd that comes at once


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
            yield
            nursery.cancel_scope.cancel()

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
