"""Bencode in its one canonical form: bencode.py's codec, made strict.

The package alone hangs on `d0:i1e-6:e`, reads `i1_0e` and `i+1e`, takes keys unsorted or
twice, and knows no bounds. Here its decoder keeps the dispatch, and every token is read by
the stricter methods below, so that `loads(x) == v` implies `dumps(v) == x`. Time is linear
in the input; depth, size and integers (64-bit signed) are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from bencodepy import BencodeDecodeError, BencodeDecoder, BencodeEncoder

from shared.core.errors import ProtocolError, Reason

BencodeValue: TypeAlias = int | bytes | list["BencodeValue"] | dict[bytes, "BencodeValue"]
# Read-only kinds, so that a dict[bytes, int] passes; that `str` passes too is caught when written.
Encodable: TypeAlias = int | bytes | Sequence["Encodable"] | Mapping[bytes, "Encodable"]

MAX_BYTES = 65536
MAX_DEPTH = 16
MAX_ITEMS = 65536  # of all containers together: an item is 50 times dearer in memory than its two bytes
INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1

# `\Z` is not needed: both end in their own terminator. 19 digits hold any 64-bit integer.
_INT = re.compile(rb"i(0|-?[1-9][0-9]{0,18})e")
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,9}):")


def loads(
    data: bytes | bytearray | memoryview,
    *,
    max_bytes: int = MAX_BYTES,
    max_depth: int = MAX_DEPTH,
    max_items: int = MAX_ITEMS,
) -> BencodeValue:
    """The value of exactly these bytes.

    `max_depth` counts containers inside one another, `max_items` the entries of all of them.
    Raises ProtocolError: TOO_LARGE over `max_bytes`, MALFORMED for anything not canonical.
    """
    if len(data) > max_bytes:
        raise ProtocolError(Reason.TOO_LARGE, f"{len(data)} bytes of bencode; the limit is {max_bytes}")
    try:
        return cast(BencodeValue, _StrictDecoder(max_depth, max_items).decode(bytes(data)))
    except BencodeDecodeError as error:
        raise ProtocolError(Reason.MALFORMED, f"bencode: {error}") from None


def dumps(value: Encodable) -> bytes:
    """The canonical encoding; tuples are written as lists.

    Raises TypeError for other types (bool, str and None among them) and ValueError for
    integers beyond 64 bits: what `loads` would refuse is never written.
    """
    return _ENCODER.encode(value)


class _StrictDecoder(BencodeDecoder):  # type: ignore[misc]
    """Reads tokens strictly; ValueError and KeyError become BencodeDecodeError above it."""

    def __init__(self, max_depth: int, max_items: int) -> None:
        super().__init__(max_depth=max_depth)
        self.items_left = max_items

    def decode_int(self, x: bytes, f: int, depth: int = 0) -> tuple[int, int]:
        match = _INT.match(x, f)
        if match is None:
            raise ValueError
        number = int(match[1])
        if not INT_MIN <= number <= INT_MAX:
            raise ValueError
        return number, match.end()

    def decode_string(self, x: bytes, f: int, depth: int = 0) -> tuple[bytes, int]:
        match = _LENGTH.match(x, f)
        if match is None:
            raise ValueError
        start = match.end()
        end = start + int(match[1])
        if end > len(x):
            raise ValueError
        return x[start:end], end

    def decode_list(self, x: bytes, f: int, depth: int = 0) -> tuple[list[BencodeValue], int]:
        self._enter(depth)
        found: list[BencodeValue] = []
        f += 1
        while x[f : f + 1] != b"e":
            self._count_item()
            value, f = self.decode_func[x[f : f + 1]](x, f, depth=depth + 1)
            found.append(value)
        return found, f + 1

    def decode_dict(self, x: bytes, f: int, depth: int = 0) -> tuple[dict[bytes, BencodeValue], int]:
        self._enter(depth)
        found: dict[bytes, BencodeValue] = {}
        last: bytes | None = None
        f += 1
        while x[f : f + 1] != b"e":
            self._count_item()
            key, f = self.decode_string(x, f)
            if last is not None and key <= last:  # unsorted, or the same key again
                raise ValueError
            found[key], f = self.decode_func[x[f : f + 1]](x, f, depth=depth + 1)
            last = key
        return found, f + 1

    def _enter(self, depth: int) -> None:
        if depth >= self.max_depth:
            raise BencodeDecodeError(f"more than {self.max_depth} containers inside one another")

    def _count_item(self) -> None:
        self.items_left -= 1
        if self.items_left < 0:
            raise BencodeDecodeError("too many items")


class _StrictEncoder(BencodeEncoder):  # type: ignore[misc]
    """Writes only what the strict decoder reads."""

    def __init__(self) -> None:
        self.encode_func = {
            int: self.encode_int,
            bytes: self.encode_bytes,
            list: self.encode_list,
            tuple: self.encode_list,
            dict: self.encode_dict,
        }

    def encode(self, value: object) -> bytes:
        try:
            return cast(bytes, super().encode(value))
        except KeyError as error:
            raise TypeError(f"bencode has no form for {error.args[0].__name__}") from None

    def encode_int(self, x: int, r: Any) -> None:
        if not INT_MIN <= x <= INT_MAX:
            raise ValueError(f"{x} does not fit 64 bits")
        super().encode_int(x, r)

    def encode_dict(self, x: dict[bytes, Encodable], r: Any) -> None:
        for key in x:
            if type(key) is not bytes:  # the package would turn str into bytes, and write a key twice
                raise TypeError(f"bencode has no form for a {type(key).__name__} as key")
        super().encode_dict(x, r)


_ENCODER = _StrictEncoder()
