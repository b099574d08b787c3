"""Usage over HTTP: by title, publisher, region or day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from shared import clock
from tracker import query
from tracker.answers import route
from tracker.core.usage import DAY_SECONDS
from tracker.dbs import usage
from tracker.dbs.usage import UsageRow
from tracker.desk_views import UsagePage, UsageView
from tracker.store import Store

MOST_DAYS = 400
LAST_DAYS = 30  # where nothing is said
FIRST_DAY, LAST_DAY = 0, 200 * 366  # 1970 to 2170


class UsageDesk:
    """Answers from the database; what was heard in the last two seconds may be missing."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self, *, may_change: bool) -> Sequence[Route]:
        """The door."""
        return [route("/api/v1/usage", "GET", self._usage)]

    async def _usage(self, request: Request) -> UsagePage:
        query.only(request, "from", "to", "by", "skip", "limit")
        by = query.choice(request, "by", usage.BY)
        last = query.day(request, "to", int(clock.now() // DAY_SECONDS))
        first = query.day(request, "from", last - LAST_DAYS + 1)
        if not FIRST_DAY <= first <= last <= LAST_DAY:
            raise HTTPException(400, "from: expected a day no later than `to`, from 1970 on")
        if last - first >= MOST_DAYS:
            raise HTTPException(400, f"from: more than {MOST_DAYS} days before `to`")
        skip, limit = query.bounds(request)
        total, rows = await self._store.read(usage.ask_usage, by, first, last, skip, limit)
        return UsagePage(by, _said(first), _said(last), total, skip, limit, [_view(row) for row in rows])


def _view(row: UsageRow) -> UsageView:
    key = (
        row.key.hex()
        if isinstance(row.key, bytes)
        else row.key
        if isinstance(row.key, str)
        else _said(row.key)
    )
    counts = (row.edge_bytes, row.peer_bytes, row.uploaded_bytes, row.redirects, row.viewers)
    return UsageView(key, row.name, *counts)


def _said(day: int) -> str:
    return (query.EPOCH + timedelta(days=day)).isoformat()
