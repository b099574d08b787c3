"""The player's door: HTTP on loopback for any player, a page that plays, and JSON.

    /  /watch/TITLE                        pages
    /titles/TITLE/master.m3u8              HLS over byte ranges
    /titles/TITLE/INFOHASH.m3u8, .mp4      a rendition's playlist and its file, with Range;
                                           .mp4?download fetches everything at once, in any order
    /playlist.m3u                          everything, for Kodi and its like
    /api/v1/titles, /api/v1/titles/TITLE/statistics, /api/v1/statistics, /healthz
    /api/v1/sharing                        POST: mode, pause; see `peer.sharing_door`

Errors are one line of plain text. Who may ask is decided by `shared.web_guards.LocalOnly`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import trio
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from peer import m3u8
from peer.page_files import page_routes
from peer.sharing_door import change_sharing
from peer.titles import JSON, Titles
from shared.core.errors import LocalError, PenstockError, Reason, Refused, RemoteError, StoreError, StoreFull
from shared.core.ids import InfoHash, TitleId, parse_infohash, parse_title_id
from shared.core.manifest import Manifest
from shared.core.messages import Entry, Rendition
from shared.file_response import file_response
from shared.web import serve
from shared.web_guards import LocalOnly, is_loopback

WAIT_SECONDS = 20.0  # for the tracker, and for a manifest from the first source
RETRY_SECONDS = 2
MAX_OPENED = 256

_STATUS = {
    Reason.UNKNOWN_TITLE: 404,
    Reason.NOT_ALLOWED: 403,
    Reason.TICKET_INVALID: 403,
    Reason.TICKET_EXPIRED: 403,
    Reason.NO_SPACE: 507,
}
_UNREACHABLE = 503

_GUARDS = {
    "Content-Security-Policy": (
        "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


async def serve_player(
    titles: Titles,
    host: str,
    port: int,
    *,
    what: str = "peer.player",
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the door until cancelled; `task_status` gets the bound (host, port), `port` may be 0.

    `what` is the setting that chose the address. Raises LocalError, starting with it, if the
    address is not loopback or cannot be listened on.
    """
    if not is_loopback(host):
        raise LocalError(f"{what}: {host} is not this machine's loopback address; use 127.0.0.1 or ::1")
    await serve(player_app(titles), host, port, what=what, task_status=task_status)


def player_app(titles: Titles) -> ASGIApp:
    """The door as an ASGI app, guards included."""
    door = _Door(titles)
    app = Starlette(
        routes=[
            *page_routes(before_watching=door.open),
            Route("/titles/{title_id}/master.m3u8", door.master),
            Route("/titles/{title_id}/{infohash}.m3u8", door.media),
            Route("/titles/{title_id}/{infohash}.mp4", door.film),
            Route("/playlist.m3u", door.shelf),
            Route("/api/v1/statistics", door.statistics),
            Route("/api/v1/sharing", door.change_sharing, methods=["POST"]),
            Route("/api/v1/titles", door.catalogue),
            Route("/api/v1/titles/{title_id}/statistics", door.title_statistics),
            Route("/healthz", _healthz),
        ],
        exception_handlers={PenstockError: _refuse, trio.TooSlowError: _too_slow},
    )
    return _Guarded(LocalOnly(app))


