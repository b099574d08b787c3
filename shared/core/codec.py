"""Frozen dataclasses to bencoded dictionaries and back, with every limit checked.

A message class states, per field, its type and `Limit`; this module turns that into an
encoder and a strict decoder once, at import. Both directions check the limits: what we
would refuse to read, we refuse to send (that is a fault of ours and a LocalError).
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from enum import IntEnum, StrEnum
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from shared.core import bencode
from shared.core.errors import LocalError, ProtocolError, Reason

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limit:
    """Bounds of a field: value of an integer, bytes of a string, items of a list."""

    low: int
    high: int
    says: str  # one line for the printed protocol


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message as the codec and the printed protocol see it."""

    name: str
    key: bytes
    kind: Any
    limit: Limit
    optional: bool
    default: Any


class _OverLimit(ValueError):
    """More than the upper bound."""


_FIELDS: dict[type, tuple[Field, ...]] = {}


def fields_of(kind: type) -> tuple[Field, ...]:
    """The checked fields of a message or of a record inside one."""
    known = _FIELDS.get(kind)
    if known is None:
        known = _FIELDS[kind] = tuple(_field(kind, f) for f in fields(kind))
    return known


def _field(owner: type, f: Any) -> Field:
    hint = get_type_hints(owner, include_extras=True)[f.name]
    if get_origin(hint) is not Annotated:
        raise TypeError(f"{owner.__name__}.{f.name} states no Limit")
    kind, limit = get_args(hint)
    optional = f.default is not MISSING
    return Field(f.name, f.name.encode(), kind, limit, optional, f.default if optional else None)


def to_wire(value: Any) -> dict[bytes, bencode.BencodeValue]:
    """The dictionary of a message; fields at their default are left out."""
    wire: dict[bytes, bencode.BencodeValue] = {}
    for field in fields_of(type(value)):
        item = getattr(value, field.name)
        if not (field.optional and item == field.default):
            wire[field.key] = _encode(field, item)
    return wire


def from_wire(kind: type[T], wire: bencode.BencodeValue) -> T:
    """A message from its dictionary. Raises ProtocolError for anything not exactly right."""
    if not isinstance(wire, dict):
        raise ProtocolError(Reason.MALFORMED, f"{kind.__name__} is not a dictionary")
    values: dict[str, Any] = {}
    for field in fields_of(kind):
        if field.key in wire:
            values[field.name] = value = _decode(field, wire[field.key], kind)
            if field.optional and value == field.default:  # one message, one encoding
                raise ProtocolError(Reason.MALFORMED, f"{kind.__name__} states the default of {field.name}")
        elif not field.optional:
            raise ProtocolError(Reason.MALFORMED, f"{kind.__name__} lacks {field.name}")
    if len(values) != len(wire):
        raise ProtocolError(Reason.MALFORMED, f"{kind.__name__} has an unknown key")
    return kind(**values)


def _encode(field: Field, item: Any) -> bencode.BencodeValue:
    try:
        return _encode_value(field.kind, field.limit, item)
    except ValueError as error:
        raise LocalError(f"cannot send {field.name}: {error}") from None


def _encode_value(kind: Any, limit: Limit, item: Any) -> bencode.BencodeValue:
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        _check(len(item), limit, "items")
        return [_encode_item(inner, limit, one) for one in item]
    if isinstance(item, StrEnum):
        return item.value.encode()
    if isinstance(item, int):
        _check(int(item), limit, "")
        return int(item)
    raw = item.encode() if isinstance(item, str) else bytes(item)
    _check(len(raw), limit, "bytes")
    if isinstance(item, str):
        _check_text(item)
    return raw


def _encode_item(inner: Any, limit: Limit, item: Any) -> bencode.BencodeValue:
    if inner is int:
        _check(item, Limit(0, (1 << 32) - 1, ""), "")
        return int(item)
    return dict(to_wire(item))


def _decode(field: Field, item: bencode.BencodeValue, owner: type) -> Any:
    try:
        return _decode_value(field.kind, field.limit, item)
    except ValueError as error:
        reason = Reason.TOO_LARGE if isinstance(error, _OverLimit) else Reason.MALFORMED
        raise ProtocolError(reason, f"{owner.__name__}.{field.name}: {error}") from None


def _decode_value(kind: Any, limit: Limit, item: bencode.BencodeValue) -> Any:
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if not isinstance(item, list):
            raise ValueError("not a list")
        _check(len(item), limit, "items")
        return tuple(_decode_item(inner, one) for one in item)
    plain = getattr(kind, "__supertype__", kind)  # NewType
    if plain is bool or issubclass(plain, int):
        return _decode_int(plain, limit, item)
    if not isinstance(item, bytes):
        raise ValueError("not a string")
    _check(len(item), limit, "bytes")
    return item if plain is bytes else _decode_text(plain, item)


def _decode_item(inner: Any, item: bencode.BencodeValue) -> Any:
    if inner is int:
        if not isinstance(item, int):
            raise ValueError("not an integer")
        _check(item, Limit(0, (1 << 32) - 1, ""), "")
        return item
    return from_wire(inner, item)


def _decode_int(plain: Any, limit: Limit, item: bencode.BencodeValue) -> Any:
    if not isinstance(item, int):
        raise ValueError("not an integer")
    _check(item, limit, "")
    if plain is bool:
        return bool(item)
    return plain(item) if issubclass(plain, IntEnum) else item


def _decode_text(plain: Any, item: bytes) -> Any:
    text = item.decode("utf-8")  # UnicodeDecodeError is a ValueError
    _check_text(text)
    return plain(text) if issubclass(plain, StrEnum) else text


def _check(size: int, limit: Limit, unit: str) -> None:
    if not limit.low <= size <= limit.high:
        text = f"{size} {unit} is outside {limit.low}..{limit.high}".replace("  ", " ")
        raise _OverLimit(text) if size > limit.high else ValueError(text)


def _check_text(text: str) -> None:
    # Names end up on operators' screens: no control characters, no terminal escapes.
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
