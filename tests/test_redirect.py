"""The redirect's policy, case by case."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.messages import Why
from tests.tracker_parts import NOW, announce, infohash, node
from tracker.core.redirect import EDGES_WANTED, MOST_CONNECTIONS, PEERS_WANTED, Answer, Viewer, choose
from tracker.core.swarm import RESERVATION_HALF_LIFE_SECONDS, Swarm, Swarms

SWARM = infohash("film")
RATE = 500_000.0
Holding = tuple[str, Kind, str, int]  # name, kind, region, class of spare upload


def swarm_of(*holdings: Holding, held: int = 10) -> Swarm:
    swarms = Swarms(60.0)
    for name, kind, region, spare in holdings:
        swarms.announce(announce(SWARM, held, 10, spare), node(name), kind, region, NOW)
    return swarms.swarms.get(SWARM, Swarm())


def redirect(
    swarm: Swarm, kind: Kind = Kind.PC, *, who: str = "viewer", seed: int = 1, swarm_id: InfoHash = SWARM
) -> Answer:
    return choose(swarm, swarm_id, Viewer(node(who), kind, "north"), RATE, Random(seed), NOW)


def nodes_of(answer: Answer) -> list[NodeId]:
    return [choice.holder.node for choice in answer.choices]


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
    answer = redirect(swarm_of(*EVERYBODY), viewer)
    assert [choice.why for choice in answer.choices] == expected


def test_the_first_pc_is_found_behind_any_number_of_better_boxes() -> None:
    boxes = [(f"box {n}", Kind.STB, "north", 7) for n in range(200)]
    answer = redirect(swarm_of(*boxes, ("pc", Kind.PC, "north", 1)), Kind.STB)
    assert nodes_of(answer)[0] == node("pc")
    assert len(answer.choices) == PEERS_WANTED


@pytest.mark.parametrize("kind", [Kind.PC, Kind.EDGE])
def test_nobody_is_sent_to_itself(kind: Kind) -> None:
    swarm = swarm_of(("viewer", kind, "north", 7), ("other", Kind.PC, "north", 3), ("edge", Kind.EDGE, "", 7))
    for seed in range(20):
        assert node("viewer") not in nodes_of(redirect(swarm, seed=seed))


@pytest.mark.parametrize("kind, spare, held", [(Kind.PC, 0, 10), (Kind.STB, 5, 0), (Kind.EDGE, 5, 9)])
def test_who_cannot_give_is_not_named(kind: Kind, spare: int, held: int) -> None:
    assert redirect(swarm_of(("n", kind, "north", spare), held=held)).choices == ()


def test_an_empty_swarm_gives_an_empty_answer() -> None:
    answer = redirect(Swarm())
    assert answer.choices == ()
    assert answer.connections >= 1


def test_the_same_edges_serve_a_title_and_titles_spread_over_edges() -> None:
    edges = [(f"edge {n}", Kind.EDGE, "", 7) for n in range(8)]
    forward, backward = swarm_of(*edges), swarm_of(*reversed(edges))
    first: Counter[NodeId] = Counter()
    for number in range(200):
        name = infohash(number)
        answer = redirect(forward, swarm_id=name, seed=number)
        assert nodes_of(answer) == nodes_of(redirect(backward, swarm_id=name))
        assert len(answer.choices) == EDGES_WANTED
        first[nodes_of(answer)[0]] += 1
    assert len(first) == 8
    assert max(first.values()) < 3 * 200 / 8


def test_losing_an_edge_moves_only_its_own_titles() -> None:
    edges = [(f"edge {n}", Kind.EDGE, "", 7) for n in range(5)]
    before, after = swarm_of(*edges), swarm_of(*edges[1:])
    for number in range(50):
        old = nodes_of(redirect(before, swarm_id=infohash(number)))
        new = nodes_of(redirect(after, swarm_id=infohash(number)))
        assert new == old if node("edge 0") not in old else set(old) - {node("edge 0")} <= set(new)


def test_reservations_spread_viewers_over_equal_peers() -> None:
    swarm = swarm_of(*((f"pc {n}", Kind.PC, "north", 3) for n in range(24)))
    used: Counter[NodeId] = Counter()
    for number in range(48):
        answer = redirect(swarm, who=f"viewer {number}", seed=number)
        used.update(nodes_of(answer)[: answer.connections])
    assert len(used) == 24
    assert max(used.values()) <= 2 * min(used.values())


def test_a_reservation_halves_and_never_grows_when_time_steps_back() -> None:
    swarm = swarm_of(("pc", Kind.PC, "north", 4))
    redirect(swarm)
    holder = swarm.holders[node("pc")]
    promised = holder.reservation(NOW)
    assert promised > 0
    assert holder.reservation(NOW + RESERVATION_HALF_LIFE_SECONDS) == pytest.approx(promised / 2)
    assert holder.reservation(NOW - 100) == promised


@pytest.mark.parametrize(
    "spare, least, most", [(1, MOST_CONNECTIONS, MOST_CONNECTIONS), (7, 3, 3), (3, 3, 3)]
)
def test_weak_sources_mean_more_connections(spare: int, least: int, most: int) -> None:
    swarm = swarm_of(*((f"pc {n}", Kind.PC, "north", spare) for n in range(12)))
    assert least <= redirect(swarm).connections <= most


def test_the_work_does_not_grow_with_the_swarm() -> None:
    class Counting(Swarm):
        drawn = 0

        def draw(self, *arguments):  # type: ignore[no-untyped-def]  # counts, and passes on
            for holder in super().draw(*arguments):
                Counting.drawn += 1
                yield holder

    swarm = Counting()
    for holder in swarm_of(*((f"pc {n}", Kind.PC, "north", 3) for n in range(3000))).holders.values():
        holder.place = -1
        swarm.holders[holder.node] = holder
        swarm.place(holder)
    assert len(redirect(swarm).choices) == PEERS_WANTED
    assert Counting.drawn <= 2 * PEERS_WANTED + 1
