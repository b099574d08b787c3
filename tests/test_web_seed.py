"""The edge's HTTP door: what is for everybody, byte for byte, and nothing else, whoever asks however."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import randrange
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest
import trio

import tracker.server
from edge import web_seed
from edge.config import EdgeConfig
from edge.core.open_renditions import CLOSED_SECONDS, OpenRenditions
from shared.core import bencode
from shared.core.errors import LocalError, Reason
from shared.core.ids import InfoHash
from shared.core.messages import IsOpen, Refusal
from shared.core.units import Rate
from shared.file_response import PART_BYTES
from shared.setting_types import HostPortText
from tests.node_parts import House, Published, open_house, published_once
from tracker.core import open_titles
from tracker.core.tracker import Tracker


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tracker]]:
    """The cores of trackers that a test starts, to close titles in them."""
    made: list[Tracker] = []

    def make(*arguments: Any) -> Tracker:
        made.append(Tracker(*arguments))
        return made[-1]

    monkeypatch.setattr(tracker.server, "Tracker", make)
    yield made


@dataclass(slots=True)
class Doors:
    """A house whose doors for stock clients are open."""

    house: House
    film: Published
    client: httpx2.AsyncClient
    seed: str = ""  # the film's URL at the edge

    @property
    def at(self) -> str:
        return f"http://{self.house.tracker.ready.bittorrent}"

    async def torrent(self) -> dict[bytes, Any]:
        """The film's .torrent, as soon as there is one that names the edge."""
        while True:
            answer = await self.client.get(f"{self.at}/torrents/{self.film.infohash.hex()}.torrent")
            if answer.status_code == 200:
                found: Any = bencode.loads(answer.content, max_bytes=1 << 22)
                if found[b"url-list"]:
                    return dict(found)
            await trio.sleep(0.05)

    async def get(self, spec: str | None = None, path: str = "", **headers: str) -> httpx2.Response:
        if spec is not None:
            headers["Range"] = spec
        return await self.client.get(path or self.seed, headers=headers)


@asynccontextmanager
async def doors(folder: Path, film: Published, **edge: Any) -> AsyncIterator[Doors]:
    async with (
        open_house(folder, film, bittorrent=free(), http=free(), **edge) as house,
        httpx2.AsyncClient(trust_env=False, timeout=20) as client,
    ):
        made = Doors(house, film, client)
        (url,) = (await made.torrent())[b"url-list"]
        made.seed = url.decode() + quote(film.manifest.name)
        yield made


STREAM, DATAGRAMS = socket.SOCK_STREAM, socket.SOCK_DGRAM


def free(host: str = "127.0.0.1") -> HostPortText:
    """An address whose port is free for TCP and UDP alike, and is given to no outgoing connection."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = randrange(20_000, 32_000)
        with (
            socket.socket(family, socket.SOCK_STREAM) as tcp,
            socket.socket(family, socket.SOCK_DGRAM) as udp,
        ):
            try:
                tcp.bind((host.strip("[]"), port))
                udp.bind((host.strip("[]"), port))
            except OSError:
                continue
        return HostPortText(f"{host}:{port}")


async def once_said(client: httpx2.AsyncClient, url: str) -> httpx2.Response:
    """The answer when the tracker has said whether the film is for everybody."""
    while True:
        answer = await client.get(url)
        if answer.status_code != 503:
            return answer
        await trio.sleep(0.05)


def raw_request(seed: str) -> socket.socket:
    """A connection that has asked for the whole file and takes almost nothing of it."""
    at = urlsplit(seed)
    sock = socket.create_connection((at.hostname or "", at.port or 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.sendall(f"GET {at.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return sock


async def test_the_torrent_is_the_manifest_with_doors(tmp_path: Path, film: Published) -> None:
    async with doors(tmp_path, film) as there:
        torrent = await there.torrent()
        ours: Any = bencode.loads(film.manifest.raw, max_bytes=1 << 22)
        assert torrent[b"info"] == ours[b"info"]
        assert torrent[b"piece layers"] == ours[b"piece layers"]
        at = there.at.removeprefix("http://")
        assert torrent[b"announce-list"] == [
            [f"udp://{at}/announce".encode()],
            [f"{there.at}/announce".encode()],
        ]
        assert urlsplit(there.seed).path == f"/seed/{film.infohash.hex()}/{film.manifest.name}"


async def test_one_port_answers_both_ip_versions_over_tcp(tmp_path: Path, film: Published) -> None:
    """Each client is told of both, and the .torrent names the address that its asker came to."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    six, four = "[::1]", "127.0.0.1"
    async with (
        open_house(tmp_path, film, bittorrent=free("[::]")) as house,
        httpx2.AsyncClient(trust_env=False, timeout=20) as client,
    ):
        assert house.tracker.ready.bittorrent is not None
        port = house.tracker.ready.bittorrent.port
        asked = f"announce?info_hash={quote(film.infohash[:20])}&left=1&ip=192.0.2.1&port="
        await client.get(f"http://{six}:{port}/{asked}66")
        told: Any = bencode.loads((await client.get(f"http://{four}:{port}/{asked}44")).content)
        assert told[b"peers"] == bytes([127, 0, 0, 1, 0, 44])
        assert told[b"peers6"] == bytes(15) + bytes([1, 0, 66])
        for host in (six, four):
            path = f"torrents/{film.infohash.hex()}.torrent"
            while (answer := await client.get(f"http://{host}:{port}/{path}")).status_code != 200:  # noqa: ASYNC110
                await trio.sleep(0.05)  # until the edge is there
            torrent: Any = bencode.loads(answer.content, max_bytes=1 << 22)
            assert torrent[b"announce"] == f"udp://{host}:{port}/announce".encode()
            assert torrent[b"url-list"] == [], "the edge has no door"


