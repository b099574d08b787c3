"""The tracker's doors over HTTP: the JSON API (its types are in `tracker.views`) and a page.

What is here is read from the core's memory, in O(page), and changes nothing; desks add more doors,
which ask the database and may change what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from shared import clock
from shared.core.errors import LocalError
from shared.core.ids import Address, parse_title_id
from shared.web_guards import LocalOnly, is_loopback
from tracker import page, placement_view, tiers, views
from tracker.answers import json
from tracker.core.answers import Trace
from tracker.core.tracker import Tracker
from tracker.desk_views import ErrorView
from tracker.query import bounds


class Desk(Protocol):
    """Doors for one subject."""

    def routes(self, *, may_change: bool) -> Sequence[Route]:
        """Its routes; `may_change`: whether this door takes what changes something."""
        ...


@dataclass(frozen=True, slots=True)
class Portal:
    """Answers from one running core; `tracker` is the address that others dial."""

    core: Tracker
    tracker: Address
    software: str
    started_at: float
    desks: Sequence[Desk] = ()
    tier: tiers.Core | None = None  # what this tracker runs, if it is more than `core`

    def app(self, host: str) -> ASGIApp:
        """The ASGI app for an API bound to `host`: on loopback, for this machine's eyes only."""
        is_local = is_loopback(host)
        app = Starlette(
            routes=[
                *(route for desk in self.desks for route in desk.routes(may_change=is_local)),
                Route("/", self._page),
                Route("/healthz", self._health),
                Route("/api/v1/overview", self._overview),
                Route("/api/v1/nodes", self._nodes),
                Route("/api/v1/swarms", self._swarms),
                Route("/api/v1/placement", self._placement),
                Route("/api/v1/tiers", self._tiers),
                Route("/api/v1/redirects", self._redirects),
                Route("/api/v1/titles", self._titles),
                Route("/api/v1/titles/{title_id}", self._title),
            ],
            exception_handlers={HTTPException: _refuse},
        )
        return LocalOnly(app) if is_local else app

    def _now(self) -> views.Overview:
        tier = tiers.view(self.tier or self.core)
        seen = views.overview(self.core, self.tracker, self.software, self.started_at, clock.now())
        return msgspec.structs.replace(seen, tier=tier.tier, alone=tier.alone)

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _overview(self, request: Request) -> Response:
        return json(self._now())

    async def _nodes(self, request: Request) -> Response:
        return json(views.node_page(self.core, *bounds(request)))

    async def _swarms(self, request: Request) -> Response:
        return json(views.swarm_page(self.core, *bounds(request)))

    async def _placement(self, request: Request) -> Response:
        return json(placement_view.placement(self.core, clock.now()))

    async def _tiers(self, request: Request) -> Response:
        return json(tiers.view(self.tier or self.core))

    async def _redirects(self, request: Request) -> Response:
        skip, limit = bounds(request)
        latest = islice(reversed(self.core.answers), skip, skip + limit)
        return json(RedirectPage(len(self.core.answers), [answer.trace() for answer in latest]))

    async def _titles(self, request: Request) -> Response:
        return json(views.title_page(self.core, self.tracker, *bounds(request)))

    async def _title(self, request: Request) -> Response:
        try:
            title_id = parse_title_id(request.path_params["title_id"])
        except LocalError as error:
            raise HTTPException(404, str(error)) from None
        entry = self.core.entries.get(title_id)
        if entry is None:
            raise HTTPException(404, "no such title here")
        return json(views.title_view(self.core, self.tracker, entry))

    async def _page(self, request: Request) -> Response:
        titles = views.title_page(self.core, self.tracker, *bounds(request))
        return HTMLResponse(page.titles_page(self._now(), titles), headers=page.HEADERS)


class RedirectPage(msgspec.Struct, frozen=True):
    """The latest redirects with their grounds, newest first, as `penstock tracker explain` reads them."""

    total: int  # that are remembered
    redirects: list[Trace]


async def _refuse(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = error.detail if isinstance(error, HTTPException) else "our fault; see the tracker's log"
    headers = getattr(error, "headers", None) or {}
    if request.url.path.startswith("/api/"):
        answer = json(ErrorView(text), status)
    else:
        answer = HTMLResponse(page.error_page(text), status, page.HEADERS)
    answer.headers.update(headers)
    return answer
