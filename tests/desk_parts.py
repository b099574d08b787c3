"""A core with its database and its API, without sockets, for tests of what operators change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from shared.core.ids import Address, HostPort
from shared.core.messages import Entry
from tests.tracker_parts import NOW, TRACKER_ID, tracker
from tracker.core.tracker import Tracker
from tracker.office import Office
from tracker.portal import Portal
from tracker.store import Store, open_store

AT = Address(TRACKER_ID, HostPort("192.0.2.7", 4430))


@dataclass
class Desks:
    """What a test asks, and what it looks at."""

    core: Tracker
    store: Store
    office: Office
    client: httpx2.AsyncClient

    async def get(self, path: str) -> Any:
        """The JSON at a path of the API."""
        return await self.ask("GET", path)

    async def post(self, path: str, wish: Any) -> Any:
        """What a change answers."""
        return await self.ask("POST", path, wish)

    async def ask(self, method: str, path: str, wish: Any = None) -> Any:
        """The JSON of an answer that must be good."""
        answer = await self.client.request(method, f"/api/v1/{path}", json=wish)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refused(self, method: str, path: str, wish: Any = None) -> tuple[int, str]:
        """Status and error of an answer that must be none."""
        answer = await self.client.request(method, f"/api/v1/{path}", json=wish)
        error = answer.json()["error"]
        assert isinstance(error, str)
        assert "\n" not in error
        return answer.status_code, error


@asynccontextmanager
async def desks_of(folder: Path, *entries: Entry, host: str = "127.0.0.1") -> AsyncIterator[Desks]:
    """A tracker as it starts on the database of a folder, with these titles in it."""
    async with open_store(folder / "tracker.db") as store:
        for entry in entries:
            await store.store_title(entry)
        core = tracker(*await store.entries())
        office = Office(core, store)
        await office.load()
        app = Portal(core, AT, "penstock 1", NOW, office.desks).app(host)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8430") as client:
            yield Desks(core, store, office, client)
