"""Two regions as real processes: the secondary redirect, then one tracker after the other is killed."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.house_parts import ask, fetch_bytes, open_title, peer_says, small_film, wait_until
from tests.test_system import Seat
from tests.two_regions import open_regions

FOUND_WITHIN_SECONDS = 3.0


async def test_regions_serve_each_other_and_outlive_their_trackers(tmp_path: Path) -> None:
    film = small_film(tmp_path, 12, height=360)
    async with open_regions(tmp_path) as house:
        title = await house.publish(film, "A film of the north")
        async with trio.open_nursery() as nursery:
            for name in ("first", "second"):
                nursery.start_soon(house.start_viewer, name, "south")

        async def is_shown() -> bool:
            told = await ask(house.apis["central"], "/api/v1/tiers")
            return bool(told["fellows"][0]["edges"] == 1)

        await wait_until(is_shown, 10)
        # A miss in the south is served by the north's edge, and says why.
        path = await open_title(house.doors["first"], title)
        whole = await fetch_bytes(f"{house.doors['first']}{path}?download")
        got = await peer_says(house.doors["first"], title)
        assert (got["edge_bytes"], got["peer_bytes"]) == (len(whole), 0)
        (redirect, *_) = (await ask(house.apis["south"], "/api/v1/redirects"))["redirects"]
        assert house.edge is not None
        assert redirect["abroad"] == [[house.edge.node.hex(), ""]]
        # Then viewers of the south serve each other.
        path = await open_title(house.doors["second"], title)
        assert await fetch_bytes(f"{house.doors['second']}{path}?download") == whole
        assert (await peer_says(house.doors["second"], title))["peer_bytes"] > 0

        await house.kill("central")

        async def alone() -> bool:
            return bool((await ask(house.apis["south"], "/api/v1/overview"))["alone"])

        await wait_until(alone, 6)
        assert (house.folder / "south.log").read_text().count("goes on alone") == 1
        door = await house.start_viewer("third", "south")
        third = Seat(house, "third", title)
        async with trio.open_nursery() as audience:
            audience.start_soon(third.watch)
            await third.begun.wait()
            await house.kill("south")
            killed_at = trio.current_time()

            async def moved() -> bool:
                told = await ask(door, "/api/v1/statistics")
                return bool(told["tracker_up"]) and told["tracker_used"] == str(house.trackers["north"])

            await wait_until(moved, 10)
            assert trio.current_time() - killed_at < FOUND_WITHIN_SECONDS
        assert (third.experience.done, third.experience.verified, third.experience.stalls) == (True, True, 0)
        # New viewers get in through the other tracker, named in the setting or remembered.
        await house.kill("second")
        for name, trackers in (("fourth", ("south", "north")), ("second", ("south",))):
            door = await house.start_viewer(name, *trackers)
            path = await open_title(door, title)
            assert await fetch_bytes(f"{door}{path}?download") == whole