async def test_ranges_are_exact(tmp_path: Path, film: Published) -> None:
    size, piece = len(film.data), film.manifest.piece_length
    async with doors(tmp_path, film) as there:
        whole = await there.get()
        assert (whole.status_code, whole.content) == (200, film.data)
        for spec, start, end in (
            ("bytes=0-0", 0, 1),
            (f"bytes={piece - 5}-{piece + 4}", piece - 5, piece + 5),
            (f"bytes={size - 3}-", size - 3, size),
            ("bytes=-7", size - 7, size),
            (f"bytes=5-{10**19}", 5, size),
        ):
            answer = await there.get(spec)
            assert (answer.status_code, answer.content) == (206, film.data[start:end]), spec
            assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
            assert answer.headers["content-length"] == str(end - start)
        head = await there.client.head(there.seed)
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")
        etag = head.headers["etag"]
        assert (await there.get(**{"If-None-Match": etag})).status_code == 304
        assert (await there.get("bytes=0-9", **{"If-Range": '"another"'})).status_code == 200


async def test_absurd_ranges(tmp_path: Path, film: Published) -> None:
    size = len(film.data)
    async with doors(tmp_path, film) as there:
        for spec in (f"bytes={size}-", f"bytes={10**19}-", "bytes=-0"):
            answer = await there.get(spec)
            assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}"), spec
        many = ",".join(f"{at}-{at}" for at in range(1000))
        for spec in (
            "bytes=9-3",
            "bytes=a-b",
            f"bytes=0-{'9' * 25}",
            "lines=0-1",
            f"bytes={many}",
            "bytes=--1",
        ):
            answer = await there.get(spec)
            assert (answer.status_code, len(answer.content)) == (200, size), spec


async def test_paths_that_are_not_ours_are_not_found(tmp_path: Path, film: Published) -> None:
    name, infohash = film.manifest.name, film.infohash.hex()
    async with doors(tmp_path, film) as there:
        root = there.seed.partition("/seed/")[0]
        for path in (
            "/", "/seed/", f"/seed/{infohash}", f"/seed/{infohash}/", f"/seed/{infohash}/other.mp4",
            f"/seed/{infohash[:-1]}/{name}", f"/seed/{infohash}0/{name}", f"/seed/{'g' * 64}/{name}",
            f"/seed/{'0' * 64}/{name}", f"/seed/{infohash}/..%2f{name}", f"/seed/{infohash}/%2f{name}",
            f"/seed/{infohash}/{name}%00", f"/seed/{infohash}/{'a' * 8000}",
            "/api/v1/overview", "/healthz",
        ):  # fmt: skip
            assert (await there.get(path=root + path)).status_code == 404, path
        for garbage in ("%ff%fe", "%zz", "%"):
            assert (await there.get(path=f"{root}/seed/{infohash}/{garbage}")).status_code == 400
        names = ("0" * 64, "0" * 32, "g" * 32, "", "a" * 5000, "..%2f" + infohash)
        for path in (
            "/",
            "/api/v1/overview",
            "/api/v1/nodes",
            "/healthz",
            *(f"/torrents/{name}.torrent" for name in names),
        ):
            assert (await there.get(path=there.at + path)).status_code == 404, path
        assert (await there.client.post(there.seed)).status_code == 405
        flood = {f"X-{number}": "y" * 500 for number in range(400)}
        assert (await there.get(path=there.seed, **flood)).status_code == 431
        assert (await there.get("bytes=0-4")).content == film.data[:5]


