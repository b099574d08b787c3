"""Titles of other regions where only a region's own belong: in the database and at BitTorrent's doors."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import clock
from shared.core.errors import Refused
from shared.core.messages import AskOpen, Locate
from tests.desk_parts import desks_of
from tests.tier_parts import Tiers
from tests.tracker_parts import entry, infohash, node, title_id
from tracker.core.open_titles import OpenTitles
from tracker.core.tracker import StoreTitle

FILM = entry("film", node("edge n"))
OTHER = entry("other", node("edge s"))


def borrowing() -> Tiers:
    """A viewer of the south has asked for the film, which the north has."""
    tiers = Tiers("north", "south", north=FILM, south=OTHER)
    tiers.run(1)
    tiers.join_edge("north", "edge n", infohash("film"))
    tiers.run(6)
    tiers.say("south", Locate(1, infohash("film")), tiers.join("south", "viewer"))
    assert tiers.regional("south").tracker.titles.borrowed == {FILM.title_id}
    return tiers


async def test_plans_and_groups_send_who_names_a_borrowed_title_to_its_region(tmp_path: Path) -> None:
    async with desks_of(tmp_path, OTHER) as desks:
        desks.core.titles.borrow(FILM)
        await desks.post("groups", {"name": "family"})
        for name in ("Film film", FILM.title_id.hex()):
            for method, path, wish in (
                ("POST", "plans", {"title": name, "release_at": clock.now() + 3600}),
                ("DELETE", f"plans?title={name}", None),
                ("POST", "kept", {"title": name, "groups": ["family"]}),
                ("POST", "kept", {"title": name, "groups": None}),
            ):
                says = (409, "'Film film' is a title of another region; ask there")
                assert await desks.refused(method, path, wish) == says, (path, name)
        assert (await desks.get("plans"))["total"] == (await desks.get("kept"))["total"] == 0


async def test_a_title_of_this_region_is_meant_before_a_borrowed_one_of_the_same_name(tmp_path: Path) -> None:
    ours = entry("ours", node("edge s"))
    async with desks_of(tmp_path, ours) as desks:
        desks.core.titles.borrow(type(ours)(FILM.title_id, ours.title, FILM.signer, FILM.renditions))
        kept = await desks.post("kept", {"title": ours.title, "groups": []})
        assert kept["title_id"] == title_id("ours").hex()


def test_what_is_borrowed_is_not_offered_at_the_bittorrent_doors() -> None:
    titles = borrowing().regional("south").tracker.titles
    doors = OpenTitles(titles, borrowing().regional("south").tracker.groups, has_door=True)
    assert list(doors.torrents()) == [infohash("other")[:20]]
    with pytest.raises(Refused, match="no such title for everybody here"):
        doors.entry(infohash("film"))
    with pytest.raises(Refused):
        doors.best_of(FILM.title_id)
    with pytest.raises(Refused):
        doors.answer(AskOpen(3, infohash("film")))
    assert doors.best_of(OTHER.title_id) == infohash("other")


def test_a_borrowed_title_that_is_registered_here_is_this_regions_own() -> None:
    """Its edge moved: then it is told to the central tier, and may be kept and planned here."""
    tiers = borrowing()
    south = tiers.regional("south")
    south.tracker.admit(frozenset({FILM.signer}), tiers.now)
    south.tracker.stored(StoreTitle(FILM, FILM.signer, 9))
    assert south.tracker.titles.borrowed == set()
    assert south.statistics().borrowed == 0
