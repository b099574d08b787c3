"""Rates, sizes and spans of time as people write them: `10 Mbit/s`, `512 MiB`, `15 min`.

A number without its unit is refused: bits and bytes differ by eight, and a wrong uplink is a
broken promise to the household. Bits are `bit`, bytes are `B`; `Mb` and `Mbps` are refused
because half of their writers mean the other one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from shared.core.errors import LocalError


class Rate(float):
    """Bytes per second."""


class Uplink(float):
    """Bytes per second that a line can upload; 0: nobody said, so it is to be found out."""

    is_measured = False  # found out by trains of bytes as well


class Size(int):
    """Bytes."""


class Duration(float):
    """Seconds."""


ESTIMATE, MEASURE = "estimate", "measure"

_DECIMAL = (("k", 10**3), ("M", 10**6), ("G", 10**9), ("T", 10**12))
_BINARY = (("Ki", 2**10), ("Mi", 2**20), ("Gi", 2**30), ("Ti", 2**40))

_SIZES: Mapping[str, Fraction] = MappingProxyType(
    {"B": Fraction(1)} | {f"{prefix}B": Fraction(n) for prefix, n in _DECIMAL + _BINARY}
)
_RATES: Mapping[str, Fraction] = MappingProxyType(
    {"bit/s": Fraction(1, 8)}
    | {f"{prefix}bit/s": Fraction(n, 8) for prefix, n in _DECIMAL}
    | {f"{unit}/s": n for unit, n in _SIZES.items()}
)
_DURATIONS: Mapping[str, Fraction] = MappingProxyType(
    {"ms": Fraction(1, 1000)}
    | {name: Fraction(n) for name, n in (("s", 1), ("min", 60), ("h", 3600), ("d", 86400))}
)

# Beyond these a setting is a slip of the pen, not a wish.
MAX_RATE = Fraction(10**12, 8)  # 1 Tbit/s
MAX_SIZE = Fraction(10**17)  # 100 PB
MAX_DURATION = Fraction(10 * 365 * 86400)  # ten years

_QUANTITY = re.compile(
    r"\s*(?P<number>[0-9]{1,18}(?:\.[0-9]{1,9})?)\s*(?P<unit>[A-Za-z/]{1,12})\s*\Z", re.ASCII
)
_HOURS = re.compile(
    r"\s*(?P<h1>[01]?\d|2[0-3]):(?P<m1>[0-5]\d)\s*-\s*(?P<h2>[01]?\d|2[0-3]):(?P<m2>[0-5]\d)\s*\Z", re.ASCII
)


def parse_rate(text: str) -> Rate:
    """`10 Mbit/s`, `500 kbit/s` or `1.5 MB/s` as bytes per second, above 0 and up to 1 Tbit/s.

    Raises LocalError that names the units.
    """
    value = _parse(text, "a rate", "10 Mbit/s", _RATES)
    return Rate(_bounded(value, text, MAX_RATE, "1 Tbit/s"))


def parse_uplink(text: str) -> Uplink:
    """A rate, or `estimate` or `measure` when nobody knows it. Raises LocalError that names the units."""
    word = text.strip().lower()
    if word in (ESTIMATE, MEASURE):
        uplink = Uplink(0.0)
        uplink.is_measured = word == MEASURE
        return uplink
    try:
        return Uplink(parse_rate(text))
    except LocalError as error:
        raise LocalError(f"{error}; or {ESTIMATE!r} or {MEASURE!r} if you do not know it") from None


def parse_size(text: str) -> Size:
    """`10 GB` or `512 MiB` as whole bytes, at least 1 and up to 100 PB.

    Raises LocalError that names the units.
    """
    value = _bounded(_parse(text, "a size", "10 GB", _SIZES), text, MAX_SIZE, "100 PB")
    if value.denominator != 1:
        raise LocalError(f"{text[:80]!r} is not a whole number of bytes")
    return Size(value)


def parse_duration(text: str) -> Duration:
    """`250 ms`, `90 s`, `15 min`, `2 h` or `7 d` as seconds, above 0 and up to ten years.

    Raises LocalError that names the units.
    """
    value = _parse(text, "a span of time", "15 min", _DURATIONS)
    return Duration(_bounded(value, text, MAX_DURATION, "ten years"))


def parse_hours(text: str) -> tuple[float, float]:
    """`22:00-07:00` as the seconds of the day at which it begins and ends; it may pass midnight.

    Raises LocalError for anything else, and for a stretch of no length.
    """
    match = _HOURS.match(text[:80])
    if match is None:
        raise LocalError(f"{text[:80]!r} is not a stretch of the day; write it such as '22:00-07:00'")
    begin, end = (3600.0 * int(match[h]) + 60.0 * int(match[m]) for h, m in (("h1", "m1"), ("h2", "m2")))
    if begin == end:
        raise LocalError(f'{text[:80]!r} begins when it ends; for the whole day use mode = "direct"')
    return begin, end


def format_rate(rate: float) -> str:
    """Bytes per second in bits, as short as it can be read back: `10 Mbit/s`."""
    return _format(Fraction(rate), _RATES, ("Tbit/s", "Gbit/s", "Mbit/s", "kbit/s", "bit/s"))


def format_uplink(rate: float) -> str:
    """`10 Mbit/s`, `estimate` or `measure`."""
    if rate:
        return format_rate(rate)
    return MEASURE if isinstance(rate, Uplink) and rate.is_measured else ESTIMATE


def format_size(size: int) -> str:
    """Bytes in the largest unit that keeps them whole: `10 GB`, `512 MiB`."""
    if size == 0:
        return "0 B"
    whole = (unit for unit in _SIZES if size % _SIZES[unit] == 0)
    unit = max(whole, key=lambda unit: _SIZES[unit])
    return f"{size // int(_SIZES[unit])} {unit}"


def format_duration(seconds: float) -> str:
    """Seconds in the unit that reads best: `15 min`."""
    return _format(Fraction(seconds), _DURATIONS, ("d", "h", "min", "s", "ms"))


def _parse(text: str, what: str, example: str, units: Mapping[str, Fraction]) -> Fraction:
    match = _QUANTITY.match(text[:80])
    if match is None:
        raise LocalError(f"{text[:80]!r} is not {what}; write a number and its unit, such as {example!r}")
    factor = units.get(match["unit"], _folded(units).get(match["unit"].lower()))
    if factor is None:
        allowed = ", ".join(units)
        raise LocalError(f"{text[:80]!r} has an unknown unit; {what} ends in one of {allowed}")
    return Fraction(match["number"]) * factor


def _folded(units: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Units that are clear in any case; `b` alone is not, since it may mean bit or byte."""
    return {unit.lower(): n for unit, n in units.items() if "bit" in unit or "B" not in unit}


def _bounded(value: Fraction, text: str, limit: Fraction, limit_text: str) -> Fraction:
    if not 0 < value <= limit:
        raise LocalError(f"{text[:80]!r} is out of range; it must be above 0 and at most {limit_text}")
    return value


def _format(value: Fraction, units: Mapping[str, Fraction], descending: tuple[str, ...]) -> str:
    """The largest unit that shows a whole number, else the largest with at least 1 before the point."""
    whole = next((unit for unit in descending if value and value % units[unit] == 0), None)
    unit = whole or next((unit for unit in descending if value >= units[unit]), descending[-1])
    number = value / units[unit]
    return f"{number.numerator if number.denominator == 1 else round(float(number), 3)} {unit}"
