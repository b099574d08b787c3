"""What HTTP requests ask, strictly: a parameter or body is exactly right, or refused by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request

S = TypeVar("S", bound=msgspec.Struct)

DEFAULT_LIMIT = 100
MAX_LIMIT = 500
MAX_SKIP = 10_000_000
EPOCH = date(1970, 1, 1)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)


def only(request: Request, *names: str) -> None:
    """Raises HTTPException for a parameter that is none of these: nothing is ignored in silence."""
    for name in request.query_params:
        if name not in names:
            raise HTTPException(400, f"{name[:80]!r}: unknown parameter; known: {', '.join(names) or 'none'}")


def bounds(request: Request) -> tuple[int, int]:
    """`skip` and `limit` of the query. Raises HTTPException that names the parameter."""
    return (
        number(request, "skip", 0, 0, MAX_SKIP),
        number(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT),
    )


def number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """A whole number of the query."""
    given = request.query_params.getlist(name)
    if not given:
        return default
    text = given[0]
    digits = len(given) == 1 and text.isascii() and text.isdigit() and len(text) <= len(str(high))
    if not digits or not low <= int(text) <= high:
        raise HTTPException(400, f"{name}: expected one whole number from {low} to {high}")
    return int(text)


def day(request: Request, name: str, default: int) -> int:
    """A day such as 2026-12-24, as whole days since 1970."""
    text = one(request, name)
    if text is None:
        return default
    try:
        if _DAY.match(text) is None:
            raise ValueError
        return (date.fromisoformat(text) - EPOCH).days
    except ValueError:
        raise HTTPException(400, f"{name}: expected a day such as 2026-12-24 (in UTC)") from None


def choice(request: Request, name: str, allowed: Sequence[str]) -> str:
    """One word out of several; the first is taken where none is given."""
    text = one(request, name)
    if text is None:
        return allowed[0]
    if text not in allowed:
        raise HTTPException(400, f"{name}: expected one of {', '.join(allowed)}")
    return text


def text_of(request: Request, name: str, most: int = 800) -> str:
    """A text that must be there."""
    text = one(request, name)
    if not text or len(text) > most:
        raise HTTPException(400, f"{name}: expected a text of 1 to {most} characters")
    return text


def one(request: Request, name: str) -> str | None:
    """A parameter that is given once or not at all."""
    given = request.query_params.getlist(name)
    if len(given) > 1:
        raise HTTPException(400, f"{name}: given more than once; expected one")
    return given[0] if given else None


async def body_of(request: Request, kind: type[S]) -> S:
    """The JSON of a body, as this type and nothing else. Raises HTTPException that names the field."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "expected a body of Content-Type application/json")
    raw = await request.body()
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = str(error).replace("`", "'").replace("$.", "")
        raise HTTPException(400, f"the body is not what is expected: {text[:300]}") from None


def at_most(most: int, **lists: Sequence[object]) -> None:
    """Raises HTTPException that names the list of a body which is longer."""
    for name, items in lists.items():
        if len(items) > most:
            raise HTTPException(400, f"{name}: {len(items)} at once; send at most {most}")
