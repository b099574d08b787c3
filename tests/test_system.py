"""The house as real processes, with one of them taken away: nobody who watches may notice."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio

from peer.demo.house import House, open_house
from peer.headless import Experience, Screening
from shared.core.ids import Address
from tests.house_parts import (
    ask,
    fetch_bytes,
    furnish,
    holders,
    node_of,
    open_title,
    peer_says,
    small_film,
    wait_until,
)

SECONDS = 18
ANNOUNCE_SECONDS = 10  # a node of the old tracker hears of the new one at its next keep-alive, then dials


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_film(tmp_path_factory.mktemp("film"), SECONDS, height=720)


class Seat:
    """Somebody who watches at a peer."""

    def __init__(self, house: House, name: str, title: Address) -> None:
        assert title.title is not None
        self.door = house.doors[name]
        self.begun = trio.Event()
        self.experience = Experience(0.0)
        self._screening = Screening(self.door, title.title, self._note)

    def _note(self, experience: Experience) -> None:
        self.experience = experience
        if experience.startup_seconds is not None:
            self.begun.set()

    async def watch(self) -> None:
        self.experience = await self._screening.watch()

    def saw_all(self) -> None:
        seen = self.experience
        assert (seen.done, seen.verified, seen.stalls) == (True, True, 0), seen
        assert seen.shown_seconds == pytest.approx(SECONDS, abs=0.5)


async def hold_all(house: House, name: str, title: Address) -> int:
    """Makes a peer hold the whole film, and the tracker know it; the film's length."""
    path = await open_title(house.doors[name], title)
    body = await fetch_bytes(f"{house.doors[name]}{path}?download")
    await wait_until_held(house, await node_of(house.doors[name]), seconds=10)
    return len(body)


async def wait_until_held(house: House, *nodes: str, seconds: float) -> None:
    async def held() -> bool:
        return set(nodes) <= await holders(house)

    await wait_until(held, seconds)


