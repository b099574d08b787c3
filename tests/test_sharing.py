"""What a user decides about uploads, on a running peer: it ends them at once, and only them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from peer.line_watch import Route, default_route, read_counters, router_address
from shared.core.bulk import PieceRequest
from shared.core.errors import Reason, Refused
from shared.core.messages import Join, Refusal
from shared.core.units import parse_size, parse_uplink
from tests.node_parts import House, Published, Viewer, open_house, published_once, stranger


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


async def switch(viewer: Viewer, wish: dict[str, Any] | bytes) -> httpx2.Response:
    base = viewer.service.ready.player
    async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=10) as client:
        if isinstance(wish, bytes):
            return await client.post("/api/v1/sharing", content=wish)
        return await client.post("/api/v1/sharing", json=wish)


async def told(viewer: Viewer) -> dict[str, Any]:
    base = viewer.service.ready.player
    async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=10) as client:
        return dict((await client.get("/api/v1/statistics")).json())


async def ended(viewer: Viewer) -> dict[str, Any]:
    """What it says of sharing once nothing is uploaded any more."""
    with trio.fail_after(5):
        while True:
            sharing: dict[str, Any] = (await told(viewer))["sharing"]
            if not sharing["uploading"]:
                return sharing
            await trio.sleep(0.05)


async def uploading(house: House, film: Published, **settings: Any) -> Viewer:
    """A peer on a slow line that holds the film."""
    viewer = await house.start_peer("giver", uplink=parse_uplink("1 Mbit/s"), **settings)
    assert await viewer.download(film) == film.data
    return viewer


async def test_pause_stops_what_is_on_its_way(tmp_path: Path, film: Published) -> None:
    """100 ms after the pause no byte of a piece arrives any more; downloads go on; a restart keeps it."""
    async with open_house(tmp_path, film) as house:
        viewer = await uploading(house, film)
        async with stranger(viewer.service.ready.address) as one:
            await one.join(house, film)
            with one.connection.open_stream() as stream:
                await stream.send_all(PieceRequest(film.infohash, 0, 0, 16).encode())
                stream.send_eof()
                received = len(await stream.receive_some())
                assert (await switch(viewer, {"pause": True})).json()["why"] == "paused"
                paused_at = trio.current_time()
                late = 0
                with pytest.raises(Refused) as caught:
                    while some := await stream.receive_some():
                        received += len(some)
                        late += len(some) if trio.current_time() > paused_at + 0.15 else 0
                assert caught.value.reason is Reason.NOT_SHARING
                assert late == 0
                assert 0 < received < 256 * 1024
            assert await one.ask(PieceRequest(film.infohash, 0, 0, 1).encode()) == bytes([Reason.NOT_SHARING])
        assert await viewer.download(film) == film.data
        await viewer.service.stop()
        viewer = await house.start_peer("giver")
        assert (await told(viewer))["sharing"]["paused"]
        assert (await switch(viewer, {"pause": False})).json()["uploading"]
        async with stranger(viewer.service.ready.address) as one:
            await one.join(house, film)
            assert (await one.ask(PieceRequest(film.infohash, 0, 0, 1).encode()))[0] == Reason.NONE


async def test_a_used_up_budget_ends_uploading_and_survives(tmp_path: Path, film: Published) -> None:
    """Everything counts, what a download itself sends as well; the next start knows."""
    async with open_house(tmp_path, film) as house:
        budget = parse_size("2 kB")
        viewer = await uploading(house, film, day_budget=budget)
        for _ in range(2):
            sharing = await ended(viewer)
            assert sharing["why"] == "day's budget used up"
            assert sharing["day_bytes"] >= budget
            async with stranger(viewer.service.ready.address) as one:
                await one.say(Join(9, film.infohash, house.ticket(one.id, film.infohash)))
                assert (await one.hear(Refusal)).reason is Reason.NOT_SHARING
            await viewer.service.stop()
            viewer = await house.start_peer("giver", day_budget=budget)


async def test_the_mode_is_switched_while_it_runs(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        viewer = await house.start_peer("giver")
        assert (await switch(viewer, {"mode": "direct"})).json()["why"] == "direct"
        assert (await told(viewer))["mode"] == "direct"
        assert (await switch(viewer, {"mode": "shared", "pause": 60})).json()["until"] is not None
        statistics = await told(viewer)
        assert statistics["cap"]["grounds"] == "configured"
        assert statistics["cap"]["confidence"] == 1.0


WRONG = [b"", b"[]", b"{", b'{"mode": "both"}', b'{"pause": 0}', b'{"pause": -5}', b'{"pause": 1e300}']
WRONG += [b'{"pause": "long"}', b'{"stop": true}', b"x" * 2000]


async def test_what_is_no_wish_is_refused_in_one_line(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        viewer = await house.start_peer("giver")
        for body in WRONG:
            answer = await switch(viewer, body)
            assert answer.status_code in (400, 413), body
            assert len(answer.text.splitlines()) == 1
        assert (await told(viewer))["sharing"]["uploading"]


# -- reading the line ------------------------------------------------------------------------------------

ROUTE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
wlan0\t0001A8C0\t00000000\t0001\t0\t0\t600\t00FFFFFF\t0\t0\t0
"""
ROUTE_V6 = f"{'0' * 32} 00 {'0' * 32} 00 fe80{'0' * 27}1 00000400 00000001 00000000 00000003    wwan0\n"
ARP = """IP address       HW type     Flags       HW address            Mask     Device
192.168.1.1      0x1         0x2         c0:ff:ee:00:00:01     *        wlan0
"""
DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls
    lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0
 wlan0: 100 1 0 0 0 0 0 0 5000 40 0 0 0 0 0 0
 wwan0:100 1 0 0 0 0 0 0 700 7 0 0 0 0 0 0
  eth1: 100 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
"""


def test_the_line_is_read_as_the_kernel_tells_it(tmp_path: Path) -> None:
    for name, text in (("route", ROUTE), ("ipv6_route", ROUTE_V6), ("arp", ARP), ("dev", DEV)):
        (tmp_path / name).write_text(text)
    route = default_route(tmp_path)
    assert route == Route(("wlan0", "wwan0"), "192.168.1.1")
    assert router_address(route.router, tmp_path) == "c0:ff:ee:00:00:01"
    counters = read_counters(route.interfaces, tmp_path)
    assert counters is not None
    assert (counters.sent_bytes, counters.sent_packets) == (5700, 47)
    everything = read_counters((), tmp_path)
    assert everything is not None
    assert everything.sent_bytes == 5701


@pytest.mark.parametrize("text", ["", "\n\n", "garbage\n" * 3, "a: b\n", "wlan0: 1 2 3\n"])
def test_a_line_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    for name in ("route", "ipv6_route", "arp", "dev"):
        (tmp_path / name).write_text(text)
    assert default_route(tmp_path) == Route()
    assert read_counters((), tmp_path) is None
    assert router_address("192.0.2.1", tmp_path) == ""
    assert read_counters((), tmp_path / "nowhere") is None
