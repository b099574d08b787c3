"""Fetching one rendition: whom it asks, when it changes its mind, when it is done."""

from __future__ import annotations

from random import Random

import pytest

from peer.core.company import Company
from peer.core.fetch import (
    JOIN_SECONDS,
    LEAVE_AFTER_SECONDS,
    LOCATE_AGAIN_SECONDS,
    LOCATE_EVERY_SECONDS,
    Fetch,
)
from peer.core.playhead import IDLE_SECONDS
from peer.core.rescue import SNUBBED_AFTER_SECONDS
from peer.core.wishes import PATIENCE_SECONDS
from shared.core.actions import Ask, AskManifest, Cancel, Dial, Hangup, Send
from shared.core.bitfield import Bitfield
from shared.core.errors import ProtocolError, Reason
from shared.core.merkle import LEAF_BYTES
from shared.core.messages import Join, Leave
from tests.fetch_parts import (
    EDGE,
    EVERYTHING,
    MANIFEST,
    NOW,
    OTHER_EDGE,
    OTHER_PEER,
    PEER,
    PIECES,
    THIRD_PEER,
    asks,
    deliver,
    fetching,
    orders,
    redirect,
    wire,
)


def test_the_manifest_is_asked_once_of_an_edge_first_and_then_of_the_next() -> None:
    fetch = Fetch(MANIFEST.infohash, Random(1), Company())
    fetch.redirected(redirect(PEER, EDGE), NOW)
    for node in (EDGE, PEER):
        fetch.connected(node)
        fetch.have(node, wire(EVERYTHING), NOW)
    wanted = [action for action in orders(fetch) if isinstance(action, AskManifest)]
    assert wanted == [AskManifest(EDGE, MANIFEST.infohash, MANIFEST.signer_id)]
    fetch.manifest_failed(EDGE, Reason.TIMEOUT, NOW)
    assert AskManifest(PEER, MANIFEST.infohash, MANIFEST.signer_id) in orders(fetch)


def test_a_source_whose_bitfield_does_not_fit_the_manifest_is_banned() -> None:
    fetch = Fetch(MANIFEST.infohash, Random(1), Company())
    fetch.redirected(redirect(PEER, EDGE), NOW)
    for node, bitfield in ((PEER, b"\xff" * 99), (EDGE, wire(EVERYTHING))):
        fetch.connected(node)
        fetch.have(node, bitfield, NOW)
    fetch.learn(MANIFEST, Bitfield(PIECES), NOW)
    assert [a.node for a in orders(fetch) if isinstance(a, Hangup)] == [PEER]
    assert set(fetch.sources.by_node) == {EDGE}
    with pytest.raises(ProtocolError):
        fetch.have(EDGE, b"\xff" * 99, NOW)
    fetch.redirected(redirect(PEER), NOW)
    assert not any(isinstance(action, Dial) for action in orders(fetch))


def test_a_rescue_asks_an_edge_for_the_missing_tail_only() -> None:
    fetch = fetching(PEER)
    fetch.wait(0, NOW)
    (first, *_) = asks(fetch)
    deliver(fetch, first, 3, NOW + 0.1)
    fetch.redirected(redirect(PEER, EDGE), NOW)
    fetch.connected(EDGE)
    fetch.have(EDGE, wire(EVERYTHING), NOW + 0.1)
    fetch.read(0, NOW + 0.1)
    orders(fetch)
    fetch.handle_timer(NOW + 3.0)
    after = orders(fetch)
    assert Cancel(first.request) in after
    (again,) = [a for a in after if isinstance(a, Ask) and a.piece == 0]
    assert (again.node, again.first_leaf, again.leaf_count) == (EDGE, 3, first.leaf_count - 3)


def test_a_silent_edge_is_left_for_a_peer_before_the_picture_stands_still() -> None:
    fetch = fetching(EDGE)
    fetch.read(0, NOW)
    first = asks(fetch)
    assert {ask.node for ask in first} == {EDGE}
    fetch.redirected(redirect(PEER, EDGE), NOW)
    fetch.connected(PEER)
    fetch.have(PEER, wire([0]), NOW)
    orders(fetch)
    fetch.handle_timer(NOW + 1.5)
    after = orders(fetch)
    assert Cancel(first[0].request) in after
    assert (PEER, 0) in [(a.node, a.piece) for a in after if isinstance(a, Ask)]


def test_a_source_that_sends_nothing_is_snubbed_and_left_alone_for_a_while() -> None:
    fetch = fetching(PEER)
    fetch.wait(0, NOW)
    (first,) = asks(fetch)
    fetch.handle_timer(NOW + SNUBBED_AFTER_SECONDS - 0.1)
    assert asks(fetch) == []
    fetch.handle_timer(NOW + SNUBBED_AFTER_SECONDS + 0.3)
    assert orders(fetch) == [Cancel(first.request)]
    fetch.handle_timer(NOW + SNUBBED_AFTER_SECONDS + 9.0)
    assert [ask.piece for ask in asks(fetch)] == [0]


def test_a_ticket_that_ran_out_is_renewed_and_the_source_asked_again() -> None:
    fetch = fetching(PEER)
    fetch.wait(0, NOW)
    (ask,) = asks(fetch)
    fetch.chunk_ended(ask.request, Reason.TICKET_EXPIRED, NOW + 1)
    assert fetch.locate_at == NOW + 1
    assert asks(fetch) == []
    fetch.redirected(redirect(PEER), NOW + 1.1)
    (sent,) = [a for a in orders(fetch) if isinstance(a, Send)]
    assert isinstance(sent.message, Join)
    fetch.have(PEER, wire(EVERYTHING), NOW + 1.2)
    assert [again.piece for again in asks(fetch)] == [0]


