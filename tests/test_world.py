"""The real cores in virtual time: quality, offload, churn, loss, deaths, poison, determinism."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from shared.core.ids import Kind, Mode
from tests import world_scenarios
from tests.world import Host, Line, Viewer, World

TEN_MBIT = 1_250_000.0


def staggered(world: World, count: int = 4, gap_seconds: float = 5.0) -> list[Viewer]:
    """Viewers on good lines, one after the other."""
    hosts = [world.add_peer(f"p{n}", Line(TEN_MBIT)) for n in range(count)]
    return [world.watch(host, 1.0 + gap_seconds * n) for n, host in enumerate(hosts)]


def held_by(world: World, viewer: Viewer) -> int:
    holding = viewer.host.core.seeding.holdings.get(world.infohash)
    return len(holding.held) if holding is not None else 0


def run_until_complete(world: World, viewer: Viewer) -> None:
    for _ in range(200):
        if held_by(world, viewer) == world.manifest.piece_count:
            return
        world.run(0.5)
    pytest.fail(f"{viewer.host.name} never held the whole film")


def assert_all_saw_it(viewers: list[Viewer]) -> None:
    assert [v.host.name for v in viewers if not v.done] == []
    assert {v.host.name: v.stalls for v in viewers if v.stalls} == {}


# -- quality and offload ----------------------------------------------------------------------


def test_four_staggered_viewers_never_stall_and_mostly_feed_each_other() -> None:
    world = World()
    viewers = staggered(world)
    world.run(100)
    assert_all_saw_it(viewers)
    assert world.offload() >= 0.65  # each byte once from the edge would be 0.75
    assert max(v.startup_seconds or 99.0 for v in viewers) < 1.0
    for viewer in viewers:
        statistics = viewer.host.core.statistics()
        assert statistics.edge_bytes + statistics.peer_bytes == world.manifest.length
        assert statistics.wasted_bytes == 0


def test_viewers_who_start_together_share_what_the_edge_sends() -> None:
    world = World(edge_rate=6_000_000.0)
    viewers = staggered(world, 8, gap_seconds=0.3)
    world.run(75)
    assert_all_saw_it(viewers)
    assert world.offload() >= 0.5


def test_a_lone_viewer_takes_all_from_the_edge_and_no_more_than_it_soon_needs() -> None:
    world = World()
    (viewer,) = staggered(world, 1)
    world.run(11)
    assert held_by(world, viewer) * world.manifest.piece_length < 25 * 495_000
    world.run(60)
    assert_all_saw_it([viewer])
    assert world.edge.sent_bytes == world.manifest.length


# -- an edge with less than all need ------------------------------------------------------------


def test_ten_viewers_before_an_edge_with_half_of_what_they_need_see_no_stall() -> None:
    found, world = world_scenarios.film(1)
    assert_all_saw_it(world.viewers)
    assert sum(found.startups) / 10 <= 2.0
    assert max(found.startups) <= 3.0
    assert found.offload >= 0.75
    assert found.twice <= 0.03


def test_ten_who_start_at_once_share_out_what_the_edge_sends() -> None:
    """Everything from the edge, to each, would stall all of them for minutes."""
    found, world = world_scenarios.film(1, gap_seconds=0.0)
    assert [v.host.name for v in world.viewers if not v.done] == []
    assert found.offload >= 0.4
    assert found.stall_seconds <= 30.0  # of 600 that they watched
    assert max(found.startups) <= 8.0


def test_ten_who_download_at_once_end_together_near_the_fluid_bound() -> None:
    found, world = world_scenarios.bulk(1, film_seconds=68)
    assert [v.host.name for v in world.viewers if not v.done] == []
    bound = 10 * world.manifest.length / (2_500_000.0 + 10 * 730_000.0)
    assert found.last_seconds <= 1.25 * bound
    assert found.first_seconds >= 0.75 * found.last_seconds
    assert found.offload >= 0.7


# -- a crowd with churn and loss --------------------------------------------------------------

UPLINKS = (125_000.0, 250_000.0, 625_000.0, TEN_MBIT, 2 * TEN_MBIT)


def crowd(seed: int, peers: int = 50, film_seconds: int = 40, spread_seconds: float = 60.0) -> World:
    """Mixed lines, kinds and modes; one in six is switched off while it watches."""
    world = World(seed, film_seconds=film_seconds, bit_rate=2_000_000.0, edge_rate=5_000_000.0)
    rng = Random(seed)
    for number in range(peers):
        line = Line(rng.choice(UPLINKS), latency_seconds=rng.uniform(0.005, 0.04), loss=0.02)
        mode = Mode.DIRECT if number % 7 == 3 else Mode.SHARED
        host = world.add_peer(f"p{number}", line, Kind.STB if number % 5 == 2 else Kind.PC, mode)
        begins_after = rng.uniform(0.5, spread_seconds)
        world.watch(host, begins_after)
        if number % 6 == 5:
            kill_later(world, host, begins_after + rng.uniform(3, 30))
    world.run(spread_seconds + film_seconds + 30)
    return world


def kill_later(world: World, host: Host, after_seconds: float) -> None:
    world.clock.at(world.clock.now + after_seconds, lambda: world.kill(host))


@pytest.fixture(scope="module")
def fifty() -> World:
    return crowd(1)


def test_of_a_crowd_all_who_stay_see_the_film_nearly_undisturbed(fifty: World) -> None:
    stayed = [viewer for viewer in fifty.viewers if viewer.host.alive]
    assert len(stayed) == 42
    assert [v.host.name for v in stayed if not v.done] == []
    assert sum(v.stalls for v in fifty.viewers) <= 4
    assert fifty.offload() >= 0.75


def test_direct_viewers_in_a_crowd_upload_not_one_byte(fifty: World) -> None:
    direct = [v.host for v in fifty.viewers if v.host.hello.mode is Mode.DIRECT]
    shared = [v.host for v in fifty.viewers if v.host.hello.mode is Mode.SHARED]
    assert len(direct) == 7
    assert sum(host.sent_bytes for host in direct) == 0
    assert sum(host.received_bytes for host in direct) >= 6 * fifty.manifest.length
    assert sum(host.sent_bytes for host in shared) > 20 * fifty.manifest.length


def test_a_crowd_verifies_each_piece_once_and_hardly_fetches_a_byte_twice(fifty: World) -> None:
    received = useful = 0
    for viewer in fifty.viewers:
        assert len(viewer.host.stored) == len(set(viewer.host.stored))
        statistics = viewer.host.core.statistics()
        received += viewer.host.received_bytes
        useful += statistics.edge_bytes + statistics.peer_bytes
    assert received <= 1.005 * useful


def small_crowd(seed: int) -> str:
    return crowd(seed, peers=15, film_seconds=20, spread_seconds=20).fingerprint()


def test_the_same_seed_gives_the_same_trace_whatever_the_process_hashes_like() -> None:
    here = small_crowd(3)
    assert small_crowd(3) == here
    assert small_crowd(4) != here
    code = "from tests.test_world import small_crowd; print(small_crowd(3))"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert elsewhere.stdout.strip() == here


# -- deaths -----------------------------------------------------------------------------------


def test_when_the_edge_dies_after_one_has_it_all_the_others_finish_from_peers() -> None:
    world = World()
    viewers = staggered(world)
    run_until_complete(world, viewers[0])
    before = [v.host.core.statistics().edge_bytes for v in viewers]
    assert held_by(world, viewers[3]) < world.manifest.piece_count
    world.kill(world.edge)
    world.run(60)
    assert_all_saw_it(viewers)
    after = [v.host.core.statistics().edge_bytes for v in viewers]
    assert sum(after) - sum(before) < 2_000_000  # what was on the wire


def test_a_tracker_that_restarts_empty_knows_the_swarm_within_an_announce_interval() -> None:
    world = World()
    viewers = staggered(world)
    world.run(30)
    world.kill(world.tracker)
    world.run(8)
    world.start_tracker()
    assert world.tracker.core.statistics().swarms == 0
    world.run(60)
    swarms = world.tracker.core.swarms
    holders = {holder.node for holder in swarms.members(swarms.swarms[world.infohash])}
    assert holders == {world.edge.node, *(v.host.node for v in viewers)}
    world.run(20)
    assert_all_saw_it(viewers)


def test_a_tracker_that_stays_dead_stops_nobody_who_watches() -> None:
    world = World()
    viewers = staggered(world)
    world.run(20)
    world.kill(world.tracker)
    world.run(80)
    assert_all_saw_it(viewers)


# -- poison -----------------------------------------------------------------------------------


def test_a_poisonous_peer_is_banned_by_each_at_its_first_leaf_and_nothing_of_it_is_held() -> None:
    world = World()
    villain = world.add_peer("villain", Line(2 * TEN_MBIT))
    world.poison(villain)
    world.run(2)
    viewers = staggered(world)
    world.run(100)
    assert_all_saw_it(viewers)
    for viewer in viewers:
        name = viewer.host.name
        mine = [line.split(" ", 1)[1] for line in world.clock.trace if line.split()[1] == name]
        hung_up = mine.index(f"{name} hangs up on villain: BAD_DATA")
        assert any(line.startswith(f"{name} asks villain") for line in mine[:hung_up])
        assert not any(line.startswith(f"{name} asks villain") for line in mine[hung_up:])
        statistics = viewer.host.core.statistics()
        assert villain.node not in {share.node for share in statistics.taken}
        assert sorted(viewer.host.stored) == list(range(world.manifest.piece_count))
