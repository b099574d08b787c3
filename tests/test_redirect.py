"""The redirect's policy, case by case."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from shared.core.ids import HostPort, InfoHash, Kind, NodeId
from shared.core.messages import Why
from tests.tracker_parts import NOW, announce, infohash, node
from tracker.core.answers import PEERS_WANTED, Answer, Question, Viewer
from tracker.core.candidates import MOST_CONNECTIONS
from tracker.core.edge_choice import EDGES_WANTED
from tracker.core.edges import Edges
from tracker.core.records import RESERVATION_HALF_LIFE_SECONDS
from tracker.core.redirect import Field, choose
from tracker.core.swarm import Swarms

SWARM = infohash("film")
RATE = 500_000.0
Holding = tuple[str, Kind, str, int]  # name, kind, region, class of spare upload


def field_of(*holdings: Holding, held: int = 10, swarm_id: InfoHash = SWARM) -> Field:
    field = Field(Swarms(60.0), Edges(5.0))
    for name, kind, region, spare in holdings:
        if kind is Kind.EDGE:
            field.edges.joined(node(name), region, HostPort("192.0.2.1", 4430), NOW)
        field.swarms.announce(announce(swarm_id, held, 10, spare), node(name), kind, region, NOW)
    return field


def redirect(
    field: Field,
    kind: Kind = Kind.PC,
    *,
    who: str = "viewer",
    seed: int = 1,
    swarm_id: InfoHash = SWARM,
    stretch: int = 0,
) -> Answer:
    question = Question(swarm_id, Viewer(node(who), kind, "north", stretch), RATE)
    return choose(field, question, Random(seed), NOW)


def nodes_of(answer: Answer) -> list[NodeId]:
    return [choice.node for choice in answer.choices]


EVERYBODY: tuple[Holding, ...] = (
    ("far box", Kind.STB, "south", 7),
    ("far pc", Kind.PC, "south", 7),
    ("near box", Kind.STB, "north", 7),
    ("edge 1", Kind.EDGE, "north", 7),
    ("edge 2", Kind.EDGE, "south", 7),
    ("edge 3", Kind.EDGE, "north", 7),
    ("near pc", Kind.PC, "north", 1),
)
PEERS_IN_ORDER = [Why.NEAR_PC, Why.NEAR_STB, Why.FAR_PC, Why.FAR_STB]
EDGES_IN_ORDER = [Why.EDGE_FIRST, Why.EDGE_SPARE]


@pytest.mark.parametrize(
    "viewer, expected",
    [
        (Kind.PC, PEERS_IN_ORDER + EDGES_IN_ORDER),
        (Kind.STB, PEERS_IN_ORDER + EDGES_IN_ORDER),
        (Kind.TOOL, PEERS_IN_ORDER + EDGES_IN_ORDER),
        (Kind.MOBILE, EDGES_IN_ORDER),
    ],
)
def test_near_before_far_pcs_before_boxes_edges_last(viewer: Kind, expected: list[Why]) -> None:
    answer = redirect(field_of(*EVERYBODY), viewer)
    assert [choice.why for choice in answer.choices] == expected


def test_the_first_pc_is_found_behind_any_number_of_better_boxes() -> None:
    boxes = [(f"box {n}", Kind.STB, "north", 7) for n in range(200)]
    answer = redirect(field_of(*boxes, ("pc", Kind.PC, "north", 1)), Kind.STB)
    assert nodes_of(answer)[0] == node("pc")
    assert len(answer.choices) == PEERS_WANTED


@pytest.mark.parametrize("kind", [Kind.PC, Kind.EDGE])
def test_nobody_is_sent_to_itself(kind: Kind) -> None:
    field = field_of(("viewer", kind, "north", 7), ("other", Kind.PC, "north", 3), ("edge", Kind.EDGE, "", 7))
    for seed in range(20):
        assert node("viewer") not in nodes_of(redirect(field, seed=seed))


@pytest.mark.parametrize("kind, spare, held", [(Kind.PC, 0, 10), (Kind.STB, 5, 0), (Kind.EDGE, 5, 9)])
def test_who_cannot_give_is_not_named(kind: Kind, spare: int, held: int) -> None:
    assert redirect(field_of(("n", kind, "north", spare), held=held)).choices == ()


def test_an_empty_swarm_gives_an_empty_answer() -> None:
    answer = redirect(field_of())
    assert answer.choices == ()
    assert answer.connections >= 1


def test_the_same_edges_serve_a_title_and_titles_spread_over_edges() -> None:
    edges = [(f"edge {n}", Kind.EDGE, "", 7) for n in range(8)]
    first: Counter[NodeId] = Counter()
    for number in range(200):
        name = infohash(number)
        answer = redirect(field_of(*edges, swarm_id=name), swarm_id=name, seed=number)
        assert nodes_of(answer) == nodes_of(
            redirect(field_of(*reversed(edges), swarm_id=name), swarm_id=name)
        )
        assert len(answer.choices) == EDGES_WANTED
        first[nodes_of(answer)[0]] += 1
    assert len(first) == 8
    assert max(first.values()) < 3 * 200 / 8


def test_losing_an_edge_moves_only_its_own_titles() -> None:
    edges = [(f"edge {n}", Kind.EDGE, "", 7) for n in range(5)]
    for number in range(50):
        name = infohash(number)
        old = nodes_of(redirect(field_of(*edges, swarm_id=name), swarm_id=name))
        new = nodes_of(redirect(field_of(*edges[1:], swarm_id=name), swarm_id=name))
        assert new == old if node("edge 0") not in old else set(old) - {node("edge 0")} <= set(new)


def test_reservations_spread_viewers_over_equal_peers() -> None:
    field = field_of(*((f"pc {n}", Kind.PC, "north", 3) for n in range(24)))
    used: Counter[NodeId] = Counter()
    for number in range(48):
        answer = redirect(field, who=f"viewer {number}", seed=number)
        used.update(nodes_of(answer)[: answer.connections])
    assert len(used) == 24
    assert max(used.values()) <= 2 * min(used.values())


def test_a_reservation_halves_and_never_grows_when_time_steps_back() -> None:
    field = field_of(("pc", Kind.PC, "north", 4))
    redirect(field)
    nodes, tick = field.swarms.nodes, field.swarms.tick(NOW)
    row = np.array([nodes.find(node("pc"))])
    promised = nodes.reserved_of(row, tick)[0]
    assert promised > 0
    later = field.swarms.tick(NOW + RESERVATION_HALF_LIFE_SECONDS)
    assert nodes.reserved_of(row, later)[0] == pytest.approx(promised / 2)
    assert nodes.reserved_of(row, max(0, tick - 100))[0] == promised


@pytest.mark.parametrize(
    "spare, least, most", [(1, MOST_CONNECTIONS, MOST_CONNECTIONS), (7, 3, 3), (3, 3, 3)]
)
def test_weak_sources_mean_more_connections(spare: int, least: int, most: int) -> None:
    field = field_of(*((f"pc {n}", Kind.PC, "north", spare) for n in range(12)))
    assert least <= redirect(field).connections <= most


class Counting(Random):
    rolls = 0

    def random(self) -> float:
        self.rolls += 1
        return super().random()


def test_the_work_does_not_grow_with_the_swarm() -> None:
    """The dice say how often a bucket was looked into, the trace how many candidates were weighed."""
    rolls = {}
    for size in (100, 3000):
        dice = Counting(1)
        field = field_of(*((f"pc {n}", Kind.PC, "north", 3) for n in range(size)))
        answer = choose(field, Question(SWARM, Viewer(node("viewer"), Kind.PC, "north"), RATE), dice, NOW)
        assert len(answer.choices) == PEERS_WANTED
        assert len(answer.trace().peers) == 2 * PEERS_WANTED
        rolls[size] = dice.rolls
    assert rolls[3000] == rolls[100]


def test_a_phone_is_never_asked_to_upload() -> None:
    field = field_of(("phone", Kind.MOBILE, "north", 7), ("far phone", Kind.MOBILE, "south", 7))
    assert redirect(field).choices == ()


def test_who_was_promised_to_others_is_passed_over_while_there_are_others() -> None:
    pcs = [(f"pc {n}", Kind.PC, "north", 3) for n in range(3)]
    field = field_of(*pcs, *((f"box {n}", Kind.STB, "far", 3) for n in range(9)))
    first = nodes_of(redirect(field, who="one"))
    assert set(first[:3]) == {node(f"pc {n}") for n in range(3)}
    redirect(field, who="two")
    third = redirect(field, who="three")
    assert not set(nodes_of(third)) & set(first[:3])


@pytest.mark.parametrize("stretch, first", [(20, "back"), (1, "front")])
def test_who_holds_the_stretch_that_is_wanted_comes_first(stretch: int, first: str) -> None:
    field = field_of(("whole", Kind.PC, "north", 3))
    for name, summary in (("front", 0x0000FFFF), ("back", 0xFFFF0000), ("unknown", 0)):
        said = replace(announce(SWARM, 5, 10, 3), summary=summary)
        field.swarms.announce(said, node(name), Kind.PC, "north", NOW)
    named = nodes_of(redirect(field, stretch=stretch))
    assert set(named[:2]) == {node("whole"), node(first)}
    assert len(named) == 4
