"""Two tiers of trackers: what one region lacks is found in another, and each goes on alone."""

from __future__ import annotations

import pytest

from shared.core import tickets
from shared.core.errors import Reason, Refused
from shared.core.ids import Kind
from shared.core.messages import (
    Browse,
    Catalogue,
    Describe,
    Fellows,
    Load,
    Locate,
    Place,
    Redirect,
    Refusal,
    Register,
    Registered,
    Schedule,
    Why,
)  # fmt: skip
from tests.tier_parts import Tiers, id_of, place_of
from tests.tracker_parts import announce, entry, infohash, node, title_id
from tracker.core.explain import explain
from tracker.core.tracker import StoreTitle

FILM = entry("film", node("edge n"))
OTHER = entry("other", node("edge s"))
SWARM = infohash("film")


def two() -> Tiers:
    """North has the film on its edge, south another film."""
    tiers = Tiers("north", "south", north=FILM, south=OTHER)
    tiers.run(1)
    tiers.join_edge("north", "edge n", SWARM)
    tiers.run(6)
    return tiers


def test_what_one_region_lacks_is_found_in_another_with_the_reason() -> None:
    tiers = two()
    viewer = tiers.join("south", "viewer")
    (answer,) = tiers.say("south", Locate(1, SWARM), viewer)
    assert isinstance(answer, Redirect)
    assert [(s.node, s.why, s.region) for s in answer.sources] == [
        (node("edge n"), Why.CENTRAL_EDGE, "north")
    ]
    assert answer.signer == FILM.signer
    lines = list(explain(tiers.regional("south").tracker.answers[-1].trace()))
    assert any("the central tier was asked (secondary redirect)" in line for line in lines)
    assert any("an edge of another region that has the title, north" in line for line in lines)
    assert lines[-1].endswith("the same answer")


def test_the_ticket_of_one_region_opens_sources_of_the_other_and_of_no_third() -> None:
    tiers = two()
    viewer = tiers.join("south", "viewer")
    (answer,) = tiers.say("south", Locate(1, SWARM), viewer)
    assert isinstance(answer, Redirect)
    told = [m for m in tiers.heard[node("edge n")] if isinstance(m, Fellows)][-1]
    fellows = {fellow.node for fellow in told.trackers}
    assert fellows == {id_of("south")}
    assert told.trackers[0].at == str(place_of("south"))
    asked = {"tracker": id_of("north"), "viewer": viewer, "infohash": SWARM, "now": tiers.now}
    assert tickets.check(answer.ticket, fellows=fellows, **asked).viewer == viewer  # type: ignore[arg-type]
    with pytest.raises(Refused, match="foreign tracker"):
        tickets.check(answer.ticket, fellows={id_of("west")}, **asked)  # type: ignore[arg-type]


def test_viewers_of_a_borrowed_title_serve_each_other_at_home() -> None:
    tiers = two()
    first, second = tiers.join("south", "first"), tiers.join("south", "second")
    tiers.say("south", Locate(1, SWARM), first)
    tiers.say("south", announce(SWARM, held=5, spare=4), first)
    (answer,) = tiers.say("south", Locate(1, SWARM), second)
    assert isinstance(answer, Redirect)
    assert [(s.node, s.why) for s in answer.sources] == [
        (first, Why.NEAR_PC),
        (node("edge n"), Why.CENTRAL_EDGE),
    ]
    assert tiers.regional("south").statistics().seeks == 1  # the second time it was known


def test_the_catalogue_shows_all_regions_own_titles_first() -> None:
    tiers = two()
    viewer = tiers.join("south", "viewer")
    (page,) = tiers.say("south", Browse(4), viewer)
    assert page == Catalogue(4, 2, (OTHER, FILM))
    (page,) = tiers.say("south", Browse(5, 1), viewer)
    assert page == Catalogue(5, 2, (FILM,))
    (described,) = tiers.say("south", Describe(6, FILM.title_id), viewer)
    assert described == Catalogue(6, 1, (FILM,))
    (missing,) = tiers.say("south", Describe(7, title_id("none")), viewer)
    assert isinstance(missing, Refusal)
    assert missing.reason is Reason.UNKNOWN_TITLE
    tiers.say("south", Locate(8, SWARM), viewer)  # borrowed now: still shown once
    (page,) = tiers.say("south", Browse(9), viewer)
    assert page == Catalogue(9, 2, (OTHER, FILM))


def test_what_nobody_knows_is_refused_and_not_asked_for_again_at_once() -> None:
    tiers = two()
    viewer = tiers.join("south", "viewer")
    for request in (1, 2):
        (answer,) = tiers.say("south", Locate(request, infohash("nothing")), viewer)
        assert isinstance(answer, Refusal)
        assert (answer.request, answer.reason) == (request, Reason.UNKNOWN_TITLE)
    assert tiers.central.seeks == 1


def test_a_silent_central_tier_is_waited_for_shortly() -> None:
    tiers = two()
    tiers.lost.add(id_of("central"))  # hung, not gone: nobody was told
    viewer = tiers.join("south", "viewer")
    assert tiers.say("south", Locate(1, SWARM), viewer) == []
    tiers.run(1.4)
    assert not [m for m in tiers.heard[viewer] if isinstance(m, Refusal)]
    tiers.run(0.3)
    assert [m.reason for m in tiers.heard[viewer] if isinstance(m, Refusal)] == [Reason.UNKNOWN_TITLE]
    assert tiers.regional("south").statistics().unanswered == 1


