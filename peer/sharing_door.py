"""The door's switch: POST /api/v1/sharing with JSON that names what is to change.

    {"mode": "direct"}  {"mode": "shared"}      stop uploading for good, or agree to it
    {"pause": 3600}  {"pause": true}            for so many seconds, or until it is taken back
    {"pause": false}                            go on
    {"metered_here": true}                      nothing is uploaded on the network we are on now

The answer is what `statistics` says of sharing afterwards.
"""

from __future__ import annotations

from contextlib import aclosing
from math import inf
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from peer.titles import Titles
from shared.core.ids import Mode

MOST_BYTES = 1024
LONGEST_PAUSE_SECONDS = 10 * 365 * 86_400.0

Pause = bool | Annotated[float, Meta(gt=0, le=LONGEST_PAUSE_SECONDS)]


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody wants changed."""

    mode: Mode | None = None
    pause: Pause | None = None
    metered_here: bool | None = None

    def pause_seconds(self) -> float | None:
        """0 ends a pause; infinite is until it is taken back."""
        if self.pause is None or not isinstance(self.pause, bool):
            return self.pause
        return inf if self.pause else 0.0


async def change_sharing(titles: Titles, request: Request) -> Response:
    """Answers the POST. Raises HTTPException 400 for what is no wish, LocalError if it cannot be kept."""
    body = b""
    async with aclosing(request.stream()) as parts:
        async for part in parts:
            body += part
            if len(body) > MOST_BYTES:
                raise HTTPException(413, f"a wish has at most {MOST_BYTES} bytes")
    try:
        wish = msgspec.json.decode(body, type=Wish)
    except (msgspec.DecodeError, ValueError) as error:
        raise HTTPException(400, f"no wish: {error}") from None
    await titles.choose(wish.mode, wish.pause_seconds(), wish.metered_here)
    return JSONResponse(titles.statistics()["sharing"], headers={"Cache-Control": "no-store"})
