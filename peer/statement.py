"""The monthly statement: what this peer uploaded, signed by its key, for its user or anybody they show it to.

The file is JSON: `statement`, the figures, and `signature`, which the node's Ed25519 key made over
the statement's canonical text (keys sorted, no spaces, UTF-8). The key is in it and must hash to the
node's id. So it proves what the peer *says*, and that nobody changed it since; not that the peer
counts rightly. For that there is `penstock peer capcheck`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from peer.ledger import Day, Ledger
from shared.core import signing
from shared.core.errors import LocalError
from shared.identity import Identity

DOMAIN = b"penstock upload statement 1\n"
MAX_FILE_BYTES = 4 << 20
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])\Z", re.ASCII)


class Figures(msgspec.Struct):
    """What a statement must at least say, and how."""

    node: str
    key: str
    month: str
    sent_bytes: int
    worst_second_share: float
    worst_ten_seconds_share: float


def check_month(text: str) -> str:
    """A month such as `2026-11`. Raises LocalError."""
    if _MONTH.match(text) is None:
        raise LocalError(f"{text[:80]!r} is not a month; write it such as 2026-11")
    return text


def make(ledger: Ledger, identity: Identity, month: str, made_at: str) -> str:
    """The signed statement of a month, as the text of a file. Raises LocalError."""
    days, names = ledger.month(check_month(month)), ledger.titles()
    statement = {
        "node": identity.id.hex(),
        "key": identity.public_key.hex(),
        "month": month,
        "made_at": made_at,
        "sent_bytes": sum(day.sent_bytes for day in days),
        "worst_second_share": max((day.worst_second for day in days), default=0.0),
        "worst_ten_seconds_share": max((day.worst_ten_seconds for day in days), default=0.0),
        "days": [_day(day) for day in days],
        "titles": _titles(days, names),
    }
    signature = identity.sign(DOMAIN, _canonical(statement)).hex()
    return json.dumps({"statement": statement, "signature": signature}, indent=2, ensure_ascii=False) + "\n"


def verify(text: str) -> dict[str, Any]:
    """The figures of a statement whose signature is good. Raises LocalError that says what is wrong."""
    try:
        document = json.loads(text)
        statement, signature = document["statement"], bytes.fromhex(document["signature"])
        key, node = bytes.fromhex(statement["key"]), bytes.fromhex(statement["node"])
        msgspec.convert(statement, Figures)
        is_own_key = signing.node_id(key) == node
    except msgspec.ValidationError as error:
        raise LocalError(f"this file is no upload statement: {error}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise LocalError("this file is no upload statement") from None
    if not is_own_key:
        raise LocalError("the statement's key is not that of the node it names")
    if not signing.verify(key, DOMAIN, _canonical(statement), signature):
        raise LocalError("the signature does not fit: the statement was changed after it was made")
    return dict(statement)


def read(path: Path) -> str:
    """A statement's file. Raises LocalError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise LocalError(f"{path}: over {MAX_FILE_BYTES} bytes, so no statement")
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise LocalError(f"{path}: cannot be read: {error}") from None


def _day(day: Day) -> dict[str, Any]:
    return {
        "day": day.day,
        "sent_bytes": day.sent_bytes,
        "piece_bytes": sum(day.titles.values()),
        "worst_second_share": day.worst_second,
        "worst_ten_seconds_share": day.worst_ten_seconds,
    }


def _titles(days: list[Day], names: dict[bytes, str]) -> list[dict[str, Any]]:
    total: dict[bytes, int] = {}
    for day in days:
        for infohash, count in day.titles.items():
            total[infohash] = total.get(infohash, 0) + count
    return [
        {"infohash": infohash.hex(), "title": names.get(infohash, ""), "piece_bytes": count}
        for infohash, count in sorted(total.items(), key=lambda item: -item[1])
    ]


def _canonical(statement: Any) -> bytes:
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
