"""Placement among real processes: the tracker orders, an edge fetches, viewers get it from there."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest
import trio

from peer.demo.house import House, open_house
from shared.core import manifest as manifests
from shared.core.entries import rendition_of
from shared.core.ids import Address, Kind, TitleId
from shared.core.manifest import Manifest
from shared.core.merkle import layer_of_file
from shared.core.messages import Locate, Redirect, Register, Registered
from shared.core.segments import Media, lay_out
from shared.core.shape import PIECE_BYTES
from shared.identity import Identity
from shared.piece_store import PieceStore
from tests.house_parts import ask, wait_until
from tests.node_parts import stranger

BIT_RATE = 16_000_000
SEGMENTS = 20  # of two seconds
FAR, NEAR = "127.0.0.1", "127.0.0.2"
WATCHED_BYTES = 8 * BIT_RATE // 8
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Film:
    """A film of noise, as only its manifest and its bytes matter here."""

    manifest: Manifest
    data: bytes

    @property
    def path(self) -> str:
        return f"/titles/{self.manifest.title_id.hex()}/{self.manifest.infohash.hex()}.mp4"


def film_of(identity: Identity) -> Film:
    segments = lay_out(1000, [(BIT_RATE // 8 * 2, 2000)] * SEGMENTS)
    data = Random(1).randbytes(segments[-1].offset + segments[-1].length)
    pieces = (data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES))
    media = Media(
        bandwidth=BIT_RATE,
        average_bandwidth=BIT_RATE,
        codecs="avc1.64001f",
        duration_ms=2000 * SEGMENTS,
        height=720,
        width=1280,
        init_bytes=1000,
        segments=segments,
    )
    tree = layer_of_file(pieces, PIECE_BYTES)
    draft = manifests.build("noise.mp4", tree, title="Noise", title_id=TitleId(bytes(16)), media=media)
    return Film(manifests.parse(manifests.sign(draft, identity.private_key)), data)


def shelve(film: Film, folder: Path) -> None:
    """The edge of this folder has published the film."""
    store = PieceStore(folder / "pieces", 1 << 40)
    store.add_manifest(film.manifest)
    for index in range(film.manifest.piece_count):
        store.put(film.manifest.infohash, index, film.data[index * PIECE_BYTES : (index + 1) * PIECE_BYTES])


async def register(tracker: Address, identity: Identity, film: Film) -> None:
    """Its edge tells the tracker."""
    manifest = film.manifest
    async with stranger(tracker, Kind.EDGE, identity=identity) as edge:
        await edge.say(Register(1, manifest.title_id, manifest.title, (rendition_of(manifest),)))
        await edge.hear(Registered)


@dataclass
class Town:
    """A tracker, the far edge with a film, and the near one, which is started when a test wants it."""

    house: House
    film: Film
    far: str  # node ids
    near: str

    async def start_near(self, workers: int = 1) -> int:
        """The near edge, or the near edge again; its process id."""
        await self.house._start(
            "near", "edge", "--tracker", str(self.house.tracker), "--listen", f"{NEAR}:0",
            "--workers", str(workers), "--data", str(self.house.folder / "near"),
        )  # fmt: skip
        return int(self.house.processes["near"].process.pid)

    async def start_viewer(self, name: str) -> str:
        """A peer beside the near edge; its door."""
        running = await self.house._start(
            name, "peer", "--tracker", str(self.house.tracker), "--mode", "direct", "--listen", f"{NEAR}:0",
            "--player", "127.0.0.1:0", "--data", str(self.house.folder / name),
        )  # fmt: skip
        return running.ready[4]

    async def order(self) -> dict[str, Any]:
        """What the tracker says of the order to the near edge; empty if there is none."""
        orders = (await ask(self.house.api, "/api/v1/placement"))["latest"]
        return next((dict(order) for order in orders if order["edge"] == self.near), {})

    async def near_loads(self) -> bool:
        """Whether the tracker knows that the near edge takes orders."""
        edges = (await ask(self.house.api, "/api/v1/placement"))["edges"]
        return {edge["node"] for edge in edges if edge["quota_bytes"]} == {self.near, self.far}

    async def near_drains(self) -> bool:
        """Whether the tracker sends nobody new to the near edge."""
        edges = (await ask(self.house.api, "/api/v1/placement"))["edges"]
        return "draining" in [edge["trouble"] for edge in edges if edge["node"] == self.near]

    @property
    def near_log(self) -> str:
        return self.house.processes["near"].log.read_text()


@asynccontextmanager
async def town(folder: Path) -> AsyncIterator[Town]:
    far, near = (Identity.load(folder / name / "key") for name in ("edge", "near"))
    table = folder / "regions.csv"
    table.write_text(f"{FAR}/32,far\n{NEAR}/32,near\n")
    film = await trio.to_thread.run_sync(film_of, far)
    await trio.to_thread.run_sync(shelve, film, folder / "edge")
    with trio.fail_after(PATIENCE_SECONDS):
        async with open_house(folder) as house:
            await house.start_tracker(open_to_edges="true", regions=f'"{table}"', report_seconds=1)
            assert house.tracker is not None
            await register(house.tracker, far, film)
            await house.start_edge()
            yield Town(house, film, far.id.hex(), near.id.hex())


async def ask_for(town: Town) -> bool:
    """A phone beside the near edge wants the film; whether it is sent there, and the film ordered for it."""
    assert town.house.tracker is not None
    async with stranger(town.house.tracker, Kind.MOBILE, host=NEAR) as viewer:
        await viewer.say(Locate(1, town.film.manifest.infohash))
        redirect = await viewer.hear(Redirect)
        return bool(redirect.sources[0].node.hex() == town.near)


async def test_an_edge_that_is_killed_at_an_order_goes_on_with_what_it_has(tmp_path: Path) -> None:
    async with town(tmp_path) as town_:
        pid = await town_.start_near()
        await wait_until(partial(ask_for, town_), PATIENCE_SECONDS)
        seen: list[int] = []

        async def is_half_way() -> bool:
            order = await town_.order()
            seen.append(order.get("permille", 0))
            assert order.get("stage") != "held", seen
            return 200 < seen[-1] < 900

        await wait_until(is_half_way, PATIENCE_SECONDS)
        os.kill(pid, signal.SIGKILL)
        await town_.house.processes["near"].process.wait()
        store = PieceStore(tmp_path / "near" / "pieces", 1 << 40)
        before = len(store.held(town_.film.manifest.infohash))
        assert before > 0

        pid = await town_.start_near()
        await wait_until(partial(ask_for, town_), PATIENCE_SECONDS)

        async def is_held() -> bool:
            return (await town_.order()).get("stage") == "held"

        await wait_until(is_held, PATIENCE_SECONDS)
        (fetched,) = re.findall(r"is held: (\d+) bytes from " + town_.far[:8], town_.near_log)
        assert int(fetched) <= len(town_.film.data) - (before - 1) * PIECE_BYTES
        assert stored(tmp_path / "near", town_.film.manifest) == town_.film.data
        os.kill(pid, signal.SIGUSR1)
        await wait_until(town_.near_drains, PATIENCE_SECONDS)
        assert not await ask_for(town_)


def stored(folder: Path, manifest: Manifest) -> bytes:
    """The film in an edge's store, every byte checked."""
    store = PieceStore(folder / "pieces", 1 << 40)
    return b"".join(store.read(manifest.infohash, index)[1] for index in range(manifest.piece_count))


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_first_viewer_is_served_by_the_nearest_edge_while_that_fetches_the_title(
    tmp_path: Path, workers: int
) -> None:
    async with town(tmp_path) as town_:
        await town_.start_near(workers)
        await wait_until(town_.near_loads, PATIENCE_SECONDS)
        door = await town_.start_viewer("viewer")
        film = town_.film
        async with httpx2.AsyncClient(base_url=door, trust_env=False, timeout=PATIENCE_SECONDS) as client:
            range_ = {"Range": f"bytes=0-{WATCHED_BYTES - 1}"}
            async with client.stream("GET", film.path, headers=range_) as answer:
                assert answer.status_code == 206
                parts = answer.aiter_bytes(PIECE_BYTES)
                received = await anext(parts)
                order = await town_.order()
                assert order["stage"] == "fetching"
                async for part in parts:
                    received += part
            assert received == film.data[:WATCHED_BYTES]
            title = film.manifest.title_id.hex()
            told = (await client.get(f"/api/v1/titles/{title}/statistics")).json()["renditions"][0]
        taken = {source["node"]: source["taken_bytes"] for source in told["sources"]}
        # Not all of it: a first edge that is silent for a second at the start is relieved by the second one.
        assert taken[town_.near] > 0.25 * sum(taken.values()), taken

        async def is_held() -> bool:
            return bool((await town_.order())["stage"] == "held")

        await wait_until(is_held, PATIENCE_SECONDS)
        assert town_.far[:8] in re.findall(r"is held: \d+ bytes from (\w+)", town_.near_log)