async def test_a_title_that_is_closed_leaves_the_doors(
    tmp_path: Path, film: Published, cores: list[Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_titles, "OPEN_SECONDS", 1)
    async with doors(tmp_path, film, http_rate=len(film.data) / 3) as there:
        with pytest.raises(httpx2.RemoteProtocolError):  # cut while it is on its way
            async with there.client.stream("GET", there.seed) as answer:
                received = 0
                async for part in answer.aiter_raw():
                    received += len(part)
                    cores[0].groups.keep(film.manifest.title_id, ["family"])
        assert 0 < received < len(film.data)
        assert (await there.get()).status_code == 404
        assert (await there.get(path=f"{there.at}/torrents/{film.infohash.hex()}.torrent")).status_code == 404


async def test_a_title_kept_to_groups_never_comes_to_the_doors(
    tmp_path: Path, film: Published, cores: list[Tracker]
) -> None:
    async with doors(tmp_path, film) as there:
        await there.house.edge.stop()
        cores[0].groups.keep(film.manifest.title_id, [])
        port = urlsplit(there.seed).port
        await there.house.start_edge(http=f"127.0.0.1:{port}")
        answer = await once_said(there.client, there.seed)
        assert (answer.status_code, answer.text) == (404, f"{web_seed.NOT_HERE}\n")


async def test_without_the_tracker_nothing_is_given(tmp_path: Path, film: Published) -> None:
    async with doors(tmp_path, film) as there:
        port = urlsplit(there.seed).port
        await there.house.edge.stop()
        await there.house.tracker.stop()
        await there.house.start_edge(http=f"127.0.0.1:{port}")
        answer = await there.get()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, str(web_seed.RETRY_SECONDS))


async def test_a_tracker_without_the_setting_opens_nothing(tmp_path: Path, film: Published) -> None:
    async with (
        open_house(tmp_path, film, http=(at := free())) as house,
        httpx2.AsyncClient(trust_env=False, timeout=20) as client,
    ):
        assert house.tracker.ready.bittorrent is None
        url = f"http://{at}/seed/{film.infohash.hex()}/{film.manifest.name}"
        assert (await once_said(client, url)).status_code == 404


async def test_slow_readers_and_crowds_cost_only_themselves(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_seed, "STALLED_SECONDS", 1.0)
    monkeypatch.setattr(web_seed, "MAX_OF_ADDRESS", 3)
    async with doors(tmp_path, film) as there:
        await there.client.aclose()
        slow = [await trio.to_thread.run_sync(raw_request, there.seed) for _ in range(3)]
        fourth = await trio.to_thread.run_sync(raw_request, there.seed)
        assert await trio.to_thread.run_sync(_end_of, fourth) == 0, "closed without a word"
        async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
            while True:  # as soon as those who stalled were cut off
                try:
                    answer = await client.get(there.seed)
                    break
                except httpx2.HTTPError:
                    await trio.sleep(0.1)
        assert answer.content == film.data
        for sock in slow:
            sock.close()


def _end_of(sock: socket.socket) -> int:
    sock.settimeout(10)
    with sock:
        try:
            return len(sock.recv(1000))
        except ConnectionError:
            return 0


async def test_what_clients_take_is_counted(tmp_path: Path, film: Published, cores: list[Tracker]) -> None:
    async with doors(tmp_path, film) as there:
        assert (await there.get()).content == film.data
        assert (await there.get("bytes=0-99")).status_code == 206
        edge = there.house.edge.ready.address.node
        with trio.fail_after(20):
            while (report := cores[0].nodes[edge].report) is None or not report.uploaded_bytes:  # noqa: ASYNC110
                await trio.sleep(0.1)  # what another node says has no event to wait for
        assert report.uploaded_bytes == len(film.data) + 100
        assert report.up_rate > 0


async def test_the_lead_of_an_edge_with_workers_serves_it(tmp_path: Path, film: Published) -> None:
    async with doors(tmp_path, film, workers=2) as there:
        assert (await there.get()).content == film.data


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(LocalError, match="http_rate: must be more than 0"):
        EdgeConfig(http_rate=Rate(0))


async def test_clients_share_a_rate(tmp_path: Path, film: Published) -> None:
    """What two clients took together is within the rate and its burst, and neither has much more."""
    rate = len(film.data) / 2
    burst = max(2 * PART_BYTES, rate / 10)
    async with doors(tmp_path, film, http_rate=rate) as there:
        taken = [0, 0]
        began = trio.current_time()

        async def take(number: int) -> None:
            async with there.client.stream("GET", there.seed) as answer:
                async for part in answer.aiter_raw():
                    taken[number] += len(part)

        with trio.move_on_after(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(take, 0)
                nursery.start_soon(take, 1)
        passed = trio.current_time() - began
        assert sum(taken) <= rate * passed + burst
        # The first may have the burst of two parts before the second is there, and a turn of one at the end.
        assert abs(taken[0] - taken[1]) <= 3 * PART_BYTES


def test_nothing_is_open_that_was_not_said_to_be() -> None:
    known, infohash = OpenRenditions(), InfoHash(b"i" * 32)
    assert known.is_open(infohash, 0.0) is None
    known.heard(infohash, None, 0.0)
    assert known.is_open(infohash, 0.0) is None
    known.heard(infohash, IsOpen(1, 10), 0.0)
    assert [known.is_open(infohash, now) for now in (0.0, 9.9, 10.0)] == [True, True, None]
    known.heard(infohash, Refusal(2, Reason.UNKNOWN_TITLE), 10.0)
    assert [known.is_open(infohash, 10.0 + later) for later in (0.0, CLOSED_SECONDS)] == [False, None]
