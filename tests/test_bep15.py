"""BitTorrent's UDP announce: the same answers one by one and in a batch, and nothing for strangers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from random import Random
from unittest.mock import patch

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.ids import HostPort
from tracker.core import bep15
from tracker.core.bep15 import FEW, Batch, Bep15
from tracker.core.torrent_peers import MAX_PEERS_OF_ADDRESS
from tracker.core.torrents import EXPIRY_SECONDS, INTERVAL_SECONDS, WANTED
from tracker.mmsg import RECEIVE_BYTES, SEND_BYTES
from tracker.torrent_door import open_torrent_door

NOW = 1_800_000_000.0
TORRENTS = [bytes([number]) * 20 for number in range(3)]
STOPPED, COMPLETED = 3, 1
Datagram = tuple[bytes, str]  # and where it comes from


def core(*, max_peers: int = 1000) -> Bep15:
    made = Bep15(b"k" * 16, np.random.default_rng(1).random, max_peers)
    for torrent in TORRENTS:
        made.know(torrent)
    return made


def answer(to: Bep15, datagrams: list[Datagram], now: float = NOW) -> list[bytes]:
    rows = len(datagrams)
    received = np.zeros((rows, RECEIVE_BYTES), np.uint8)
    addresses = np.zeros((rows, 16), np.uint8)
    for row, (data, at) in enumerate(datagrams):
        received[row, : len(data)] = np.frombuffer(data, np.uint8)
        found = ip_address(at)
        mapped = found.packed if found.version == 6 else b"\0" * 10 + b"\xff\xff" + found.packed
        addresses[row] = np.frombuffer(mapped, np.uint8)
    answers, lengths = np.zeros((rows, SEND_BYTES), np.uint8), np.zeros(rows, np.int64)
    sizes = np.array([len(data) for data, _ in datagrams], np.uint32)
    to.answer(Batch(received, sizes, addresses, answers, lengths), now)
    return [answers[row, : lengths[row]].tobytes() for row in range(rows)]


def connect(transaction: int = 7) -> bytes:
    return struct.pack(">QII", 0x41727101980, 0, transaction)


def proof(to: Bep15, at: str, now: float = NOW) -> bytes:
    (said,) = answer(to, [(connect(), at)], now)
    assert said[:8] == struct.pack(">II", 0, 7)
    return said[8:]


def announce(
    proved: bytes, port: int, *, torrent: bytes = TORRENTS[0], left: int = 1, event: int = 0,
    wanted: int = -1, transaction: int = 9,
) -> bytes:  # fmt: skip
    return (
        proved + struct.pack(">II", 1, transaction) + torrent + b"-XX0000-" + b"p" * 12
        + struct.pack(">QQQIIIiH", 0, left, 0, event, 0, 0, wanted, port)
    )  # fmt: skip


def told(said: bytes, width: int = 6) -> tuple[int, int, list[bytes]]:
    action, transaction, interval, leechers, seeders = struct.unpack(">IIIII", said[:20])
    assert (action, transaction, interval) == (1, 9, INTERVAL_SECONDS)
    peers = said[20:]
    assert len(peers) % width == 0
    return leechers, seeders, [peers[at : at + width] for at in range(0, len(peers), width)]


def peer(at: str, port: int) -> bytes:
    return ip_address(at).packed + port.to_bytes(2, "big")


def test_who_announced_is_told_to_the_next() -> None:
    tracker = core()
    one, two = proof(tracker, "198.51.100.1"), proof(tracker, "198.51.100.2")
    answer(tracker, [(announce(one, 6881, left=0), "198.51.100.1")])
    (said,) = answer(tracker, [(announce(two, 6882), "198.51.100.2")])
    assert told(said)[:2] == (1, 1)
    assert sorted(told(said)[2]) == [peer("198.51.100.1", 6881), peer("198.51.100.2", 6882)]


def test_the_two_ip_versions_are_kept_apart() -> None:
    tracker = core()
    four, six = "198.51.100.1", "2001:db8::1"
    answer(tracker, [(announce(proof(tracker, four), 1), four)])
    (said,) = answer(tracker, [(announce(proof(tracker, six), 2), six)])
    assert told(said, width=18) == (1, 0, [peer(six, 2)])


def test_an_id_is_good_for_one_address_and_two_epochs() -> None:
    tracker = core()
    proved = proof(tracker, "198.51.100.1")
    for at, later, ok in (
        ("198.51.100.1", 120, True),
        ("198.51.100.2", 0, False),
        ("198.51.100.1", 240, False),
    ):
        (said,) = answer(tracker, [(announce(proved, 1), at)], NOW + later)
        assert (said[:4] == b"\0\0\0\1") is ok, (at, later)
        if not ok:
            assert said[8:] == b"connect again"


@pytest.mark.parametrize("others", [0, FEW])
def test_strangers_get_no_more_than_they_sent(others: int) -> None:
    """In a small batch and in a large one."""
    tracker = core()
    rng = Random(1)
    forged = [
        (rng.randbytes(size), "203.0.113.9") for size in (0, 1, 15, 16, 17, 97, 98, 150, RECEIVE_BYTES)
    ] + [(connect()[:12] + b"abcd", "203.0.113.9")] * (1 + others)
    for (data, _), said in zip(forged, answer(tracker, forged), strict=True):
        assert len(said) <= len(data)
    assert tracker.statistics().peers == 0


def test_unknown_torrents_and_crowds_of_one_address_are_refused() -> None:
    tracker = core()
    at = "198.51.100.1"
    proved = proof(tracker, at)
    (said,) = answer(tracker, [(announce(proved, 1, torrent=b"?" * 20), at)])
    assert said == struct.pack(">II", 3, 9) + b"unknown torrent"
    crowd = [(announce(proved, 1 + port), at) for port in range(MAX_PEERS_OF_ADDRESS + 1)]
    *welcome, last = answer(tracker, crowd)
    assert {said[:4] for said in welcome} == {b"\0\0\0\1"}
    assert last == struct.pack(">II", 3, 9) + b"too many peers"


def test_the_tracker_takes_no_more_peers_than_it_may() -> None:
    tracker = core(max_peers=3)
    ats = [f"198.51.100.{number}" for number in range(1, 6)]
    said = answer(tracker, [(announce(proof(tracker, at), 1), at) for at in ats])
    assert [one[8:] == b"too many peers" for one in said] == [False] * 3 + [True] * 2


def test_peers_leave_complete_and_fall_silent() -> None:
    tracker = core()
    ats = [f"198.51.100.{number}" for number in range(1, 4)]
    proofs = [proof(tracker, at) for at in ats]
    for proved, at in zip(proofs, ats, strict=True):
        answer(tracker, [(announce(proved, 1), at)])
    answer(tracker, [(announce(proofs[0], 1, event=STOPPED), ats[0])])
    (said,) = answer(tracker, [(announce(proofs[1], 1, left=0, event=COMPLETED), ats[1])])
    assert told(said)[:2] == (1, 1)
    scrape = proofs[1] + struct.pack(">II", 2, 9) + TORRENTS[0] + b"?" * 20
    (said,) = answer(tracker, [(scrape, ats[1])])
    assert said == struct.pack(">IIIIIIII", 2, 9, 1, 1, 1, 0, 0, 0)
    assert tracker.expire(NOW + EXPIRY_SECONDS - 1) == 0
    assert tracker.expire(NOW + EXPIRY_SECONDS + 1) == 2
    assert tracker.statistics().peers == 0


@pytest.mark.parametrize("count", [5, 29, 30, 31, 200])
def test_windows_are_members_without_repetition_and_reach_everybody(count: int) -> None:
    tracker = core()
    ats = [f"198.51.{number // 100}.{number % 100 + 1}" for number in range(count)]
    everybody = {peer(at, 1) for at in ats}
    proofs = [proof(tracker, at) for at in ats]
    crowd = [(announce(proved, 1), at) for proved, at in zip(proofs, ats, strict=True)]
    answer(tracker, crowd)
    seen: set[bytes] = set()
    for batch in ([crowd[0]], crowd, [crowd[0]] * FEW) * 5:
        for said in answer(tracker, batch):
            peers = told(said)[2]
            assert len(peers) == len(set(peers)) == min(WANTED, count)
            seen |= set(peers)
    assert seen == everybody
    (said,) = answer(tracker, [(announce(proofs[0], 1, wanted=2), ats[0])])
    assert len(told(said)[2]) == 2


events = st.tuples(
    st.integers(0, 9), st.integers(0, 2), st.integers(0, 1), st.sampled_from([0, 0, 0, 1, 2, 3])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(events, min_size=1, max_size=2 * FEW), max_size=6))
def test_a_batch_says_what_single_datagrams_would(batches: list[list[tuple[int, int, int, int]]]) -> None:
    """Who is in which torrent never depends on how datagrams were batched."""
    together, alone = core(), core()
    ats = [f"198.51.100.{number}" if number % 3 else f"2001:db8::{number}" for number in range(10)]
    proofs = [proof(together, at) for at in ats]
    for batch in batches:
        last: dict[tuple[int, int], tuple[int, int]] = {}
        for number, torrent, left, event in batch:  # of one peer only one a batch: they may be reordered
            last.setdefault((number, torrent), (left, event))
        datagrams = [
            (announce(proofs[number], 1, torrent=TORRENTS[torrent], left=left, event=event), ats[number])
            for (number, torrent), (left, event) in last.items()
        ]
        with patch.object(bep15, "FEW", 0):
            answer(together, datagrams)
        for datagram in datagrams:
            answer(alone, [datagram])
    scrape = [(proofs[1] + struct.pack(">II", 2, 9) + torrent, ats[1]) for torrent in TORRENTS]
    assert answer(together, scrape) == answer(alone, scrape)
    assert together.statistics().peers == alone.statistics().peers


@contextmanager
def client(host: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        sock.settimeout(5)
        yield sock


@pytest.mark.parametrize(("host", "asker"), [("127.0.0.1", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")])
async def test_over_a_real_socket(host: str, asker: str) -> None:
    async with open_torrent_door(HostPort(host, 0), "tracker.bittorrent") as door:
        door.core.know(TORRENTS[0])
        await trio.to_thread.run_sync(_ask, asker, door.port)


def _ask(host: str, port: int) -> None:
    with client(host) as sock:

        def ask(data: bytes) -> bytes:
            sock.sendto(data, (host, port))
            return sock.recv(2048)

        proved = ask(connect())[8:]
        width = 18 if ":" in host else 6
        for left in (1, 0):
            leechers, seeders, peers = told(ask(announce(proved, 6881, left=left)), width)
            assert (leechers, seeders, peers) == (left, 1 - left, [peer(host, 6881)])
