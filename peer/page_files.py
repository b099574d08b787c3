"""The files of the page: read once, served from memory, checked by ETag on every visit."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.core.byte_range import etag_matches

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, as it is sent."""

    body: bytes
    media_type: str
    etag: str


def page_routes(before_watching: Callable[[Request], Awaitable[object]]) -> list[Route]:
    """`/`, `/watch/TITLE` and `/page/FILE`; a title is opened by `before_watching`, or refused."""
    pages = _read_pages()

    async def index(request: Request) -> Response:
        return _answer(pages["index.html"], request)

    async def watch(request: Request) -> Response:
        await before_watching(request)
        return _answer(pages["watch.html"], request)

    async def part(request: Request) -> Response:
        page = pages.get(request.path_params["name"])
        if page is None:
            raise HTTPException(404, "the page has no such file")
        return _answer(page, request)

    return [Route("/", index), Route("/watch/{title_id}", watch), Route("/page/{name}", part)]


def _read_pages() -> dict[str, PageFile]:
    pages = {}
    for path in files("peer").joinpath("page").iterdir():
        media_type = _TYPES.get(path.name.rpartition(".")[2])
        if media_type and path.is_file():
            body = path.read_bytes()
            pages[path.name] = PageFile(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return pages


def _answer(page: PageFile, request: Request) -> Response:
    headers = {"ETag": page.etag, "Cache-Control": "no-cache"}
    if etag_matches(request.headers.get("if-none-match"), page.etag):
        return Response(status_code=304, headers=headers)
    return Response(page.body, media_type=page.media_type, headers=headers)
