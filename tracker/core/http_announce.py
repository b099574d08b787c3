"""BitTorrent's HTTP tracker protocol: announces (BEP 3) in compact form (BEP 23, BEP 7) and scrapes (BEP 48).

    /announce?info_hash=(20 bytes)&port=N&left=N[&event=][&numwant=N]... -> interval, complete,
              incomplete, peers (6 bytes each), peers6 (18 bytes each)
    /scrape?info_hash=...&info_hash=...   -> files: complete, downloaded, incomplete by info_hash
    an error                              -> failure reason

A query is bytes, not text: an info_hash is any 20 bytes, percent-encoded. What we do not read (`ip`,
`peer_id`, `uploaded`, `key`) is passed over: announces are for the address they come from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from urllib.parse import unquote_to_bytes

from shared.core import bencode
from shared.core.bencode import Encodable
from shared.core.errors import ProtocolError, Reason, Refused
from shared.core.strict import malformed
from tracker.core.torrent_peers import HASH_BYTES
from tracker.core.torrents import (
    INTERVAL_SECONDS,
    WANTED,
    Companions,
    TorrentAnnounce,
    TorrentCounts,
    TorrentEvent,
)

MAX_QUERY_BYTES = 4096
MAX_PAIRS = 64
MAX_SCRAPED = 50

_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NUMBER = re.compile(rb"[0-9]{1,20}\Z")
_COUNT = re.compile(rb"-?[0-9]{1,20}\Z")
_EVENTS = {event.encode(): event for event in TorrentEvent}

Query = dict[bytes, list[bytes]]


def parse_query(raw: bytes) -> Query:
    """Values by name, in their order. Raises ProtocolError: TOO_LARGE, MALFORMED."""
    if len(raw) > MAX_QUERY_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"the query is over {MAX_QUERY_BYTES} bytes")
    pairs = raw.split(b"&", MAX_PAIRS)
    if len(pairs) > MAX_PAIRS:
        raise ProtocolError(Reason.TOO_LARGE, f"the query has more than {MAX_PAIRS} parameters")
    if _BAD_PERCENT.search(raw):
        malformed("the query has a % that two hexadecimal digits do not follow")
    found: Query = {}
    for pair in pairs:
        name, _, value = pair.partition(b"=")
        if name:
            found.setdefault(unquote_to_bytes(name), []).append(unquote_to_bytes(value))
    return found


def parse_announce(query: Query) -> TorrentAnnounce:
    """What an announce says. Raises ProtocolError(MALFORMED) that names the parameter."""
    port = _int(query, b"port")
    if not 1 <= port <= 65535:
        malformed("port is not from 1 to 65535")
    said = _one(query, b"event") or b""
    if said not in _EVENTS:
        malformed("event is none of started, completed, stopped, paused")
    torrent, left = _hash(_needed(query, b"info_hash")), _int(query, b"left")
    return TorrentAnnounce(torrent, port, left, _EVENTS[said], _wanted(query))


def parse_scrape(query: Query) -> list[bytes]:
    """The torrents that are asked for. Raises ProtocolError, also when all are."""
    asked = query.get(b"info_hash", [])
    if not asked:
        malformed("info_hash is missing: ask for up to 50 torrents")
    if len(asked) > MAX_SCRAPED:
        raise ProtocolError(Reason.TOO_LARGE, f"more than {MAX_SCRAPED} torrents in a scrape")
    return [_hash(one) for one in asked]


def parse_client(host: str) -> bytes:
    """The 4 or 16 bytes of the address that a request came from. Raises ValueError."""
    found = ip_address(host.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).packed


def companions(answer: Companions) -> bytes:
    """The body of the answer to an announce."""
    return bencode.dumps(
        {
            b"complete": answer.seeders,
            b"incomplete": answer.leechers,
            b"interval": INTERVAL_SECONDS,
            b"peers": answer.four,
            b"peers6": answer.six,
        }
    )


def scraped(found: Mapping[bytes, TorrentCounts]) -> bytes:
    """The body of the answer to a scrape; torrents that are not announced here are left out."""
    files: dict[bytes, Encodable] = {
        torrent: {
            b"complete": counts.seeders,
            b"downloaded": counts.completed,
            b"incomplete": counts.leechers,
        }
        for torrent, counts in found.items()
    }
    return bencode.dumps({b"files": files})


def failure(error: ProtocolError | Refused) -> bytes:
    """The body of an answer that is none."""
    return bencode.dumps({b"failure reason": (error.detail or str(error)).encode()})


def _one(query: Query, name: bytes) -> bytes | None:
    values = query.get(name, [])
    if len(values) > 1:
        malformed(f"{name.decode()} is given twice")
    return values[0] if values else None


def _needed(query: Query, name: bytes) -> bytes:
    value = _one(query, name)
    if value is None:
        malformed(f"{name.decode()} is missing")
    return value


def _int(query: Query, name: bytes) -> int:
    value = _needed(query, name)
    if not _NUMBER.match(value):
        malformed(f"{name.decode()} is not a number")
    return int(value)


def _hash(value: bytes) -> bytes:
    if len(value) != HASH_BYTES:
        malformed(f"info_hash has {len(value)} bytes, not {HASH_BYTES}; BEP 52 cuts a v2 infohash to that")
    return value


def _wanted(query: Query) -> int:
    value = _one(query, b"numwant") or b"-1"
    if not _COUNT.match(value):
        malformed("numwant is not a number")
    return WANTED if int(value) < 0 else min(int(value), WANTED)
