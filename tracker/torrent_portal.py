"""BitTorrent's HTTP door, for stock clients and titles that are for everybody.

    /announce, /scrape                  see `tracker.core.http_announce`
    /torrents/INFOHASH.torrent          a rendition as a .torrent (BEP 52); with a title's id, its best one

It has its own port and nothing of the API. Clients are believed to be where their request comes from.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from shared.core.errors import LocalError, ProtocolError, Refused
from shared.core.ids import TITLE_ID_BYTES, HostPort, InfoHash, parse_infohash, parse_title_id
from tracker.core import http_announce, torrent_file
from tracker.core.torrents import Companions, TorrentAnnounce, TorrentCounts
from tracker.core.tracker import Tracker
from tracker.torrent_files import TorrentFiles

MAX_OF_ADDRESS = 32  # connections: a household or an office, not a flood
TORRENT_TYPE = "application/x-bittorrent"


class TorrentTable(Protocol):
    """Who announced what, in this process or in others. Its methods raise Refused."""

    async def announce(self, said: TorrentAnnounce, address: bytes) -> Companions:
        """One announce of a client at an address of 4 or 16 bytes."""

    async def scrape(self, asked: Sequence[bytes]) -> dict[bytes, TorrentCounts]:
        """The counts of those that may be announced."""


@dataclass(frozen=True, slots=True)
class TorrentPortal:
    """Answers from the table that the UDP door fills too; `at` is where others reach it, if that is set."""

    core: Tracker
    torrents: TorrentTable
    files: TorrentFiles
    at: HostPort | None

    def app(self) -> ASGIApp:
        """The ASGI app."""
        return Starlette(
            routes=[
                Route("/announce", self._announce),
                Route("/scrape", self._scrape),
                Route("/torrents/{name}.torrent", self._torrent),
            ],
            exception_handlers={HTTPException: _refuse},
        )

    async def _announce(self, request: Request) -> Response:
        return await _bencoded(lambda: self._announced(request))

    async def _announced(self, request: Request) -> bytes:
        said = http_announce.parse_announce(_query(request))
        assert request.client is not None, "TCP has two ends"
        address = http_announce.parse_client(request.client.host)
        return http_announce.companions(await self.torrents.announce(said, address))

    async def _scrape(self, request: Request) -> Response:
        return await _bencoded(lambda: self._scraped(request))

    async def _scraped(self, request: Request) -> bytes:
        asked = http_announce.parse_scrape(_query(request))
        return http_announce.scraped(await self.torrents.scrape(asked))

    async def _torrent(self, request: Request) -> Response:
        try:
            infohash = self._infohash(request.path_params["name"])
            entry = self.core.open_titles.entry(infohash)
            manifest = await self.files.manifest(infohash, entry.signer)
            self.core.open_titles.entry(infohash)  # it may have been closed meanwhile
        except Refused as refusal:
            raise HTTPException(404, refusal.detail) from None
        except LocalError as error:
            raise HTTPException(404, str(error)) from None
        seeds = [torrent_file.web_seed_url(door, infohash) for door in self.core.web_seeds(infohash)]
        body = await trio.to_thread.run_sync(
            torrent_file.build, manifest, torrent_file.announce_urls(self._reached_at(request)), seeds
        )
        name = {"Content-Disposition": f'attachment; filename="{infohash.hex()}.torrent"'}
        return Response(body, media_type=TORRENT_TYPE, headers={"Cache-Control": "no-store", **name})

    def _infohash(self, name: str) -> InfoHash:
        if len(name) == 2 * TITLE_ID_BYTES:
            return self.core.open_titles.best_of(parse_title_id(name))
        return parse_infohash(name)

    def _reached_at(self, request: Request) -> HostPort:
        if self.at is not None:
            return self.at
        # Not what Host says: the other end chooses that, and a cache might pass it on to others.
        host, port = request.scope["server"]
        return HostPort(host.removeprefix("::ffff:") if "." in host else host, port)


def _query(request: Request) -> http_announce.Query:
    raw: bytes = request.scope["query_string"]  # Starlette would read it as text
    return http_announce.parse_query(raw)


async def _bencoded(answer: Callable[[], Awaitable[bytes]]) -> Response:
    """Clients read the reason of a failure only in an answer of status 200."""
    try:
        body = await answer()
    except (ProtocolError, Refused) as error:
        body = http_announce.failure(error)
    return Response(body, media_type="text/plain", headers={"Cache-Control": "no-store"})


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
