"""The Range and If-Range headers of one request, as RFC 9110 (sections 13 and 14) reads them."""

from __future__ import annotations

import re

_SPEC = re.compile(r"[ \t]*(?P<first>[0-9]{0,20})-(?P<last>[0-9]{0,20})[ \t]*\Z")


class NotSatisfiable(Exception):
    """The range starts behind the end of the file: answer 416 and name the length."""


def asked_range(
    value: str | None, length: int, *, if_range: str | None = None, etag: str = ""
) -> tuple[int, int] | None:
    """First byte and end (exclusive) of the range asked for; None means the whole file.

    A header that is malformed, in another unit or of several ranges is ignored, as the RFC
    allows; so is any range when `if_range` does not name exactly this `etag`.
    Raises NotSatisfiable.
    """
    if value is None or (if_range is not None and if_range.strip() != etag):
        return None
    unit, equals, spec = value.partition("=")
    match = _SPEC.match(spec)
    if not equals or unit.strip().lower() != "bytes" or match is None:
        return None
    first, last = match["first"], match["last"]
    if not first:
        return _suffix(int(last), length) if last else None
    if last and int(last) < int(first):
        return None
    if int(first) >= length:
        raise NotSatisfiable
    return int(first), min(int(last) + 1, length) if last else length


def _suffix(count: int, length: int) -> tuple[int, int]:
    if count == 0 or length == 0:
        raise NotSatisfiable
    return max(0, length - count), length


def etag_matches(if_none_match: str | None, etag: str) -> bool:
    """Whether the asker already has this version (weak comparison, RFC 9110 13.1.2)."""
    if if_none_match is None:
        return False
    names = [name.strip().removeprefix("W/") for name in if_none_match.split(",")]
    return etag in names or "*" in names
