"""Pre-distribution: a title is whole on its edges before the moment, and nothing of a plan is forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import clock
from shared.core.actions import Send
from shared.core.errors import Reason
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.messages import Entry, Evict, Load, Place, Placed, PlaceStage
from tests.desk_parts import desks_of
from tests.tracker_parts import NOW, announce, ask, entry, infohash, join, node, orders, title_id, tracker
from tracker.core.plans import LEAST_LEAD_SECONDS, RELEASED_SECONDS, Plan
from tracker.core.tracker import Tracker

ORIGIN = node("origin")
FILM = entry("film", ORIGIN)
LENGTH = FILM.renditions[0].length
STEP = 15.0


@dataclass
class Stage:
    """A tracker with an origin that holds everything, and edges that fetch what they are told to."""

    core: Tracker
    edges: dict[str, str]  # name, region
    room: int = 1 << 40
    capacity_rate: int = 10_000_000
    now: float = NOW
    obedient: bool = True
    fetching: dict[tuple[NodeId, InfoHash], list[float]] = field(default_factory=dict)  # order, bytes
    held: dict[tuple[NodeId, InfoHash], float] = field(default_factory=dict)  # since when
    said: list[tuple[float, NodeId, Place | Evict]] = field(default_factory=list)

    def __post_init__(self) -> None:
        join(self.core, "origin", Kind.EDGE, now=self.now)
        for name, region in self.edges.items():
            join(self.core, name, Kind.EDGE, region, now=self.now)

    def until(self, moment: float) -> None:
        """Time passes."""
        while self.now < moment:
            self.now = min(self.now + STEP, moment)
            self._load()
            self._fetch()
            while self.core.get_timer() <= self.now:
                self.core.handle_timer(self.now)
            self._obey()

    def _load(self) -> None:
        for name in ("origin", *self.edges):
            room = 0 if name == "origin" else self.room
            load = Load(self.capacity_rate, 0, room, 0, int(self.now * 1000))
            ask_quietly(self.core, load, node(name), self.now)
        for one in self.core.entries.values():
            for rendition in one.renditions:
                swarm = announce(rendition.infohash, spare=7)
                ask_quietly(self.core, swarm, ORIGIN, self.now)

    def _fetch(self) -> None:
        """Edges fetch with half of what they can send, and share what the origin sends."""
        rate = min(self.capacity_rate / 2, self.capacity_rate / max(len(self.fetching), 1))
        for (edge, swarm), (order, done) in list(self.fetching.items()):
            length = self.core.titles.length_of(swarm)
            done = min(length, done + rate * STEP)
            self.fetching[edge, swarm][1] = done
            stage = PlaceStage.HELD if done == length else PlaceStage.FETCHING
            message = Placed(int(order), stage, int(1000 * done / length), Reason.NONE)
            ask_quietly(self.core, message, edge, self.now)
            if stage is PlaceStage.HELD:
                del self.fetching[edge, swarm]
                self.held[edge, swarm] = self.now
        for edge, swarm in self.held:
            ask_quietly(self.core, announce(swarm, spare=7), edge, self.now)

    def _obey(self) -> None:
        for action in orders(self.core):
            if isinstance(action, Send) and isinstance(action.message, Place | Evict):
                self.said.append((self.now, action.to, action.message))
                if isinstance(action.message, Place) and self.obedient:
                    under_way = self.fetching.setdefault((action.to, action.message.infohash), [0, 0.0])
                    under_way[0] = action.message.order  # repeated with a fresh ticket, it goes on

    def placed(self) -> list[tuple[NodeId, Place]]:
        """The orders so far, each once however often it was repeated."""
        said = ((to, message) for _, to, message in self.said if isinstance(message, Place))
        return list({message.order: (to, message) for to, message in said}.values())


def ask_quietly(core: Tracker, message: Any, sender: NodeId, now: float) -> None:
    core.receive(message, sender, now)


def stage_of(*entries: Entry, edges: dict[str, str], **changed: Any) -> Stage:
    admitted = frozenset({ORIGIN, *map(node, edges)})
    return Stage(tracker(*entries, edges=admitted), edges, **changed)


def long_film(name: str, length: int) -> Entry:
    made = entry(name, ORIGIN)
    rendition = type(made.renditions[0])
    wire = {field: getattr(made.renditions[0], field) for field in rendition.__slots__}
    return Entry(made.title_id, made.title, made.signer, (rendition(**{**wire, "length": length}),))


NORTH_SOUTH = {"n1": "north", "n2": "north", "n3": "north", "s1": "south", "s2": "south", "w1": "west"}


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1_000_000, 100_000_000_000),
    capacity_rate=st.integers(2_000_000, 1_000_000_000),
    edges=st.integers(1, 6),
)
def test_a_planned_title_is_whole_on_its_edges_before_the_moment(
    length: int, capacity_rate: int, edges: int
) -> None:
    """Whatever a film's length and the edges' lines, if there is time for it, as many edges as the plan says
    hold all of it before the release, none was ordered earlier than the lead, and no other edge was."""
    stage = stage_of(long_film("film", length), edges=NORTH_SOUTH, capacity_rate=capacity_rate)
    plan = Plan(1, title_id("film"), NOW + 7 * 86400 - 1, NOW, edges)
    lead = LEAST_LEAD_SECONDS + 2 * max(length * edges / capacity_rate, length / capacity_rate)
    if lead > 86400:
        return  # more than a day for one film: the simulation would only be slow
    stage.now = plan.release_at - lead - 600
    stage.core.content.plans.put(plan)
    stage.until(plan.release_at - lead - 60)
    assert stage.placed() == []
    stage.until(plan.release_at)
    assert len(stage.held) == edges
    assert len(stage.placed()) == edges
    assert all(place.before == int(plan.release_at) for _, place in stage.placed())


def test_a_plan_for_regions_has_two_copies_in_each_at_least() -> None:
    stage = stage_of(FILM, *(entry(n, ORIGIN) for n in range(3)), edges=NORTH_SOUTH)
    for number in range(3):
        stage.core.content.heat.add(infohash(number), NOW, 50_000)  # so that the plan's share is small
    plan = Plan(1, title_id("film"), NOW + 3600, NOW, 0, frozenset({"north", "south"}))
    stage.core.content.plans.put(plan)
    stage.until(plan.release_at)
    held = {edge for edge, swarm in stage.held if swarm == infohash("film")}
    regions = sorted(NORTH_SOUTH[name] for name in NORTH_SOUTH if node(name) in held)
    assert regions == ["north", "north", "south", "south"]


def test_a_plan_comes_before_what_is_hotter_until_its_release() -> None:
    """On an edge with room for one title; afterwards what viewers want counts."""
    hot = entry("hot", ORIGIN)
    stage = stage_of(FILM, hot, edges={"n1": "north"}, room=int(LENGTH * 1.5))
    heat = stage.core.content.heat
    heat.add(infohash("hot"), NOW, 1e9)
    stage.until(NOW + 200)
    assert [place.infohash for _, place in stage.placed()] == [infohash("hot")]
    stage.core.content.plans.put(Plan(1, title_id("film"), stage.now + 900, stage.now))
    stage.until(stage.now + 900)
    assert (node("n1"), infohash("film")) in stage.held
    assert (node("n1"), Evict(infohash("hot"))) in [(to, message) for _, to, message in stage.said]
    stage.held.pop((node("n1"), infohash("hot")))  # the edge made room
    stage.until(stage.now + 200)
    assert [place.infohash for _, place in stage.placed()][-1] == infohash("hot")


def test_a_plan_is_over_a_day_after_its_release_and_its_heat_decays_before() -> None:
    stage = stage_of(FILM, edges={"n1": "north"})
    plan = Plan(1, title_id("film"), NOW + 60, NOW)
    stage.core.content.plans.put(plan)
    heat = stage.core.content.heat
    heats = []
    for moment in (60, 3600, 4 * 3600):
        stage.until(NOW + moment)
        heats.append(heat.of(infohash("film"), stage.now))
    assert heats[0] == 1000 > heats[1] > heats[2] > 200
    assert stage.core.content.plans.open
    stage.core.content.plans.handle_timer(plan.release_at + RELEASED_SECONDS + 31)
    assert stage.core.content.plans.take_over() == [plan]
    assert stage.core.content.plans.take_over() == []
    assert heat.of(infohash("film"), stage.now) == 0 == len(stage.core.content.plans.open)


def test_a_cancelled_plan_leaves_no_heat_and_its_copies_are_the_first_to_go() -> None:
    stage = stage_of(FILM, edges={"n1": "north"})
    stage.core.content.plans.put(Plan(1, title_id("film"), NOW + 3000, NOW))
    stage.until(NOW + 3000 - 300)
    assert (node("n1"), infohash("film")) in stage.held
    stage.core.content.plans.cancel(title_id("film"))
    stage.until(stage.now + 200)
    assert stage.core.content.heat.planned == {}
    assert [(to, message) for _, to, message in stage.said][-1] == (node("n1"), Evict(infohash("film")))


def test_an_order_that_is_lost_is_given_again_in_time() -> None:
    stage = stage_of(FILM, edges={"n1": "north"}, obedient=False)
    stage.core.content.plans.put(Plan(1, title_id("film"), NOW + 2000, NOW))
    stage.until(NOW + 2000 - LEAST_LEAD_SECONDS + 100)
    first = len(stage.placed())
    assert first >= 1
    stage.obedient = True
    stage.until(NOW + 2000)
    assert len(stage.placed()) > first
    assert (node("n1"), infohash("film")) in stage.held


def test_a_title_that_is_registered_anew_is_planned_with_its_new_rendition() -> None:
    stage = stage_of(FILM, edges={"n1": "north"})
    stage.core.content.plans.put(Plan(1, title_id("film"), NOW + 900, NOW))
    stage.until(NOW + 60)
    again = entry("again", ORIGIN).renditions
    stage.core.titles.put(Entry(FILM.title_id, FILM.title, ORIGIN, again))
    stage.until(NOW + 200)
    assert set(stage.core.content.heat.planned) == {infohash("again")}


# -- over HTTP ----------------------------------------------------------------------------------


async def test_a_plan_is_stored_before_it_is_acknowledged_and_survives_a_restart(tmp_path: Path) -> None:
    release_at = clock.now() + 3600
    async with desks_of(tmp_path, FILM) as desks:
        made = await desks.post("plans", {"title": "Film film", "release_at": release_at, "edges": 2})
        assert (made["title"], made["edges"], made["state"]) == ("Film film", 2, "waiting")
        assert made["begins_at"] == pytest.approx(release_at, abs=2000)
        again = await desks.post("plans", {"title": title_id("film").hex(), "release_at": release_at + 1})
        assert again["number"] > made["number"]
    async with desks_of(tmp_path) as desks:
        (plan,) = (await desks.get("plans"))["plans"]
        assert (plan["number"], plan["release_at"], plan["edges"]) == (again["number"], release_at + 1, 0)
        assert desks.core.content.plans.open[title_id("film")].release_at == release_at + 1
        gone = await desks.ask("DELETE", f"plans?title={title_id('film').hex()}")
        assert gone["number"] == again["number"]
        assert desks.core.content.plans.open == {}
        status, error = await desks.refused("DELETE", "plans?title=Film%20film")
        assert (status, error.startswith("the title has no plan")) == (404, True)
        ended = (await desks.get("plans?which=ended"))["plans"]
        assert [(one["number"], one["state"]) for one in ended] == [
            (again["number"], "cancelled"),
            (made["number"], "replaced"),
        ]
    async with desks_of(tmp_path) as desks:
        assert (await desks.get("plans"))["total"] == 0


async def test_every_edges_progress_is_shown_and_recorded(tmp_path: Path) -> None:
    async with desks_of(tmp_path, FILM) as desks:
        now = clock.now()
        for name in ("origin", "n1", "n2"):
            desks.core._settings = type(desks.core._settings)(open_to_edges=True)
            join(desks.core, name, Kind.EDGE, "north", now=now)
            load = Load(10_000_000, 0, 0 if name == "origin" else 1 << 40, 0, int(now * 1000))
            ask(desks.core, load, node(name), now)
        ask(desks.core, announce(infohash("film"), spare=7), ORIGIN, now)
        status, error = await desks.refused(
            "POST", "plans", {"title": "Film film", "release_at": now + 600, "regions": ["nort"]}
        )
        assert (status, error) == (409, "regions: no edge is in region 'nort' now; edges are in: north")
        made = await desks.post(
            "plans", {"title": "Film film", "release_at": now + 600, "regions": ["north"]}
        )
        assert (made["regions"], made["begins_at"] < now) == (["north"], True)
        for step in range(3):
            desks.core.handle_timer(now + step)
        placed = [
            a.message for a in orders(desks.core) if isinstance(a, Send) and isinstance(a.message, Place)
        ]
        assert len(placed) == 2
        numbers = {order.edge: order.number for order in desks.core.content.placement.orders.values()}
        done = Placed(numbers[node("n1")], PlaceStage.FETCHING, 500, Reason.NONE)
        ask(desks.core, done, node("n1"), now)
        declined = Placed(numbers[node("n2")], PlaceStage.DECLINED, 0, Reason.NO_SPACE)
        ask(desks.core, declined, node("n2"), now)
        (plan,) = (await desks.get("plans"))["plans"]
        seen = {
            one["edge"]: (one["wanted"], one["stage"], one["permille"], one["reason"])
            for one in plan["copies"]
        }
        assert plan["state"] == "placing"
        assert seen == {
            node("n1").hex(): (True, "fetching", 500, ""),
            node("n2").hex(): (True, "declined", 0, "no_space"),
            ORIGIN.hex(): (False, "held", 1000, ""),
        }
        await desks.office.ledger.write_counts()
        record = (await desks.get("placement/record"))["placement"]
        assert {(one["edge"], one["stage"], one["reason"]) for one in record} == {
            (node("n1").hex(), "fetching", ""),
            (node("n2").hex(), "declined", "no_space"),
        }
        desks.core.disconnected(node("n1"), Reason.NONE, now + 9)
        await desks.office.ledger.write_counts()
        latest = (await desks.get("placement/record"))["placement"][0]
        assert (latest["edge"], latest["stage"], latest["since_at"]) == (node("n1").hex(), "lost", now + 9)
        assert latest["before_at"] == pytest.approx(now + 600)


HOSTILE: list[tuple[Any, int, str]] = [
    ({"title": "Film film", "release_at": 5}, 400, "release_at: 5 is past"),
    ({"title": "Film film", "release_at": 1e15}, 400, "release_at: more than 400 days ahead"),
    ({"title": "Film film", "release_at": "soon"}, 400, "Expected 'float', got 'str' - at 'release_at'"),
    ({"title": "Film film"}, 400, "missing required field 'release_at'"),
    ({"title": "Film fim", "release_at": 0}, 404, "did you mean 'Film film'"),
    ({"title": "", "release_at": 0}, 404, "there is no title ''"),
    ({"title": "Film film", "release_at": 0, "edges": -1}, 400, "edges: expected a whole number"),
    ({"title": "Film film", "release_at": 0, "edges": 1 << 70}, 400, "edges"),
    ({"title": "Film film", "release_at": 0, "edges": 1, "regions": ["a"]}, 400, "edges: say how many, or"),
    ({"title": "Film film", "release_at": 0, "regions": ["a"] * 101}, 400, "regions: 101 at once"),
    ({"title": "Film film", "release_at": 0, "regions": [""]}, 409, "regions: no edge is in region ''"),
    ({"title": "Film film", "release_at": 0, "now": True}, 400, "unknown field 'now'"),
]


async def test_hostile_plans_are_answered_by_a_named_error_and_change_nothing(tmp_path: Path) -> None:
    async with desks_of(tmp_path, FILM) as desks:
        for wish, status, says in HOSTILE:
            if wish.get("release_at") == 0:
                wish = {**wish, "release_at": clock.now() + 60}
            got, error = await desks.refused("POST", "plans", wish)
            assert (got, says in error) == (status, True), (wish, got, error)
        assert (await desks.refused("GET", "plans?which=all"))[0] == 400
        assert (await desks.refused("DELETE", "plans"))[0] == 400
        assert (await desks.get("plans"))["total"] == 0


async def test_a_plan_that_is_over_is_over_in_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.plan_desk.OVER_EVERY_SECONDS", 0.01)
    async with desks_of(tmp_path, FILM) as desks:
        release_at = clock.now() + 60
        await desks.post("plans", {"title": "Film film", "release_at": release_at})
        desks.core.handle_timer(release_at + 2 * RELEASED_SECONDS)
        assert desks.core.content.plans.open == {}
        with trio.fail_after(5):
            async with desks.office.open(lambda: None):
                while not (await desks.get("plans?which=ended"))["total"]:  # noqa: ASYNC110  # a task's work
                    await trio.sleep(0.01)
        (ended,) = (await desks.get("plans?which=ended"))["plans"]
        assert (ended["state"], ended["title"], ended["release_at"]) == ("released", "Film film", release_at)
    async with desks_of(tmp_path) as desks:
        assert desks.core.content.plans.open == {}
