"""How the API answers: JSON, with errors of one line in `error`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.core.errors import LocalError, StoreError, StoreFull
from tracker.dbs.refusals import NotSo, NotThere

Handler = Callable[[Request], Awaitable[msgspec.Struct]]

STATUS = {NotThere: 404, NotSo: 409, StoreFull: 507, StoreError: 503}


def json(view: msgspec.Struct, status: int = 200) -> Response:
    """A view as an answer that nobody keeps."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(msgspec.json.encode(view), status, headers, "application/json")


def route(path: str, method: str, handler: Handler, *, may_change: bool = True) -> Route:
    """A route whose handler gives a view, or raises a LocalError that becomes a status.

    `may_change`: whether this door is for this machine only; else what changes something is refused.
    """

    async def answer(request: Request) -> Response:
        if method != "GET" and not may_change:
            raise HTTPException(403, CLOSED)
        try:
            return json(await handler(request))
        except LocalError as error:
            raise HTTPException(STATUS.get(type(error), 400), str(error)) from None

    return Route(path, answer, methods=[method])


CLOSED = (
    "changes are taken on this machine's loopback only, and this API is open to others; "
    "set tracker.api to 127.0.0.1:8430"
)