def test_a_region_goes_on_alone_says_so_once_and_catches_up() -> None:
    tiers = two()
    tiers.kill("central")
    south = tiers.regional("south")
    assert not south.statistics().up
    tiers.run(60)
    alone = [note for note in tiers.notes if "goes on alone" in note]
    assert len(alone) == 2  # once for each region
    edge, viewer = tiers.join_edge("south", "edge s", infohash("other")), tiers.join("south", "viewer")
    (answer,) = tiers.say("south", Locate(1, infohash("other")), viewer)
    assert isinstance(answer, Redirect)
    assert [s.node for s in answer.sources] == [edge]
    (page,) = tiers.say("south", Browse(2), viewer)
    assert page == Catalogue(2, 1, (OTHER,))
    tiers.start_central("north", "south")
    tiers.run(40)
    assert south.statistics().up
    viewer = tiers.join("north", "far viewer")
    (answer,) = tiers.say("north", Locate(1, infohash("other")), viewer)
    assert isinstance(answer, Redirect)
    assert [s.node for s in answer.sources] == [edge]


def test_full_state_after_every_connect_and_only_changes_after_that() -> None:
    tiers = two()
    told = tiers.regional("north").statistics().told
    tiers.run(30)
    assert tiers.regional("north").statistics().told == told  # nothing changed, nothing said
    for number in range(3):
        tiers.say("north", announce(SWARM, spare=3), tiers.join("north", f"pc {number}"))
    tiers.run(6)
    assert tiers.regional("north").statistics().told == told + 1
    held = tiers.central.regions[id_of("north")].told.swarms[SWARM]
    assert held.holders[3] == 3
    tiers.regional("north").disconnected(node("edge n"), Reason.TIMEOUT, tiers.now)
    tiers.run(6)
    assert tiers.central.regions[id_of("north")].told.edges_with(SWARM) == ()


def test_a_title_kept_to_groups_stays_in_its_region() -> None:
    tiers = two()
    north, viewer = tiers.regional("north").tracker, tiers.join("south", "viewer")
    tiers.say("south", Locate(1, SWARM), viewer)
    copy = tiers.join("south", "edge s", Kind.EDGE)  # holding a copy here opens nothing, either
    tiers.say("south", announce(SWARM, spare=7), copy)
    north.groups.keep(FILM.title_id, ["friends"])
    tiers.run(40)  # longer than an answer of the central tier is news
    (answer,) = tiers.say("south", Locate(2, SWARM), viewer)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.UNKNOWN_TITLE
    (page,) = tiers.say("south", Browse(3), viewer)
    assert page == Catalogue(3, 1, (OTHER,))


def test_an_edge_whose_tracker_died_serves_at_another_but_may_not_publish_there() -> None:
    tiers = two()
    tiers.kill("north")
    edge = tiers.join_edge("south", "edge n", SWARM)  # its announce makes the tracker ask for the title
    viewer = tiers.join("south", "viewer")
    (answer,) = tiers.say("south", Locate(1, SWARM), viewer)
    assert isinstance(answer, Redirect)
    assert [(s.node, s.why) for s in answer.sources] == [(edge, Why.EDGE_FIRST)]
    new = entry("new", edge)
    (refusal,) = tiers.say("south", Register(9, new.title_id, new.title, new.renditions), edge)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.NOT_ALLOWED
    stranger = tiers.join_edge("south", "edge x", SWARM)
    (answer,) = tiers.say("south", Locate(2, SWARM), viewer)
    assert isinstance(answer, Redirect)
    assert stranger not in {s.node for s in answer.sources}


def test_a_title_that_is_new_is_known_everywhere_within_a_round() -> None:
    tiers = two()
    edge = tiers.join_edge("south", "edge s", infohash("other"))
    new = entry("new", edge)
    south = tiers.regional("south")
    south.receive(Register(9, new.title_id, new.title, new.renditions), edge, tiers.now)
    (order,) = [a for a in iter(south.next_action, None) if isinstance(a, StoreTitle)]
    south.tracker.stored(order)
    tiers.pump()
    assert Registered(9) in tiers.heard[edge]
    tiers.run(6)
    (page,) = tiers.say("north", Describe(1, new.title_id), tiers.join("north", "viewer"))
    assert page == Catalogue(1, 1, (new,))


def test_nodes_hear_of_fellows_after_the_schedule() -> None:
    tiers = two()
    viewer = tiers.join("south", "viewer")
    assert [type(m) for m in tiers.heard[viewer]] == [Schedule, Fellows]
    tool = tiers.join("south", "tool", Kind.TOOL)
    assert [type(m) for m in tiers.heard[tool]] == [Schedule]


def test_a_tracker_of_many_nodes_asks_newcomers_for_patience_but_no_edge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tracker.core.regional.HASTY_NODES", 2)
    tiers = two()
    names = [tiers.join("south", f"pc {number}") for number in range(3)]
    names.append(tiers.join("south", "edge s", Kind.EDGE))
    calm = [m.calm for name in names for m in tiers.heard[name] if isinstance(m, Fellows)]
    assert calm == [0, 0, 1, 0]


def test_the_edge_of_this_region_fetches_what_only_another_region_holds() -> None:
    tiers = two()
    edge = tiers.join("south", "edge s", Kind.EDGE)
    tiers.say("south", Load(10_000_000, 0, 1 << 40, 0, int(tiers.now * 1000)), edge)
    viewer = tiers.join("south", "viewer")
    (answer,) = tiers.say("south", Locate(1, SWARM), viewer)
    assert isinstance(answer, Redirect)
    assert [(s.node, s.why) for s in answer.sources] == [
        (edge, Why.EDGE_FIRST),
        (node("edge n"), Why.CENTRAL_EDGE),
    ]
    (order,) = [m for m in tiers.heard[edge] if isinstance(m, Place)]
    assert [s.node for s in order.sources] == [node("edge n")]