def test_peers_are_dialled_up_to_the_number_of_connections_and_edges_always() -> None:
    fetch = Fetch(MANIFEST.infohash, Random(1), Company())
    fetch.redirected(redirect(PEER, OTHER_PEER, THIRD_PEER, EDGE, OTHER_EDGE, connections=2), NOW)
    dialled = [a.node for a in orders(fetch) if isinstance(a, Dial)]
    assert dialled == [PEER, OTHER_PEER, EDGE, OTHER_EDGE]


def test_who_starts_with_us_is_looked_for_soon_and_later_less_often() -> None:
    fetch = Fetch(MANIFEST.infohash, Random(1), Company())
    fetch.redirected(redirect(), NOW)
    assert fetch.locate_at == NOW + LOCATE_AGAIN_SECONDS
    fetch.redirected(redirect(EDGE), NOW)
    pauses = [fetch.locate_at - NOW]
    fetch.connected(EDGE)
    fetch.have(EDGE, wire(EVERYTHING), NOW)
    for _ in range(4):
        fetch.redirected(redirect(EDGE), NOW)
        pauses.append(fetch.locate_at - NOW)
    assert pauses == sorted(pauses)
    assert pauses[0] < LOCATE_EVERY_SECONDS / 2
    assert pauses[-1] == LOCATE_EVERY_SECONDS


def test_when_all_is_held_sources_may_forget_us() -> None:
    fetch = fetching(EDGE, held=tuple(range(1, PIECES)))
    fetch.wait(0, NOW)
    (ask,) = asks(fetch)
    deliver(fetch, ask, ask.leaf_count, NOW)
    fetch.chunk_ended(ask.request, Reason.NONE, NOW)
    fetch.known.held.add(0)  # as the seeding half does, which shares the bitfield
    fetch.stored(0, True, NOW)
    assert orders(fetch) == [Send(EDGE, Leave(MANIFEST.infohash))]
    assert not fetch.wanted(NOW)


def test_a_waiting_reader_is_served_by_an_edge_before_the_player_loses_patience() -> None:
    fetch = fetching(EDGE)
    fetch.read(0, NOW)
    fetch.wait(PIECES - 1, NOW)  # shown in about 11 s
    assert PIECES - 1 not in [ask.piece for ask in asks(fetch)]
    fetch.sources.by_node[EDGE].outstanding_bytes = 0  # as if all before had come
    fetch.schedule(NOW + PATIENCE_SECONDS + 0.1)
    assert PIECES - 1 in [ask.piece for ask in asks(fetch)]


def test_two_who_download_together_begin_with_different_pieces() -> None:
    orders_of_two = []
    for seed in (1, 2):
        fetch = Fetch(MANIFEST.infohash, Random(seed), Company())
        fetch.learn(MANIFEST, Bitfield(PIECES), NOW)
        fetch.download(True, NOW)
        orders_of_two.append(fetch.known.download_order(set()))
    assert sorted(orders_of_two[0]) == list(EVERYTHING)
    assert orders_of_two[0] != orders_of_two[1]


def test_sources_that_cannot_be_reached_do_not_make_the_next_look_later() -> None:
    fetch = Fetch(MANIFEST.infohash, Random(1), Company())
    for _ in range(5):
        fetch.redirected(redirect(EDGE, PEER), NOW)
        assert fetch.locate_at == NOW + JOIN_SECONDS


def test_what_sources_gave_is_remembered_when_they_have_gone_or_been_left() -> None:
    fetch = fetching(PEER, held=tuple(range(1, PIECES)))
    fetch.wait(0, NOW)
    (ask,) = asks(fetch)
    deliver(fetch, ask, 2, NOW)
    fetch.drop(PEER, NOW)
    (former,) = fetch.sources.former.values()
    assert (former.node, former.taken_bytes, former.joined) == (PEER, 2 * LEAF_BYTES, False)
    fetch.redirected(redirect(PEER), NOW)
    assert not fetch.sources.former
    fetch.connected(PEER)
    fetch.have(PEER, wire(EVERYTHING), NOW)
    (rest,) = asks(fetch)
    deliver(fetch, rest, rest.leaf_count, NOW)
    fetch.chunk_ended(rest.request, Reason.NONE, NOW)
    fetch.known.held.add(0)
    fetch.stored(0, True, NOW)
    assert fetch.sources.all == []
    assert fetch.sources.former[PEER].taken_bytes == MANIFEST.piece_size(0)


def test_a_title_that_nobody_watches_any_more_leaves_its_sources_and_finds_them_again() -> None:
    fetch = fetching(EDGE, PEER)
    fetch.read(0, NOW)
    orders(fetch)
    idle_at = NOW + IDLE_SECONDS + 1
    fetch.handle_timer(idle_at)
    left = {Send(node, Leave(MANIFEST.infohash)) for node in (EDGE, PEER)}
    fetch.handle_timer(idle_at + LEAVE_AFTER_SECONDS - 1)
    fetch.locate_at = float("inf")  # as the peer sets it when nothing is wanted
    assert not left & set(orders(fetch))
    fetch.handle_timer(idle_at + LEAVE_AFTER_SECONDS)
    assert left <= set(orders(fetch))
    assert fetch.sources.all == []
    assert fetch.asleep()
    fetch.read(0, idle_at + 1000)
    assert fetch.locate_at == idle_at + 1000
