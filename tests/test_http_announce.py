"""Invariant: an announce over HTTP is answered with a bencoded dictionary, whatever the query is, and
nobody is told of an address that did not announce itself."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core import bencode
from shared.core.errors import ProtocolError, Reason, Refused
from tests.test_bep15 import announce as udp_announce
from tests.test_bep15 import answer, proof, told
from tests.test_bep15 import core as udp_core
from tracker.core import http_announce
from tracker.core.http_announce import MAX_PAIRS, MAX_QUERY_BYTES, MAX_SCRAPED
from tracker.core.torrent_peers import MAX_PEERS_OF_ADDRESS
from tracker.core.torrents import CLEARED_AT_ONCE, INTERVAL_SECONDS, TOO_MANY, UNKNOWN, WANTED, Torrents

NOW = 1_800_000_000.0
TORRENT, OTHER = bytes(range(236, 256)), b"%&=+ \0\r\n/" + b"\xff" * 11


def table(*torrents: bytes, max_peers: int = 1000) -> Torrents:
    made = Torrents(max_peers)
    for torrent in torrents or (TORRENT, OTHER):
        made.know(torrent)
    return made


def query(torrent: bytes = TORRENT, **changed: object) -> bytes:
    said = {
        "peer_id": "-XX0000-" + "p" * 12,
        "port": 6881,
        "uploaded": 0,
        "downloaded": 0,
        "left": 1,
        **changed,
    }
    pairs = [f"{name}={value}" for name, value in said.items() if value is not None]
    return "&".join([f"info_hash={quote_from_bytes(torrent)}", *pairs]).encode()


def ask(to: Torrents, raw: bytes, at: str = "198.51.100.1", dice: float = 0.0) -> dict[bytes, Any]:
    """As the portal does it."""
    try:
        said = http_announce.parse_announce(http_announce.parse_query(raw))
        body = http_announce.companions(to.announce(said, http_announce.parse_client(at), NOW, dice))
    except (ProtocolError, Refused) as error:
        body = http_announce.failure(error)
    found = bencode.loads(body)
    assert isinstance(found, dict)
    return found


def scrape(to: Torrents, *torrents: bytes) -> dict[bytes, Any]:
    raw = "&".join(f"info_hash={quote_from_bytes(one)}" for one in torrents).encode()
    body = http_announce.scraped(to.scrape(http_announce.parse_scrape(http_announce.parse_query(raw))))
    found: Any = bencode.loads(body)
    return dict(found[b"files"])


def packed(at: str, port: int) -> bytes:
    return ip_address(at).packed + port.to_bytes(2, "big")


@pytest.mark.parametrize("torrent", [TORRENT, OTHER, bytes(20), b"a" * 20])
def test_any_twenty_bytes_name_a_torrent(torrent: bytes) -> None:
    to = table(torrent)
    said = ask(to, query(torrent, left=0))
    assert said == {
        b"complete": 1,
        b"incomplete": 0,
        b"interval": INTERVAL_SECONDS,
        b"peers": packed("198.51.100.1", 6881),
        b"peers6": b"",
    }


def test_clients_of_both_ip_versions_hear_of_each_other() -> None:
    to = table()
    ask(to, query(port=1), "198.51.100.1")
    ask(to, query(port=2), "::ffff:198.51.100.2")
    said = ask(to, query(port=3, left=0), "2001:db8::1%eth0")
    four = said[b"peers"]
    assert {four[:6], four[6:]} == {packed("198.51.100.1", 1), packed("198.51.100.2", 2)}
    assert said[b"peers6"] == packed("2001:db8::1", 3)
    assert (said[b"complete"], said[b"incomplete"]) == (1, 2)


def test_only_the_source_address_is_believed() -> None:
    to = table()
    foreign: dict[str, Any] = {"ip": "203.0.113.9", "ipv4": "203.0.113.9", "ipv6": "2001:db8::9"}
    said = ask(to, query(**foreign))
    assert (said[b"peers"], said[b"peers6"]) == (packed("198.51.100.1", 6881), b"")


def test_both_doors_share_one_table() -> None:
    udp = udp_core()
    (torrent,) = [one for one in udp.torrents.numbers if one == b"\0" * 20]
    ask(udp.torrents, query(torrent, port=7), "198.51.100.7")
    at = "198.51.100.8"
    (said,) = answer(udp, [(udp_announce(proof(udp, at), 8, torrent=torrent, left=0), at)])
    assert sorted(told(said)[2]) == [packed("198.51.100.7", 7), packed(at, 8)]
    assert scrape(udp.torrents, torrent)[torrent] == {b"complete": 1, b"downloaded": 0, b"incomplete": 1}


def test_events_and_scrapes() -> None:
    to = table()
    ask(to, query(event="started"))
    ask(to, query(event="completed", left=0), "198.51.100.2")
    ask(to, query(event="paused"), "198.51.100.3")
    assert scrape(to, TORRENT, b"?" * 20) == {TORRENT: {b"complete": 1, b"downloaded": 1, b"incomplete": 2}}
    said = ask(to, query(event="stopped", left=0), "198.51.100.2")
    assert (said[b"complete"], said[b"incomplete"], len(said[b"peers"])) == (0, 2, 12)


@pytest.mark.parametrize(
    ("wanted", "told_of"), [(None, WANTED), (-1, WANTED), (0, 0), (5, 5), (10**19, WANTED)]
)
def test_nobody_gets_more_than_a_window(wanted: int | None, told_of: int) -> None:
    to = table()
    for number in range(2 * WANTED):
        ask(to, query(), f"198.51.100.{number + 1}")
    said = ask(to, query(numwant=wanted), "198.51.100.1", dice=0.9)
    peers = {said[b"peers"][at : at + 6] for at in range(0, len(said[b"peers"]), 6)}
    assert len(peers) == told_of


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", b"port is missing"),
        (query(port=0), b"port is not from 1 to 65535"),
        (query(port=65536), b"port is not from 1 to 65535"),
        (query(port=-1), b"port is not a number"),
        (query(port="%EF%BC%91"), b"port is not a number"),
        (query(port="9" * 21), b"port is not a number"),
        (query(left=None), b"left is missing"),
        (query(left="1e9"), b"left is not a number"),
        (query(event="gone"), b"event is none of started, completed, stopped, paused"),
        (query(numwant="many"), b"numwant is not a number"),
        (query() + b"&port=6882", b"port is given twice"),
        (query() + b"&info_hash=" + b"a" * 20, b"info_hash is given twice"),
        (query(b"a" * 19), b"info_hash has 19 bytes, not 20; BEP 52 cuts a v2 infohash to that"),
        (query(b"a" * 32), b"info_hash has 32 bytes, not 20; BEP 52 cuts a v2 infohash to that"),
        (query(b""), b"info_hash has 0 bytes, not 20; BEP 52 cuts a v2 infohash to that"),
        (query(b"?" * 20), UNKNOWN.encode()),
        (b"info_hash=%zz&port=1&left=1", b"the query has a % that two hexadecimal digits do not follow"),
        (query() + b"&x=%1", b"the query has a % that two hexadecimal digits do not follow"),
        (query() + b"&a" * MAX_PAIRS, f"the query has more than {MAX_PAIRS} parameters".encode()),
        (query(x="a" * MAX_QUERY_BYTES), f"the query is over {MAX_QUERY_BYTES} bytes".encode()),
    ],
)
def test_what_is_wrong_is_named(raw: bytes, reason: bytes) -> None:
    to = table()
    assert ask(to, raw) == {b"failure reason": reason}
    assert len(to.four) == len(to.six) == 0


@given(st.binary(max_size=200) | st.lists(st.sampled_from(query().split(b"&"))).map(b"&".join))
def test_any_query_is_answered(raw: bytes) -> None:
    """The answer is a dictionary of companions or of a reason, and never an exception."""
    assert ask(table(), raw).keys() in (
        {b"failure reason"},
        {b"complete", b"incomplete", b"interval", b"peers", b"peers6"},
    )


def test_a_scrape_of_everything_or_of_too_much_is_refused() -> None:
    for torrents, reason in (((), Reason.MALFORMED), ([TORRENT] * (MAX_SCRAPED + 1), Reason.TOO_LARGE)):
        with pytest.raises(ProtocolError) as caught:
            scrape(table(), *torrents)
        assert caught.value.reason is reason


def test_a_crowd_of_one_address_is_refused() -> None:
    to = table()
    for port in range(1, MAX_PEERS_OF_ADDRESS + 1):
        assert b"peers" in ask(to, query(port=port))
    assert ask(to, query(port=65000)) == {b"failure reason": TOO_MANY.encode()}


def test_a_closed_torrent_is_forgotten_with_its_peers() -> None:
    to = table(max_peers=2 * CLEARED_AT_ONCE)
    for number in range(CLEARED_AT_ONCE + 5):
        ask(to, query(), f"198.51.{number // 250}.{number % 250 + 1}")
    ask(to, query(OTHER), "2001:db8::1")
    to.forget(TORRENT)
    assert ask(to, query()) == {b"failure reason": UNKNOWN.encode()}
    assert scrape(to, TORRENT) == {}
    rounds = 0
    while to.clear():
        rounds += 1
    assert 2 <= rounds <= 3, "many peers are let go of in steps"
    assert (len(to.four), len(to.six)) == (0, 1)
    to.know(TORRENT)
    assert ask(to, query(), "198.51.100.1")[b"peers"] == packed("198.51.100.1", 6881)
