"""Edges obey the tracker: titles are fetched from other edges, whatever happens meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.shelf import KEPT_SECONDS, Kept, Shelf, room_of
from edge.core.title_fetch import ASKS_PER_SOURCE, GIVE_UP_SECONDS
from shared.core.errors import Reason
from shared.core.ids import InfoHash, Kind
from shared.core.messages import (
    Announce,
    Event,
    Evict,
    Gone,
    Have,
    Load,
    Placed,
    PlaceStage,
)
from tests.orders_world import ANN, AT, FILM, OTHER, THIRD, TOTAL, Host, is_whole, world
from tests.tracker_parts import NOW, TRACKER_ID, hello, infohash, node


def stages(host: Host) -> list[PlaceStage]:
    """The stages that the tracker heard, each once."""
    found: list[PlaceStage] = []
    for placed in host.placed():
        if not found or found[-1] is not placed.stage:
            found.append(placed.stage)
    return found


# -- load -----------------------------------------------------------------------------------------


def test_load_is_said_at_once_with_every_report_and_when_draining_begins_or_ends() -> None:
    edges, _, edge = world()
    edges.run(21)
    loads = [(at, load) for at, load in edge.told if isinstance(load, Load)]
    assert loads[0] == (NOW, Load(100_000_000, 0, 1 << 34, 0, int(NOW * 1000)))
    assert len(loads) in (5, 6)
    edge.core.set_draining(True, edges.now)
    edge.core.set_draining(True, edges.now)
    edge.core.set_draining(False, edges.now)
    edges.pump(edge)
    said = [(at, load.draining) for at, load in edge.told if isinstance(load, Load)][len(loads) :]
    assert said == [(edges.now, 1), (edges.now, 0)]


# -- an order ---------------------------------------------------------------------------------------


def test_an_order_is_accepted_fetched_announced_and_held() -> None:
    edges, origin, edge = world()
    edges.place(edge, FILM, origin)
    edges.run(60)
    assert is_whole(edge)
    assert stages(edge) == [PlaceStage.ACCEPTED, PlaceStage.FETCHING, PlaceStage.HELD]
    announced = [message for _, message in edge.told if isinstance(message, Announce)]
    assert announced[-1] == Announce(FILM.infohash, Event.COMPLETED, TOTAL, TOTAL, 7)
    progress = [placed.permille for placed in edge.placed()]
    assert progress == sorted(progress)
    assert progress[-1] == 1000
    at = [at for at, message in edge.told if isinstance(message, Placed)]
    fetching = at[2:-1]  # stages are told at once, progress twice a second
    assert all(later - earlier >= 0.5 for earlier, later in zip(fetching, fetching[1:], strict=False))
    assert origin.sent_bytes == FILM.length


def test_the_same_order_again_is_the_same_work_and_answered_the_same() -> None:
    edges, origin, edge = world()
    edges.place(edge, FILM, origin)
    edges.run(1)
    edges.place(edge, FILM, origin)
    assert edge.placed()[-1].stage is PlaceStage.FETCHING
    edges.run(60)
    for order in (1, 2):
        edges.place(edge, FILM, origin, order=order)
        held = Placed(order, PlaceStage.HELD, 1000, Reason.NONE)
        assert edge.placed()[-1] == held
    assert origin.sent_bytes == FILM.length


def test_all_sources_are_used_and_no_byte_is_fetched_twice() -> None:
    edges, origin, edge = world(rate=2e6)
    second = edges.edge("second", FILM, rate=2e6)
    edges.place(edge, FILM, origin, second)
    edges.run(60)
    assert is_whole(edge)
    assert origin.sent_bytes + second.sent_bytes == FILM.length
    assert min(origin.sent_bytes, second.sent_bytes) > 0.4 * FILM.length


# -- trouble ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["dies", "lies", "is mute", "is away", "forgot"])
def test_another_source_takes_over_from_one_that(trouble: str) -> None:
    edges, origin, edge = world(rate=1e6)
    bad = edges.edge("bad", FILM, rate=1e6)
    if trouble == "is away":
        edges.die(bad)
    elif trouble == "forgot":
        bad.core.forget(FILM.infohash)
    bad.lies, bad.mute = trouble == "lies", trouble == "is mute"
    edges.place(edge, FILM, bad, origin)
    edges.run(1)
    if trouble == "dies":
        assert bad.sent_bytes
        edges.die(bad)
    edges.run(120)
    assert is_whole(edge)
    assert stages(edge)[-1] is PlaceStage.HELD
    if trouble == "lies":
        assert origin.sent_bytes == FILM.length
        assert bad.sent_bytes == 0


def test_who_lies_is_caught_with_the_first_byte_and_asked_no_more() -> None:
    edges, _, edge = world()
    liar = edges.edge("liar", FILM)
    edges.place(edge, FILM, liar)
    edges.run(0.2)  # it gives the right manifest
    liar.lies = True
    edges.run(60)
    assert stages(edge)[-1] is PlaceStage.DECLINED
    assert edge.placed()[-1].reason is Reason.BAD_DATA
    assert liar.sent_bytes < FILM.length
    assert liar.id not in edge.links


@pytest.mark.parametrize("wrong", [{"signer": node("forger")}, {"length": FILM.length - 1}])
def test_a_title_that_is_not_what_was_ordered_is_declined(wrong: dict[str, Any]) -> None:
    edges, origin, edge = world()
    edges.place(edge, FILM, origin, **wrong)
    edges.run(5)
    assert stages(edge)[-1] is PlaceStage.DECLINED
    assert edge.placed()[-1].reason is Reason.BAD_DATA
    assert not edge.disk.get(FILM.infohash)


def test_with_nobody_left_to_ask_the_order_is_given_back_and_what_came_stays() -> None:
    edges, origin, edge = world(rate=1e6)
    edges.place(edge, FILM, origin)
    edges.run(2)
    edges.die(origin)
    edges.run(GIVE_UP_SECONDS + 2)
    assert (edge.placed()[-1].stage, edge.placed()[-1].reason) == (PlaceStage.DECLINED, Reason.TIMEOUT)
    part = len(edge.disk[FILM.infohash])
    assert 0 < part < TOTAL
    kept = edge.core.orders.shelf.titles[FILM.infohash]
    edges.place(edge, FILM, origin, order=2)
    edges.run(GIVE_UP_SECONDS + 2)
    assert edge.core.orders.shelf.titles[FILM.infohash] == kept  # there was no source even for the manifest
    other = edges.edge("other", FILM)
    edges.place(edge, FILM, other, order=3)
    edges.run(60)
    assert is_whole(edge)
    assert other.sent_bytes < FILM.length


def test_a_kill_costs_what_was_under_way_and_the_repeated_order_fetches_the_rest() -> None:
    edges, origin, edge = world(rate=1e6)
    edges.place(edge, FILM, origin)
    edges.run(4)
    part = len(edge.disk[FILM.infohash])
    assert 0 < part < TOTAL
    edges.kill(edge)
    edges.run(1)
    announced = [message for _, message in edge.told if isinstance(message, Announce)]
    assert (announced[-1].event, announced[-1].held) == (Event.STARTED, part)
    edges.place(edge, FILM, origin, order=9)
    edges.run(60)
    assert is_whole(edge)
    assert edge.placed()[-1] == Placed(9, PlaceStage.HELD, 1000, Reason.NONE)
    assert origin.sent_bytes <= FILM.length + ASKS_PER_SOURCE * FILM.piece_length


def test_without_the_tracker_the_work_goes_on_and_it_hears_of_it_when_it_is_back() -> None:
    edges, origin, edge = world(rate=1e6)
    edges.place(edge, FILM, origin)
    edges.run(1)
    edges.lose_tracker(edge)
    before = len(edge.placed())
    edges.run(60)
    assert is_whole(edge)
    edges.meet_tracker(edge)
    edges.run(1)
    assert len(edge.placed()) == before  # it has forgotten that order
    (announced,) = [m for at, m in edge.told[before:] if isinstance(m, Announce) and at > NOW + 60]
    assert (announced.held, announced.total) == (TOTAL, TOTAL)
    edges.place(edge, FILM, origin, order=2)
    assert edge.placed()[-1] == Placed(2, PlaceStage.HELD, 1000, Reason.NONE)


def test_an_order_without_an_end_keeps_saying_so() -> None:
    edges, origin, edge = world(rate=3000.0)  # a piece in 87 s
    edges.place(edge, FILM, origin)
    edges.run(200)
    at = [at for at, message in edge.told if isinstance(message, Placed)]
    assert max(later - earlier for earlier, later in zip(at, at[1:], strict=False)) < 62


def test_orders_are_declined_while_the_edge_drains() -> None:
    edges, origin, edge = world()
    edge.core.set_draining(True, edges.now)
    edges.place(edge, FILM, origin)
    (placed,) = edge.placed()
    assert (placed.stage, placed.reason) == (PlaceStage.DECLINED, Reason.SHUTDOWN)
    assert "draining" in placed.detail
    edge.core.set_draining(False, edges.now)
    edges.place(edge, FILM, origin, order=2)
    edges.run(60)
    assert is_whole(edge)


def test_strangers_give_no_orders_and_nobody_tells_us_what_we_did_not_ask() -> None:
    edges, origin, edge = world()
    edge.core.connected(ANN, AT, hello(Kind.EDGE), edges.now)
    for message in (Evict(FILM.infohash), Have(1, FILM.infohash, b"\xff"), Gone(FILM.infohash, (1,))):
        edge.core.receive(message, ANN, edges.now)
        assert "Hangup" in type(edge.core.next_action()).__name__


def test_a_source_that_names_impossible_pieces_is_hung_up_on() -> None:
    edges, origin, edge = world()
    edges.place(edge, FILM, origin)
    edges.run(0.5)
    edge.core.receive(Have(1, FILM.infohash, b"\xff"), origin.id, edges.now)
    edges.pump(edge)
    edges.run(30)
    assert is_whole(edge)  # it was dialled again


# -- room -------------------------------------------------------------------------------------------


def test_without_room_an_order_is_declined_by_name() -> None:
    edges, origin, edge = world()
    small = edges.edge("small", quota=room_of(FILM.length) - 1)
    edges.place(small, FILM, origin)
    (placed,) = small.placed()
    assert (placed.stage, placed.reason) == (PlaceStage.DECLINED, Reason.NO_SPACE)
    assert "quota" in placed.detail
    edge.full = True
    edges.place(edge, FILM, origin)
    edges.run(5)
    assert (edge.placed()[-1].stage, edge.placed()[-1].reason) == (PlaceStage.DECLINED, Reason.NO_SPACE)


def test_what_was_hinted_goes_first_and_only_when_room_is_wanted() -> None:
    edges, origin, _ = world()
    edge = edges.edge("small", OTHER, THIRD, quota=room_of(FILM.length) + room_of(THIRD.length))
    edge.core.receive(Evict(OTHER.infohash), TRACKER_ID, edges.now)
    edges.run(1)
    assert OTHER.infohash in edge.disk
    edges.place(edge, FILM, origin)
    edges.run(60)
    assert is_whole(edge)
    assert set(edge.disk) == {FILM.infohash, THIRD.infohash}
    stopped = Announce(OTHER.infohash, Event.STOPPED, 0, 0, 7)
    assert stopped in [message for _, message in edge.told]


def test_what_is_watched_stays_even_if_it_was_hinted() -> None:
    edges, origin, _ = world()
    edge = edges.edge("small", OTHER, quota=room_of(FILM.length))
    edge.core.receive(Evict(OTHER.infohash), TRACKER_ID, edges.now)
    edge.core.watched(1, OTHER.infohash, edges.now, is_open=True)  # at a worker
    edges.place(edge, FILM, origin)
    assert edge.placed()[-1].reason is Reason.NO_SPACE
    edge.core.watched(1, OTHER.infohash, edges.now, is_open=False)
    edges.place(edge, FILM, origin, order=2)
    edges.run(60)
    assert is_whole(edge)


titles = st.dictionaries(
    st.integers(0, 30).map(infohash),
    st.builds(
        Kept,
        st.integers(1, 100),
        st.floats(0, 2 * KEPT_SECONDS),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


@settings(max_examples=200)
@given(titles, st.integers(0, 600), st.integers(0, 300), st.sets(st.integers(0, 30).map(infohash)), st.data())
def test_room_is_made_of_what_may_go_hints_first_and_no_more_than_needed(
    kept: dict[InfoHash, Kept], quota: int, size: int, busy: set[InfoHash], data: st.DataObject
) -> None:
    """What goes is neither ours nor busy nor lately used unless hinted, hints come first, the room
    suffices, and without the last to go it would not; where none is made, all that may go is too little."""
    shelf, now = Shelf(quota), 2 * KEPT_SECONDS
    for name, one in kept.items():
        shelf.put(name, one)
    for name in data.draw(st.lists(st.sampled_from(sorted(kept)), unique=True)) if kept else []:
        shelf.hint(name)
    hinted = shelf.hinted
    going = shelf.make_room(size, busy, now)
    may_go = {
        name
        for name, one in kept.items()
        if name not in busy
        and not one.is_ours
        and (name in hinted or not one.is_whole or now - one.used_at >= KEPT_SECONDS)
    }
    used = sum(one.size_bytes for one in kept.values())
    if going is None:
        assert used - sum(kept[name].size_bytes for name in may_go) + size > quota
        return
    assert set(going) <= may_go
    free = quota - used + sum(kept[name].size_bytes for name in going)
    assert free >= size
    assert not going or free - kept[going[-1]].size_bytes < size
    hints_that_may = [name for name in hinted if name in may_go]
    assert [name for name in going if name in hinted] == hints_that_may[: len(going)]
