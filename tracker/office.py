"""Everything of a tracker that stands between its core and its database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from tracker.core.tracker import Tracker
from tracker.group_desk import GroupDesk
from tracker.ledger import Ledger
from tracker.plan_desk import PlanDesk
from tracker.store import Store
from tracker.usage_desk import UsageDesk


class Office:
    """The ledger writes down what the core decides; desks change what operators want."""

    def __init__(self, core: Tracker, store: Store) -> None:
        self.ledger = Ledger(core, store)
        self.groups = GroupDesk(core, store)
        self.plans = PlanDesk(core, store)
        self.desks = (self.groups, self.plans, UsageDesk(store))

    async def load(self) -> None:
        """Tells the core what the database has. Raises StoreError."""
        await self.groups.load()
        await self.plans.load()

    @asynccontextmanager
    async def open(self, pump: Callable[[], None]) -> AsyncIterator[None]:
        """Works while the context is open; `pump` carries out what the core was told."""
        async with self.ledger.open(pump), trio.open_nursery() as nursery:
            nursery.start_soon(self.plans.run)
            yield
            nursery.cancel_scope.cancel()
