"""Reads the tracker's API. Whatever answers there is a stranger: bounded, typed, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import httpx2
import msgspec

from shared.core.errors import LocalError, ProtocolError, Reason
from tracker.api_client import checked_api
from tracker.views import NodePage, Overview, SwarmPage

T = TypeVar("T", Overview, NodePage, SwarmPage)

MAX_ANSWER_BYTES = 16 << 20  # 500 swarms of 100 holders are 8 MB
TIMEOUT_SECONDS = 5.0
NODES_SHOWN = 500
SWARMS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The tracker at one moment (three requests long)."""

    overview: Overview
    nodes: NodePage
    swarms: SwarmPage


class Feed:
    """One tracker's API; an async context manager, on asyncio or trio."""

    def __init__(self, api: str, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.api = checked_api(api, "--api")
        # No proxies from the environment: the API is on this machine or in this network.
        self._client = httpx2.AsyncClient(
            base_url=self.api, timeout=TIMEOUT_SECONDS, transport=transport, trust_env=False
        )

    async def __aenter__(self) -> Feed:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def fetch(self) -> Snapshot:
        """What the tracker shows now. Raises LocalError if none answers, ProtocolError if it is none."""
        return Snapshot(
            await self._get("/api/v1/overview", Overview),
            await self._get(f"/api/v1/nodes?limit={NODES_SHOWN}", NodePage),
            await self._get(f"/api/v1/swarms?limit={SWARMS_SHOWN}", SwarmPage),
        )

    async def _get(self, path: str, kind: type[T]) -> T:
        try:
            status, body = await self._read(path)
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise LocalError(
                f"no tracker answers at {self.api}: {why}; start `penstock tracker` or give --api"
            ) from None
        if status != 200:
            raise ProtocolError(Reason.UNEXPECTED, f"{self.api}{path} answered with status {status}")
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ProtocolError(Reason.MALFORMED, f"{self.api} is not a tracker's API") from None

    async def _read(self, path: str) -> tuple[int, bytes]:
        body = bytearray()
        async with self._client.stream("GET", path) as response:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise ProtocolError(Reason.TOO_LARGE, f"{self.api}{path} answered without end")
        return response.status_code, bytes(body)
