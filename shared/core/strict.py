"""Fields out of a bencoded dictionary, each checked as it is taken.

All raise ProtocolError(MALFORMED) whose detail names the key.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NoReturn

from shared.core.bencode import BencodeValue
from shared.core.errors import ProtocolError, Reason

Fields = dict[bytes, BencodeValue]


def malformed(detail: str) -> NoReturn:
    """Refuses."""
    raise ProtocolError(Reason.MALFORMED, detail)


def fields_of(value: BencodeValue | None, *allowed: Set[bytes], what: str) -> Fields:
    """A dictionary whose keys are exactly one of the `allowed` sets."""
    if not isinstance(value, dict):
        malformed(f"{what} is not a dictionary")
    if value.keys() not in allowed:
        meant = min(allowed, key=lambda keys: len(keys ^ value.keys()))
        missing = sorted(meant - value.keys())
        malformed(f"{what} lacks {_shown(missing[0])}" if missing else f"{what} has an unknown key")
    return value


def int_of(fields: Fields, key: bytes, low: int, high: int) -> int:
    """An integer from `low` to `high`, both included."""
    value = fields.get(key)
    if not isinstance(value, int):
        malformed(f"{_shown(key)} is not an integer")
    if not low <= value <= high:
        malformed(f"{_shown(key)} is {value}, outside {low} to {high}")
    return value


def bytes_of(fields: Fields, key: bytes, low: int, high: int) -> bytes:
    """A string of `low` to `high` bytes, both included."""
    value = fields.get(key)
    if not isinstance(value, bytes):
        malformed(f"{_shown(key)} is not a string")
    if not low <= len(value) <= high:
        malformed(f"{_shown(key)} has {len(value)} bytes, outside {low} to {high}")
    return value


def text_of(fields: Fields, key: bytes, low: int, high: int) -> str:
    """A string of `low` to `high` bytes of UTF-8."""
    try:
        return bytes_of(fields, key, low, high).decode()
    except UnicodeDecodeError:
        malformed(f"{_shown(key)} is not UTF-8")


def _shown(key: bytes) -> str:
    return ascii(key.decode("utf-8", "replace")[:60])
