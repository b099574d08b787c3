"""The tracker's doors over HTTP: the JSON API (its types are in `tracker.views`) and a page.

Everything is read from the core's memory, in O(page); nothing here changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice

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
from shared.web_guards import LocalOnly
from tracker import page, placement_view, tiers, views
from tracker.core.redirect import Trace
from tracker.core.tracker import Tracker

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
MAX_SKIP = 10_000_000


@dataclass(frozen=True, slots=True)
class Portal:
    """Answers from one running core; `tracker` is the address that others dial."""

    core: Tracker
    tracker: Address
    software: str
    started_at: float
    tier: tiers.Core | None = None  # what this tracker runs, if it is more than `core`

    def app(self, host: str) -> ASGIApp:
        """The ASGI app for an API bound to `host`: on loopback, for this machine's eyes only."""
        app = Starlette(
            routes=[
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
        return LocalOnly(app) if _is_loopback(host) else app

    def _now(self) -> views.Overview:
        tier = tiers.view(self.tier or self.core)
        seen = views.overview(self.core, self.tracker, self.software, self.started_at, clock.now())
        return msgspec.structs.replace(seen, tier=tier.tier, alone=tier.alone)

    async def _health(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _overview(self, request: Request) -> Response:
        return _json(self._now())

    async def _nodes(self, request: Request) -> Response:
        return _json(views.node_page(self.core, *_bounds(request)))

    async def _swarms(self, request: Request) -> Response:
        return _json(views.swarm_page(self.core, *_bounds(request)))

    async def _placement(self, request: Request) -> Response:
        return _json(placement_view.placement(self.core, clock.now()))

    async def _tiers(self, request: Request) -> Response:
        return _json(tiers.view(self.tier or self.core))

    async def _redirects(self, request: Request) -> Response:
        skip, limit = _bounds(request)
        latest = islice(reversed(self.core.answers), skip, skip + limit)
        return _json(RedirectPage(len(self.core.answers), [answer.trace() for answer in latest]))

    async def _titles(self, request: Request) -> Response:
        return _json(views.title_page(self.core, self.tracker, *_bounds(request)))

    async def _title(self, request: Request) -> Response:
        try:
            title_id = parse_title_id(request.path_params["title_id"])
        except LocalError as error:
            raise HTTPException(404, str(error)) from None
        entry = self.core.entries.get(title_id)
        if entry is None:
            raise HTTPException(404, "no such title here")
        return _json(views.title_view(self.core, self.tracker, entry))

    async def _page(self, request: Request) -> Response:
        titles = views.title_page(self.core, self.tracker, *_bounds(request))
        return HTMLResponse(page.titles_page(self._now(), titles), headers=page.HEADERS)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _bounds(request: Request) -> tuple[int, int]:
    """`skip` and `limit` of the query. Raises HTTPException that names the parameter."""
    return (
        _number(request, "skip", 0, 0, MAX_SKIP),
        _number(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
    )


def _number(request: Request, name: str, default: int, low: int, high: int) -> int:
    given = request.query_params.getlist(name)
    if not given:
        return default
    text = given[0]
    digits = len(given) == 1 and text.isascii() and text.isdigit() and len(text) <= len(str(high))
    if not digits or not low <= int(text) <= high:
        raise HTTPException(400, f"{name}: expected one whole number from {low} to {high}")
    return int(text)


def _json(view: msgspec.Struct, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(msgspec.json.encode(view), status, headers, "application/json")


class RedirectPage(msgspec.Struct, frozen=True):
    """The latest redirects with their grounds, newest first, as `penstock tracker explain` reads them."""

    total: int  # that are remembered
    redirects: list[Trace]


class ErrorView(msgspec.Struct, frozen=True):
    """Why a request was not answered, in one line."""

    error: str


async def _refuse(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = error.detail if isinstance(error, HTTPException) else "our fault; see the tracker's log"
    headers = getattr(error, "headers", None) or {}
    if request.url.path.startswith("/api/"):
        answer = _json(ErrorView(text), status)
    else:
        answer = HTMLResponse(page.error_page(text), status, page.HEADERS)
    answer.headers.update(headers)
    return answer
