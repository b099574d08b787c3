"""BitTorrent's doors in several processes: every datagram comes to its torrent's, whoever dies."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from shared.core.errors import Refused
from shared.core.ids import HostPort
from shared.steering import bind_group_by_byte
from tests.test_bep15 import announce, connect
from tracker.core.shards import TORRENT_AT, owner_of
from tracker.core.torrents import TorrentAnnounce, TorrentEvent
from tracker.torrent_crew import TorrentCrew, open_torrent_crew
from tracker.torrent_door import open_torrent_door

ROOT = Path(__file__).parents[1]
LOOPBACK = HostPort("127.0.0.1", 0)
TORRENTS = [bytes([number]) * 20 for number in range(8)]
WORKERS = 2
SECONDS = 20.0
_LEAD = """
import sys, trio
from shared.core.ids import HostPort
from tracker.torrent_crew import open_torrent_crew
async def main():
    async with open_torrent_crew(HostPort("127.0.0.1", 0), "bittorrent", 2, "info") as crew:
        print(*crew.pids(), flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@asynccontextmanager
async def crewed() -> AsyncIterator[TorrentCrew]:
    with trio.fail_after(SECONDS):
        async with open_torrent_crew(LOOPBACK, "bittorrent", WORKERS, "error") as crew:
            await crew.know(TORRENTS)
            await crew.scrape(TORRENTS)  # what was said before it has been heard
            yield crew


def _ask(port: int, datagram: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.sendto(datagram, ("127.0.0.1", port))
        return sock.recv(2048)


async def ask(crew: TorrentCrew, datagram: bytes) -> bytes:
    return await trio.to_thread.run_sync(_ask, crew.port, datagram)


def http(torrent: bytes, port: int) -> TorrentAnnounce:
    return TorrentAnnounce(torrent, port, 1, TorrentEvent.NONE, 30)


async def test_garbage_of_every_length_goes_where_it_is_steered() -> None:
    """Longer than 16 bytes: by the 17th; of 16: by the last; shorter ones to the first socket."""
    sockets = await bind_group_by_byte(LOOPBACK, "bittorrent", TORRENT_AT, 3)
    sent: list[set[bytes]] = [set(), set(), set()]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for length in (0, 1, 8, 15, 16, 17, 36, 98, 1500, 9000):
            for value in range(5):
                datagram = bytes([length % 256]) * min(length, 15) + bytes([value]) * max(0, length - 15)
                sender.sendto(datagram, sockets[0].getsockname())
                sent[value % 3 if length >= 16 else 0].add(datagram)
    for sock, expected in zip(sockets, sent, strict=True):
        came = set()
        with pytest.raises(BlockingIOError):
            while True:
                came.add(sock.recv(65536))
        assert came == expected
        sock.close()


async def test_every_worker_believes_the_ids_of_every_other_and_has_only_its_own_torrents() -> None:
    async with crewed() as crew:
        for transaction in range(WORKERS):  # each answered by another
            proved = (await ask(crew, connect(transaction)))[8:]
            for torrent in TORRENTS:
                said = await ask(crew, announce(proved, 1000 + transaction, torrent=torrent))
                assert said[3] == 1
        assert (await ask(crew, announce(proved, 1, torrent=b"?" * 20)))[8:] == b"unknown torrent"
        done = await crew.done()
        assert [one.door.connects for one in done] == [1] * WORKERS
        assert [one.door.torrents for one in done] == [len(TORRENTS) // WORKERS] * WORKERS
        assert [one.door.peers for one in done] == [len(TORRENTS)] * WORKERS  # two of each torrent
        assert [one.astray for one in done] == [0] * WORKERS


async def test_the_http_door_and_the_udp_door_have_one_table() -> None:
    async with crewed() as crew:
        for torrent in TORRENTS[:2]:
            await crew.announce(http(torrent, 7), bytes([198, 51, 100, 7]))
            proved = (await ask(crew, connect()))[8:]
            said = await ask(crew, announce(proved, 8, torrent=torrent, left=0))
            assert struct.unpack(">II", said[12:20]) == (1, 1)
        found = await crew.scrape([*TORRENTS[:3], b"?" * 20])
        assert {name: (one.seeders, one.leechers) for name, one in found.items()} == {
            TORRENTS[0]: (1, 1), TORRENTS[1]: (1, 1), TORRENTS[2]: (0, 0)
        }  # fmt: skip
        with pytest.raises(Refused, match="unknown torrent"):
            await crew.announce(http(b"?" * 20, 7), bytes(4))


async def test_a_scrape_is_answered_up_to_the_first_torrent_of_another_worker() -> None:
    async with crewed() as crew:
        proved = (await ask(crew, connect()))[8:]
        head = proved + struct.pack(">II", 2, 9)
        for asked, told in (([0, 2, 1, 4], 2), ([1, 0], 1), ([3], 1), ([0, 2, 4, 6], 4)):
            said = await ask(crew, head + b"".join(TORRENTS[number] for number in asked))
            assert said[:8] == struct.pack(">II", 2, 9)
            assert len(said) == 8 + 12 * told


async def test_a_closed_torrent_is_announced_no_more_with_workers_and_without() -> None:
    async with crewed() as crew:
        await crew.know(TORRENTS[:1])
        assert list(await crew.scrape(TORRENTS)) == TORRENTS[:1]
    async with open_torrent_door(LOOPBACK, "bittorrent") as door, trio.open_nursery() as nursery:
        named = set(TORRENTS)
        nursery.start_soon(door.follow, lambda: named)
        for wanted in (TORRENTS, TORRENTS[:1]):
            named.intersection_update(wanted)
            with trio.fail_after(SECONDS):
                while sorted(await door.scrape(TORRENTS)) != wanted:  # noqa: ASYNC110  # nothing tells
                    await trio.sleep(0.05)
        nursery.cancel_scope.cancel()


async def test_a_worker_that_is_killed_is_started_again_and_ids_stay_good() -> None:
    async with crewed() as crew:
        proved = (await ask(crew, connect()))[8:]
        killed, other = crew.pids()
        os.kill(killed, signal.SIGKILL)
        assert (await ask(crew, announce(proved, 1, torrent=TORRENTS[1])))[3] == 1  # meanwhile
        with trio.fail_after(SECONDS):
            while True:
                said = await ask(crew, announce(proved, 1, torrent=TORRENTS[0]))  # waits in the socket
                if said[3] == 1:  # else it was answered before the new one was told
                    break
        assert killed not in crew.pids()
        assert other in crew.pids()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_tracker_however_it_ends(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", _LEAD], stdout=subprocess.PIPE, text=True, cwd=ROOT) as lead:
        assert lead.stdout is not None
        pids = [int(word) for word in lead.stdout.readline().split()]
        assert len(pids) == WORKERS
        lead.send_signal(number)
        lead.wait(SECONDS)
    until = time.monotonic() + SECONDS
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_owner_is_that_of_sealed_datagrams_too() -> None:
    assert [owner_of(bytes([first]) + bytes(19), 3) for first in (0, 1, 2, 3, 255)] == [0, 1, 2, 0, 0]
