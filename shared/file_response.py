"""A rendition's bytes as one HTTP answer: ranges, back-pressure, and nothing read that nobody takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

import trio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from shared.core.byte_range import NotSatisfiable, asked_range, etag_matches
from shared.core.errors import PenstockError, Reason, Refused
from shared.core.manifest import Manifest

PART_BYTES = 128 * 1024  # half a piece: a seek leaves no more than this behind in the socket
FIRST_BYTE_SECONDS = 30.0  # then 503: better a player that asks again than one that gives up

log = logging.getLogger(__name__)


class Reader(Protocol):
    """One asker's way through a rendition; leaving the context takes its wishes back."""

    async def read(self, offset: int, max_bytes: int) -> bytes:
        """Up to `max_bytes` verified bytes from `offset`; waits for the first of them.

        Empty only at or behind the end. Raises LocalError or RemoteError, bare.
        """
        ...

    async def __aenter__(self) -> Reader: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


def file_response(manifest: Manifest, request: Request, open_reader: Callable[[], Reader]) -> Response:
    """The answer to GET or HEAD of a rendition (RFC 9110); only GET of bytes opens a reader."""
    etag = f'"{manifest.infohash.hex()}"'
    # The peer's own store is the cache: a browser's copy would double the disk it takes.
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": "no-store"}
    if etag_matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    try:
        part = _part(request, manifest.length, etag)
    except NotSatisfiable:
        headers["Content-Range"] = f"bytes */{manifest.length}"
        return PlainTextResponse(f"the file has {manifest.length} bytes\n", 416, headers)
    start, end = part or (0, manifest.length)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{manifest.length}"
    headers |= {"Content-Length": str(end - start), "Content-Type": content_type(manifest)}
    status = 206 if part else 200
    if request.method == "HEAD" or start == end:
        return Response(status_code=status, headers=headers)
    return FileResponse(open_reader, manifest, start, end, status, headers)


def _part(request: Request, length: int, etag: str) -> tuple[int, int] | None:
    if request.method != "GET":  # ranges are defined for GET only
        return None
    wanted = request.headers.get("range")
    return asked_range(wanted, length, if_range=request.headers.get("if-range"), etag=etag)


def content_type(manifest: Manifest) -> str:
    """The media type of a rendition's file."""
    if manifest.media is None:
        return "application/octet-stream"
    return "video/mp4" if manifest.media.height else "audio/mp4"


class FileResponse(Response):
    """Bytes `start` to `end` of a rendition, read no faster than they are taken.

    The first part is read before the status goes out, so that a failure can still be said:
    it raises LocalError, RemoteError or TooSlowError. Later failures cut the connection.
    """

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        manifest: Manifest,
        start: int,
        end: int,
        status: int,
        headers: dict[str, str],
    ) -> None:
        self.open_reader, self.manifest, self.start, self.end = open_reader, manifest, start, end
        self.status_code, self.background = status, None
        self.body = b""
        self.init_headers(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.open_reader() as reader:
            with trio.fail_after(FIRST_BYTE_SECONDS):
                first = await _read(reader, self.start, self.end)
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            try:
                await self._send_parts(reader, first, send)
            except PenstockError as error:  # too late to say it: a cut answer is asked for again
                log.warning("stopped sending %s: %s", self.manifest.infohash.hex()[:12], error)

    async def _send_parts(self, reader: Reader, first: bytes, send: Send) -> None:
        body, offset = first, self.start + len(first)
        while offset < self.end:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            body = await _read(reader, offset, self.end)
            offset += len(body)
        await send({"type": "http.response.body", "body": body, "more_body": False})


async def _read(reader: Reader, offset: int, end: int) -> bytes:
    part = await reader.read(offset, min(PART_BYTES, end - offset))
    if not part:
        raise Refused(Reason.INTERNAL, f"no bytes at {offset}, before the end at {end}")
    return part
