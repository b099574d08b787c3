"""A peer measures its line against a real edge, which answers probes and bounds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from edge.core.probe_quota import PROBES
from edge.probes import AT_ONCE_SECONDS
from peer import probing
from peer.core import trains, upload_cap
from peer.core.uplink import LEAST_CORRECTED
from shared import clock
from shared.core.bulk import MAX_PROBE_BYTES, PROBED_BYTES, ProbeRequest, decode_probed
from shared.core.errors import Reason
from shared.core.lull import Lull
from shared.core.units import parse_uplink
from tests.node_parts import Published, Viewer, open_house, published_once, stranger


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


async def cap_of(viewer: Viewer) -> dict[str, Any]:
    base = viewer.service.ready.player
    async with httpx2.AsyncClient(base_url=base, trust_env=False, timeout=10) as client:
        return dict((await client.get("/api/v1/statistics")).json()["cap"])


@pytest.mark.parametrize("workers", [1, 2])
async def test_an_edge_answers_probes_and_refuses_many(tmp_path: Path, film: Published, workers: int) -> None:
    """Each is counted, up to a node's quota; then they are refused and the connection lives on."""
    request = ProbeRequest(MAX_PROBE_BYTES)
    async with (
        open_house(tmp_path, film, workers=workers) as house,
        stranger(house.edge.ready.address) as one,
    ):
        for _ in range(PROBES):
            answer = await one.ask(request.encode() + bytes(MAX_PROBE_BYTES))
            assert answer[0] == Reason.NONE
            assert len(answer) == 1 + PROBED_BYTES
            decode_probed(answer[1:], MAX_PROBE_BYTES)
        assert await one.ask(request.encode() + bytes(MAX_PROBE_BYTES)) == bytes([Reason.BUSY])
        await one.join(house, film)


async def test_while_a_probe_comes_nothing_that_arrives_waits(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Datagrams that were taken together would tell a wrong rate, or none."""
    asked: list[float] = []
    monkeypatch.setattr(Lull, "look_at_once", lambda _, until: asked.append(until - clock.now()))
    async with open_house(tmp_path, film) as house, stranger(house.edge.ready.address) as one:
        await one.ask(ProbeRequest(100).encode() + bytes(100))
    assert len(asked) == 1
    assert 0 < asked[0] <= AT_ONCE_SECONDS


async def test_a_probe_cut_short_ends_the_connection(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house, stranger(house.edge.ready.address) as one:
        with one.connection.open_stream() as stream:
            await stream.send_all(ProbeRequest(100).encode() + bytes(99))
            stream.send_eof()
            assert (await one.end()).reason is Reason.MALFORMED


async def test_a_peer_measures_its_line(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gate, without a train's burst, stands for the line: the edge sees no more than the gate's rate."""
    monkeypatch.setattr(probing, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(trains, "GAP_SECONDS", 0.05)
    monkeypatch.setattr(upload_cap, "SAVED_SHARE", 0.0)  # nothing is saved up: trains leave at its pace
    uplink = parse_uplink("measure")
    async with open_house(tmp_path, film) as house:
        viewer = await house.start_peer("giver", uplink=uplink)
        before = await cap_of(viewer)
        assert before["grounds"] == "estimated"
        assert await viewer.download(film) == film.data
        cap = before
        while cap["grounds"] != "measured":  # the house has a deadline
            await trio.sleep(0.1)
            cap = await cap_of(viewer)
        assert LEAST_CORRECTED < cap["uplink_rate"] < 1.5 * before["cap_rate"]
        assert cap["confidence"] < 1