async def test_without_its_edge_the_swarm_plays_on(film: Path, tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        title = await furnish(house, film, "first", "second", "third")
        first, second, third = (Seat(house, name, title) for name in ("first", "second", "third"))
        await first.watch()
        async with trio.open_nursery() as audience:
            audience.start_soon(second.watch)
            await second.begun.wait()
            await house.kill("edge")
            audience.start_soon(third.watch)
        for seat in (first, second, third):
            seat.saw_all()
        came = await peer_says(third.door, title)
    # Who came when there was no edge any more has every byte from viewers.
    assert (came["edge_bytes"], came["whole"]) == (0, True)
    assert came["peer_bytes"] >= came["length"]


async def test_a_tracker_that_restarts_is_not_missed(film: Path, tmp_path: Path) -> None:
    pace = {"announce_seconds": ANNOUNCE_SECONDS, "report_seconds": 1}
    async with open_house(tmp_path) as house:
        title = await furnish(house, film, "first", "second", **pace)
        assert house.tracker is not None
        assert house.edge is not None
        await hold_all(house, "first", title)
        before = house.tracker
        seats = [Seat(house, name, title) for name in ("first", "second")]
        async with trio.open_nursery() as audience:
            for seat in seats:
                audience.start_soon(seat.watch)
                await seat.begun.wait()
            await wait_until_viewers_are_counted(house, len(seats))
            await house.kill("tracker")
            await house.start_tracker(str(before.at), house.api.removeprefix("http://"), **pace)
            assert house.tracker == before
            titles = (await ask(house.api, "/api/v1/titles"))["titles"]
            assert [one["address"] for one in titles] == [str(title)]
            nodes = (house.edge.node.hex(), await node_of(seats[0].door))
            await wait_until_held(house, *nodes, seconds=ANNOUNCE_SECONDS)
        for seat in seats:
            seat.saw_all()
        assert (await ask(seats[0].door, "/api/v1/statistics"))["tracker_up"]
        await wait_until_used_as_peers_say(house, title, "first", "second")


async def wait_until_viewers_are_counted(house: House, viewers: int) -> None:
    """In the database: a kill may cost what it was told in the last two seconds."""

    async def counted() -> bool:
        used = (await ask(house.api, "/api/v1/usage"))["usage"]
        return [one["viewers"] for one in used] == [viewers]

    await wait_until(counted, seconds=10)


async def wait_until_used_as_peers_say(house: House, title: Address, *peers: str) -> None:
    """Across the tracker's death no byte is counted twice, and none is forgotten."""
    assert title.title is not None
    said = [await peer_says(house.doors[name], title) for name in peers]

    async def equal() -> bool:
        used = (await ask(house.api, "/api/v1/usage"))["usage"]
        wanted = [sum(one[key] for one in said) for key in ("edge_bytes", "peer_bytes")]
        return [[one["key"], one["edge_bytes"], one["peer_bytes"]] for one in used] == [
            [title.title.hex() if title.title else "", *wanted]
        ]

    await wait_until(equal, seconds=10)
    (used,) = (await ask(house.api, "/api/v1/usage"))["usage"]
    assert 0 < used["uploaded_bytes"] <= used["peer_bytes"]
    assert used["viewers"] == len(peers) <= used["redirects"]


async def test_what_a_killed_peer_held_it_serves_again(film: Path, tmp_path: Path) -> None:
    """Killed while it was watching, it has kept what it held: only the rest is fetched."""
    async with open_house(tmp_path) as house:
        title = await furnish(house, film, "watcher", "late")
        seat = Seat(house, "watcher", title)
        async with trio.open_nursery() as audience:
            audience.start_soon(seat.watch)
            said = await _pieces_held(seat.door, title, at_least=4)
            await house.kill("watcher")
            audience.cancel_scope.cancel()
        door = await house.start_peer("watcher")
        path = await open_title(door, title)
        whole = await fetch_bytes(f"{door}{path}?download")
        again = await peer_says(door, title)
        assert len(whole) == again["length"]
        assert again["held"].count("1") >= said
        assert again["edge_bytes"] + again["peer_bytes"] == again["length"] - _from_before(again)
        # With the edge gone, whatever the late one gets is served by the one that came back.
        await wait_until_held(house, await node_of(door), seconds=10)
        await house.kill("edge")
        late = house.doors["late"]
        assert await fetch_bytes(f"{late}{await open_title(late, title)}?download") == whole
        got = await peer_says(late, title)
    assert (got["edge_bytes"], got["whole"]) == (0, True)


async def _pieces_held(door: str, title: Address, at_least: int) -> int:
    """Waits until a peer that opens the title holds some pieces; how many it says it holds."""
    counts = [0]

    async def held() -> bool:
        with suppress(AssertionError):  # until the title is open there
            marks = str((await peer_says(door, title)).get("held", ""))
            counts.append(len(marks) - marks.count("."))
        return counts[-1] >= at_least

    await wait_until(held, seconds=20)
    return counts[-1]


def _from_before(told: object) -> int:
    assert isinstance(told, dict)
    held, size = str(told["held"]), int(told["piece_length"])
    last = int(told["length"]) - size * (len(held) - 1)
    return sum((last if number == len(held) - 1 else size) for number, mark in enumerate(held) if mark == "1")


async def test_a_direct_peer_uploads_nothing(film: Path, tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        title = await furnish(house, film)
        direct = await house.start_peer("direct", mode="direct")
        path = await open_title(direct, title)
        whole = await fetch_bytes(f"{direct}{path}?download")
        shared = await house.start_peer("shared")
        assert await fetch_bytes(f"{shared}{await open_title(shared, title)}?download") == whole
        got, gave = await peer_says(shared, title), await ask(direct, "/api/v1/statistics")
        (swarm,) = (await ask(house.api, "/api/v1/swarms"))["swarms"]
    assert gave["held_bytes"] >= len(whole)
    assert gave["uploaded_bytes"] == 0
    assert (got["peer_bytes"], got["edge_bytes"]) == (0, len(whole))
    assert [one["spare"] for one in swarm["holders"] if one["node"] == gave["node"]] == [0]
