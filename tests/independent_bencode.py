"""A second bencode decoder, sharing nothing with the first: the judge in fuzz tests.

It works the other way round: tokens are cut from left to right, a stack of open containers
is folded, integers are checked by printing them again; nothing recurses, and nothing is
imported from the project. Slow, obvious, strict.
"""

from __future__ import annotations

from typing import Any


class Invalid(Exception):
    """These bytes are not canonical bencode within the bounds."""


def _integer(digits: bytes) -> int:
    text = digits.decode("ascii", "strict") if digits.isascii() else ""
    bare = text.removeprefix("-")
    if not bare or any(letter not in "0123456789" for letter in bare):
        raise Invalid("not an integer")
    number = int(bare[:25]) * (-1 if text.startswith("-") else 1)
    if len(bare) > 25 or str(number) != text or not -(2**63) <= number < 2**63:
        raise Invalid("an integer not in its shortest form, or beyond 64 bits")
    return number


def _cut(data: bytes, at: int, stop: bytes) -> tuple[bytes, int]:
    end = data.find(stop, at)
    if end < 0:
        raise Invalid("no terminator")
    return data[at:end], end + 1


def _token(data: bytes, at: int) -> tuple[str, Any, int]:
    letter = data[at : at + 1]
    if letter in (b"l", b"d", b"e"):
        return letter.decode(), None, at + 1
    if letter == b"i":
        digits, after = _cut(data, at + 1, b"e")
        return "value", _integer(digits), after
    digits, after = _cut(data, at, b":")
    size = _integer(digits)
    if size < 0 or after + size > len(data):
        raise Invalid("a string longer than what is left")
    return "value", data[after : after + size], after + size


def decode(data: bytes, max_depth: int = 16) -> Any:
    """The value of `data`, or Invalid."""
    root: list[Any] = []
    open_containers: list[tuple[Any, list[Any]]] = [(None, root)]  # kind, flat items
    at = 0
    while at < len(data):
        if len(open_containers) == 1 and root:
            raise Invalid("bytes after the value")
        what, value, at = _token(data, at)
        if what in "ld":
            open_containers.append((what, []))
            if len(open_containers) - 1 > max_depth:
                raise Invalid("too deep")
            continue
        if what == "e":
            if len(open_containers) == 1:
                raise Invalid("an end without a start")
            kind, items = open_containers.pop()
            value = items if kind == "l" else _fold(items)
        open_containers[-1][1].append(value)
    if len(open_containers) != 1 or len(root) != 1:
        raise Invalid("cut short")
    return root[0]


def _fold(items: list[Any]) -> dict[bytes, Any]:
    keys = items[0::2]
    if len(items) % 2 or any(type(key) is not bytes for key in keys):
        raise Invalid("keys and values do not pair")
    if keys != sorted(set(keys)):
        raise Invalid("keys unsorted or twice")
    return dict(zip(keys, items[1::2], strict=True))
