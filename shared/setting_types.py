"""What a setting may be, how its text is read, and how its value and limits are shown.

Beside text, numbers, booleans, enums and lists: `Rate`, `Uplink`, `Size` and `Duration` with
their units, `HoursText`, `Path`, `HostPortText` and `AddressText`. In a file these are strings in quotes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from shared.core.errors import LocalError
from shared.core.ids import parse_addresses, parse_host_port
from shared.core.units import (
    Duration,
    Rate,
    Size,
    Uplink,
    format_duration,
    format_rate,
    format_size,
    format_uplink,
    parse_duration,
    parse_hours,
    parse_rate,
    parse_size,
    parse_uplink,
)


class LogLevel(StrEnum):
    """How much the log says."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class HostPortText(str):
    """`host:port` or `[ipv6]:port`, checked; `parse_host_port` takes it apart."""


class AddressText(str):
    """One `penstock://ID@host:port`, or several with commas between, checked; `parse_addresses`
    takes it apart."""


class HoursText(str):
    """A stretch of every day such as `22:00-07:00`, checked; `parse_hours` takes it apart."""


def convert(value: Any, kind: Any, *, is_text: bool) -> Any:
    """`value` as a `kind` (a field's annotation). `is_text`: numbers, booleans and lists
    (separated by commas) may be written as text, as in the environment and in flags.

    Raises LocalError with what was expected.
    """
    if is_text and _takes_list(kind):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        converted = msgspec.convert(value, kind, strict=not is_text, dec_hook=_parse_custom)
    except msgspec.ValidationError as error:
        raise LocalError(_in_words(error, kind, value)) from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise LocalError("expected a finite number")
    return converted


def show(value: Any) -> str:
    """A value as TOML: `"10 Mbit/s"`, `true`, `["a", "b"]`.

    Raises ValueError for a value that its own text cannot give back.
    """
    if isinstance(value, list | tuple):
        return f"[{', '.join(show(item) for item in value)}]"
    if isinstance(value, Enum):
        return show(value.value)
    if type(value) in _FORMATS:
        return _quoted(_exact(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, int | float) else _quoted(str(value))


def limits_of(kind: Any) -> str:
    """The allowed values of a field's annotation in words, or nothing when all are allowed."""
    plain = _plain(inspect.type_info(kind))
    if isinstance(plain, inspect.EnumType):
        return ", ".join(show(member) for member in plain.cls)
    if not isinstance(plain, inspect.IntType | inspect.FloatType):
        return ""
    bounds = (("at least", plain.ge), ("above", plain.gt), ("at most", plain.le), ("below", plain.lt))
    return ", ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)


def examples_of(kind: Any) -> list[Any]:
    """The examples that the annotation's `Meta` gives."""
    return list(_schema(kind).get("examples", ()))


def description_of(kind: Any) -> str:
    """What the setting means, from the annotation's `Meta`; empty if nobody wrote it."""
    return str(_schema(kind).get("description", ""))


def _schema(kind: Any) -> dict[str, Any]:
    known = inspect.type_info(kind)
    return (known.extra_json_schema or {}) if isinstance(known, inspect.Metadata) else {}


def _plain(kind: inspect.Type) -> inspect.Type:
    """The type itself, without its `Meta` and without `| None`."""
    if isinstance(kind, inspect.Metadata):
        return _plain(kind.type)
    if isinstance(kind, inspect.UnionType):
        rest = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return _plain(rest[0]) if len(rest) == 1 else kind
    return kind


def _takes_list(kind: Any) -> bool:
    return isinstance(_plain(inspect.type_info(kind)), inspect.ListType | inspect.VarTupleType)


def _in_words(error: msgspec.ValidationError, kind: Any, value: Any) -> str:
    """msgspec's text, and for an enum the allowed values."""
    plain = _plain(inspect.type_info(kind))
    if not isinstance(plain, inspect.EnumType):
        return str(error).replace("`", "").replace("array", "list").replace(" - at $", " at ")
    allowed = [str(member.value) for member in plain.cls]
    close = get_close_matches(str(value), allowed, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{str(value)[:80]!r} is not known; {hint}allowed: {', '.join(allowed)}"


def _parse_custom(kind: type, value: Any) -> Any:
    parse = _PARSERS.get(kind)
    if parse is None:
        raise NotImplementedError(f"a setting cannot be a {kind.__name__}")
    if isinstance(value, kind):  # a flag that was parsed already
        return value
    if not isinstance(value, str):
        raise ValueError(f"expected text in quotes, got {type(value).__name__}")
    try:
        return parse(value)
    except LocalError as error:
        raise ValueError(str(error)) from None


def _parse_path(text: str) -> Path:
    if not text or "\0" in text:
        raise LocalError(f"{text[:80]!r} is not a path")
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~ of a user without a home
        raise LocalError(f"{text[:80]!r}: nobody's home stands for ~ here; write the whole path") from None


def _parse_host_port(text: str) -> HostPortText:
    parse_host_port(text)
    return HostPortText(text)


def _parse_hours(text: str) -> HoursText:
    parse_hours(text)
    return HoursText(text)


def _parse_address(text: str) -> AddressText:
    return AddressText(",".join(map(str, parse_addresses(text))))


_PARSERS: Mapping[type, Callable[[str], Any]] = {
    Rate: parse_rate,
    Uplink: parse_uplink,
    Size: parse_size,
    Duration: parse_duration,
    Path: _parse_path,
    HoursText: _parse_hours,
    HostPortText: _parse_host_port,
    AddressText: _parse_address,
}
_FORMATS: Mapping[type, Callable[[Any], str]] = {
    Rate: format_rate,
    Uplink: format_uplink,
    Size: format_size,
    Duration: format_duration,
}


def _exact(value: Any) -> str:
    text = _FORMATS[type(value)](value)
    if _PARSERS[type(value)](text) != value:
        raise ValueError(f"{value!r} has no short exact text ({text}); choose a rounder default")
    return text


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's, except that TOML also escapes DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
