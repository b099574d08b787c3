"""What peers tell of each title's bytes: all of it, and no more than a Report takes."""

from __future__ import annotations

import sqlite3
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from peer.core.company import Company
from peer.core.fetch import Fetch
from peer.core.tally import Tally
from shared.core.messages import MAX_USES, Use
from tests.tracker_parts import infohash
from tests.world import Line, World
from tracker.dbs import schema
from tracker.dbs.usage import ask_usage, write_batch


@given(st.lists(st.sets(st.integers(0, 99), max_size=60), max_size=6))
def test_whatever_grew_is_told_within_a_few_reports_and_then_no_more(grown: list[set[int]]) -> None:
    """However many titles grow between Reports, no Report has more than fit, and after as many as it takes
    the tracker knows every counter as it is."""
    tally, known = Tally(), {}
    fetches = [Fetch(infohash(number), Random(1), Company()) for number in range(100)]
    given_bytes = {infohash(7): 1}

    def tell() -> int:
        news = tally.news(fetches, given_bytes)
        assert len(news) <= MAX_USES
        known.update({use.infohash: use for use in news})
        return len(news)

    for numbers in grown:
        for number in numbers:
            fetches[number].peer_bytes += 10
        tell()
    while tell():
        pass
    exact = {
        fetch.infohash: Use(
            fetch.infohash, fetch.edge_bytes, fetch.peer_bytes, given_bytes.get(fetch.infohash, 0)
        )
        for fetch in fetches
        if fetch.peer_bytes or fetch.infohash in given_bytes
    }
    assert known == exact
    tally.forget()
    known.clear()
    while tell():
        pass
    assert known == exact


def test_a_run_keeps_its_name() -> None:
    tally = Tally()
    assert tally.run(5.0) == 5000 == tally.run(6.0)
    assert Tally().run(0.0) == 1  # 0 is what a node says that counts nothing


def test_with_the_real_cores_usage_is_what_viewers_took_though_the_tracker_dies() -> None:
    """Three viewers, a tracker that dies before it has written, and the sums are the viewers' own."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    schema.upgrade(database)
    world = World()
    viewers = [world.watch(world.add_peer(f"p{n}", Line(1_250_000.0)), 1.0 + 5 * n) for n in range(3)]

    def write() -> None:
        write_batch(database, world.tracker.core.usage.take(), world.clock.now)

    for _ in range(4):
        world.run(5)
        write()
    world.run(7)  # what was heard since is lost with the tracker
    world.kill(world.tracker)
    world.run(3)
    world.start_tracker()
    for _ in range(16):
        world.run(5)
        write()
    statistics = [viewer.host.core.statistics() for viewer in viewers]
    assert all(viewer.done for viewer in viewers)
    _, (film,) = ask_usage(database, "title", 0, 30_000, 0, 10)
    assert film.edge_bytes == sum(one.edge_bytes for one in statistics)
    assert film.peer_bytes == sum(one.peer_bytes for one in statistics) > 0
    assert film.edge_bytes + film.peer_bytes == 3 * world.manifest.length
    assert film.viewers == 3 <= film.redirects
    database.close()
