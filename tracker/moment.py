"""Moments as people write them: 2026-12-24T20:00, with or without a time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from shared.core.errors import ConfigError

_FORM = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(?P<zone>Z|[+-]\d\d:\d\d)?\Z", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment, and how to say it."""

    at: float  # seconds since 1970
    said: str  # with the time zone that was meant


def parse_moment(text: str, flag: str, now: float) -> Moment:
    """A moment that is still to come; without a zone, in this machine's local time.

    Raises ConfigError that names the flag.
    """
    match = _FORM.match(text.strip()[:80])
    if match is None:
        raise ConfigError(
            f"{flag}: {text[:80]!r} is not a moment; write it such as 2026-12-24T20:00 (local time) "
            "or 2026-12-24T20:00+01:00"
        )
    try:
        given = datetime.fromisoformat(text.strip().upper())
        moment = given.astimezone() if match["zone"] is None else given
        at = moment.timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise ConfigError(f"{flag}: {text[:80]!r} is not a moment: {error}") from None
    if match["zone"] is None and moment.replace(tzinfo=None) != given:
        raise ConfigError(f"{flag}: {text[:80]!r} does not exist in local time: clocks are changed then")
    said = f"{moment:%Y-%m-%d %H:%M:%S}" if moment.second else f"{moment:%Y-%m-%d %H:%M}"
    if match["zone"] is None:
        said += f" local time ({moment:%Z}, UTC{_offset(moment)})"
    else:
        said += f" UTC{_offset(moment)}"
    if at <= now:
        raise ConfigError(f"{flag}: {said} is past; name a moment to come")
    return Moment(at, said)


def _offset(moment: datetime) -> str:
    text = f"{moment:%z}"
    return f"{text[:3]}:{text[3:5]}"


def local(at: float) -> str:
    """A moment in this machine's local time, for tables."""
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M %Z}"