@dataclass(slots=True)
class _Door:
    """Answers requests; remembers opened titles, so that a lost tracker stops no playback."""

    titles: Titles
    opened: dict[TitleId, Entry] = field(default_factory=dict)  # latest last

    async def open(self, request: Request) -> Entry:
        title_id = _title_id(request)
        with trio.fail_after(WAIT_SECONDS):
            entry = await self.titles.open_title(title_id)
        self.opened.pop(title_id, None)
        self.opened[title_id] = entry
        if len(self.opened) > MAX_OPENED:
            del self.opened[next(iter(self.opened))]
        return entry

    async def rendition(self, request: Request) -> Manifest:
        infohash = _infohash(request)
        entry = self.opened.get(_title_id(request))
        if entry is None or not _has(entry, infohash):
            entry = await self.open(request)
        if not _has(entry, infohash):
            raise Refused(Reason.UNKNOWN_TITLE, "the title has no such rendition")
        with trio.fail_after(WAIT_SECONDS):
            return await self.titles.manifest(infohash)

    async def master(self, request: Request) -> Response:
        return _playlist(m3u8.master(await self.open(request)))

    async def media(self, request: Request) -> Response:
        return _playlist(m3u8.media(await self.rendition(request)))

    async def film(self, request: Request) -> Response:
        manifest = await self.rendition(request)
        playing = "download" not in request.query_params
        open_reader = partial(self.titles.open_reader, manifest.infohash, playing=playing)
        return file_response(manifest, request, open_reader)

    async def shelf(self, request: Request) -> Response:
        base = f"http://{request.headers['host']}"  # one of ours, or LocalOnly had refused it
        return _playlist(m3u8.shelf(await self._entries(), base), m3u8.M3U_TYPE)

    async def catalogue(self, request: Request) -> Response:
        return _json({"titles": [_described(entry) for entry in await self._entries()]})

    async def statistics(self, request: Request) -> Response:
        return _json(self.titles.statistics())

    async def change_sharing(self, request: Request) -> Response:
        return await change_sharing(self.titles, request)

    async def title_statistics(self, request: Request) -> Response:
        title_id = _title_id(request)
        entry = self.opened.get(title_id)
        if entry is None:
            raise HTTPException(404, f"title {title_id.hex()} is not open here; open its page or playlist")
        renditions: list[JSON] = [
            {**_rendition(entry, one), **self.titles.title_statistics(one.infohash)}
            for one in entry.renditions
        ]
        return _json({**_described(entry), "renditions": renditions, "peer": self.titles.statistics()})

    async def _entries(self) -> list[Entry]:
        with trio.fail_after(WAIT_SECONDS):
            return await self.titles.catalogue()


def _title_id(request: Request) -> TitleId:
    try:
        return parse_title_id(request.path_params["title_id"])
    except LocalError as error:
        raise HTTPException(404, str(error)) from None


def _infohash(request: Request) -> InfoHash:
    try:
        return parse_infohash(request.path_params["infohash"])
    except LocalError as error:
        raise HTTPException(404, str(error)) from None


def _has(entry: Entry, infohash: InfoHash) -> bool:
    return any(rendition.infohash == infohash for rendition in entry.renditions)


def _described(entry: Entry) -> Mapping[str, JSON]:
    """An entry as JSON: the catalogue's fields, and where to play it."""
    return {
        "title_id": entry.title_id.hex(),
        "title": entry.title,
        "signer": entry.signer.hex(),
        "page": f"/watch/{entry.title_id.hex()}",
        "hls": m3u8.master_path(entry.title_id),
        "renditions": [_rendition(entry, one) for one in entry.renditions],
    }


def _rendition(entry: Entry, one: Rendition) -> Mapping[str, JSON]:
    return {
        "infohash": one.infohash.hex(),
        "name": one.name,
        "length": one.length,
        "bandwidth": one.bandwidth,
        "codecs": one.codecs,
        "width": one.width,
        "height": one.height,
        "duration_ms": one.duration_ms,
        "mp4": m3u8.film_path(entry.title_id, one.infohash),
    }


def _playlist(text: str | None, media_type: str = m3u8.HLS_TYPE) -> Response:
    if text is None:
        raise HTTPException(404, "this title is a plain file, not a film; it has no playlist")
    return Response(text, media_type=media_type, headers={"Cache-Control": "no-store"})


def _json(value: Mapping[str, JSON]) -> Response:
    return JSONResponse(value, headers={"Cache-Control": "no-store"})


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _refuse(request: Request, error: Exception) -> Response:
    return _one_line(str(error), _status_of(error))


async def _too_slow(request: Request, error: Exception) -> Response:
    return _one_line("no source or tracker has answered in time; trying goes on, ask again", _UNREACHABLE)


def _status_of(error: Exception) -> int:
    match error:
        case StoreFull():
            return 507
        case StoreError():
            return 500
        case RemoteError(reason=reason):
            return _STATUS.get(reason, _UNREACHABLE)
    return _UNREACHABLE


def _one_line(text: str, status: int) -> Response:
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:400]
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == _UNREACHABLE else {}
    return PlainTextResponse(f"{line}\n", status, headers)


class _Guarded:
    """Adds to every answer what keeps pages of other sites, and scripts in titles, away."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_GUARDS)
            await send(message)

        await self.app(scope, receive, send_guarded)
