"""Many who fetch the same: who leads, who is met, what a crowd shares out, and what waits in a queue."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core import picker
from peer.core.company import Company, Neighbour
from peer.core.fetch import Fetch
from peer.core.rescue import LONGEST_SILENCE_SECONDS, RELIEVED_AFTER_SECONDS, SNUBBED_AFTER_SECONDS
from peer.core.sources import MOST_PEERS
from peer.core.wishes import DOWNLOAD_PATIENCE_SECONDS, PATIENCE_SECONDS
from shared.core.actions import Ask, Cancel, Dial, Send
from shared.core.bitfield import Bitfield
from shared.core.bulk import NO_DEADLINE_MS
from shared.core.ids import HostPort, Kind, NodeId
from shared.core.messages import Join
from tests.fetch_parts import (
    EDGE,
    MANIFEST,
    NOW,
    OTHER_PEER,
    PEER,
    PIECES,
    asks,
    deliver,
    fetching,
    orders,
    redirect,
    wire,
)
from tests.test_picker import edge, source

AT = HostPort("192.0.2.9", 4430)


# -- downloads --------------------------------------------------------------------------------


def test_who_saves_a_file_sets_no_deadlines_and_leaves_the_edge_what_few_peers_have() -> None:
    fetch = fetching(EDGE, PEER)
    fetch.download(True, NOW)
    fetch.known.playhead.pass_by(0)
    fetch.wait(0, NOW, DOWNLOAD_PATIENCE_SECONDS)
    asked = asks(fetch)
    assert {ask.node for ask in asked} == {PEER}  # which holds everything; what is over its room waits
    assert all(ask.slack_ms == NO_DEADLINE_MS for ask in asked if ask.piece != 0)
    fetch.sources.by_node[PEER].busy_until = NOW + 1000
    fetch.schedule(NOW + DOWNLOAD_PATIENCE_SECONDS - 1)
    assert asks(fetch) == []


def test_a_saving_reader_waits_longer_than_a_player_but_not_for_ever() -> None:
    fetch = fetching(EDGE)
    fetch.sources.by_node[EDGE].busy_until = NOW + 1000
    fetch.wait(0, NOW, DOWNLOAD_PATIENCE_SECONDS)
    assert fetch.known.need(0, NOW) == DOWNLOAD_PATIENCE_SECONDS
    fetch.wait(0, NOW, PATIENCE_SECONDS)
    assert fetch.known.need(0, NOW) == PATIENCE_SECONDS  # the least patient of them counts


def test_a_download_asks_for_what_peers_offer_rarest_first() -> None:
    fetch = fetching(EDGE, PEER, OTHER_PEER)
    fetch.sources.by_node[PEER].held = Bitfield(PIECES, (2, 5))
    fetch.sources.by_node[OTHER_PEER].held = Bitfield(PIECES, (5,))
    fetch.download(True, NOW)
    first = {ask.node: ask.piece for ask in reversed(asks(fetch))}
    assert first[PEER] == 2  # it alone has it
    assert first[OTHER_PEER] == 5
    assert first[EDGE] not in (2, 5)


def test_what_nobody_needs_soon_may_wait_in_a_queue() -> None:
    fetch = fetching(PEER)
    fetch.download(True, NOW)
    assert asks(fetch)
    fetch.handle_timer(NOW + LONGEST_SILENCE_SECONDS - 1)
    assert not any(isinstance(action, Cancel) for action in orders(fetch))
    fetch.handle_timer(NOW + LONGEST_SILENCE_SECONDS + 1)
    assert any(isinstance(action, Cancel) for action in orders(fetch))
    assert LONGEST_SILENCE_SECONDS > SNUBBED_AFTER_SECONDS


# -- who is met -------------------------------------------------------------------------------


def met(fetch: Fetch, company: Company, node: NodeId, kind: Kind = Kind.PC, shares: bool = True) -> bool:
    company.connected[node] = Neighbour(AT, kind, shares)
    fetch.sources.met(node)
    return node in fetch.sources.by_node


def test_who_comes_to_us_with_a_ticket_is_joined_and_takes_no_named_place() -> None:
    company = Company()
    fetch = Fetch(MANIFEST.infohash, Random(1), company)
    assert not met(fetch, company, PEER)  # we have no ticket to show yet
    fetch.redirected(redirect(EDGE, connections=1), NOW)
    orders(fetch)
    assert met(fetch, company, PEER)
    (join,) = orders(fetch)
    assert isinstance(join, Send)
    assert isinstance(join.message, Join)
    fetch.redirected(redirect(OTHER_PEER, connections=1), NOW)
    assert any(isinstance(action, Dial) and action.node == OTHER_PEER for action in orders(fetch))


@pytest.mark.parametrize(("kind", "shares"), [(Kind.MOBILE, True), (Kind.EDGE, True), (Kind.PC, False)])
def test_who_does_not_upload_is_not_met(kind: Kind, shares: bool) -> None:
    company = Company()
    fetch = Fetch(MANIFEST.infohash, Random(1), company)
    fetch.redirected(redirect(EDGE), NOW)
    assert not met(fetch, company, PEER, kind, shares)


def test_the_banned_are_not_met_and_strangers_only_so_many() -> None:
    company = Company()
    fetch = Fetch(MANIFEST.infohash, Random(1), company)
    fetch.redirected(redirect(EDGE), NOW)
    fetch.ban(PEER, NOW)
    assert not met(fetch, company, PEER)
    known = [met(fetch, company, NodeId(bytes([n]) * 32)) for n in range(MOST_PEERS + 3)]
    assert sum(known) == MOST_PEERS


# -- a crowd at the edge ----------------------------------------------------------------------


def test_a_request_that_waits_at_the_edge_goes_to_a_peer_that_got_the_piece() -> None:
    fetch = fetching(EDGE)
    fetch.read(0, NOW)
    waiting, begun = asks(fetch)[:2]
    deliver(fetch, begun, 1, NOW + 0.1)
    fetch.redirected(redirect(PEER, EDGE), NOW)
    fetch.connected(PEER)
    fetch.have(PEER, wire([waiting.piece, begun.piece]), NOW)
    orders(fetch)
    fetch.handle_timer(NOW + RELIEVED_AFTER_SECONDS + 0.1)
    after = orders(fetch)
    moved = [a.piece for a in after if isinstance(a, Ask) and a.node == PEER]
    assert Cancel(waiting.request) in after
    assert waiting.piece in moved
    assert begun.piece not in moved  # of it some is here, and more on its way


def test_who_leads_goes_to_the_edge_first_and_who_follows_leaves_it_the_front() -> None:
    def window(*peers: object, held: int = 10) -> float:
        return picker.edge_window([edge(), *peers], 3, held, luck=1.0)  # type: ignore[list-item]

    behind = source("A", Kind.PC, 5e5, 0, 4)
    level = source("B", Kind.PC, 5e5, 0, *range(8, 18))
    assert window(behind, held=1 + picker.BEHIND_PIECES) == picker.EDGE_WINDOW_SECONDS
    assert window(level) == picker.SHARED_WINDOW_SECONDS + picker.SPREAD_SECONDS
    level.leads(2)
    assert window(level) == picker.EDGE_WINDOW_SECONDS  # it was ahead once, so it is ahead in the film


@given(st.lists(st.integers(0, 19), unique=True), st.randoms(use_true_random=False), st.booleans())
def test_a_crowd_shares_out_and_loses_nothing(pieces: list[int], dice: Random, is_crowded: bool) -> None:
    """Every wanted piece comes once, with its slack; in order, unless the edge is crowded and others are
    there; then what others have comes first."""
    luck = {piece: dice.random() for piece in range(20)}
    crowded = edge(rate=picker.QUICK_EDGE_RATE / 2 if is_crowded else 2 * picker.QUICK_EDGE_RATE)
    peer = source("A", Kind.PC, 5e5, 0, 3, 4)
    wanted = [(piece, piece / 2) for piece in sorted(pieces)]
    spread = list(picker.spread(iter(wanted), [crowded, peer], luck.__getitem__))
    assert sorted(spread) == wanted
    if not is_crowded:
        assert spread == wanted
    else:
        rest = [piece for piece, _ in spread if piece not in (3, 4)]
        assert rest == sorted(rest, key=luck.__getitem__)
        assert all(piece in (3, 4) for piece, _ in spread[: len(spread) - len(rest)])


def test_an_edge_is_told_a_drawn_slack_where_the_order_of_viewers_must_differ() -> None:
    spread = picker.START_SPREAD_SECONDS
    assert picker.slack_at_edge(edge(), 3.0, 0.25, is_start=True) == spread + (3.0 - spread) * 0.25
    assert picker.slack_at_edge(edge(), 0.5, 0.25, is_start=True) == 0.5  # what is shown first comes first
    assert picker.slack_at_edge(edge(), 5.0, 0.25, is_start=False) == 5.0
    crowded = edge(rate=picker.QUICK_EDGE_RATE / 2)
    assert picker.slack_at_edge(crowded, 5.0, 0.25, is_start=False) == 0.25 * spread
    assert picker.slack_at_edge(crowded, 30.0, 0.25, is_start=False) == 30.0


def test_the_first_picture_comes_from_the_edge_unless_that_is_crowded() -> None:
    quick_peer = source("A", rate=2_000_000.0)
    size = MANIFEST.piece_length
    whole, crowded = edge(), edge(rate=picker.QUICK_EDGE_RATE / 2)
    assert picker.choose_for_start([whole, quick_peer], 3, size, NOW) is whole
    assert picker.choose_for_start([crowded, quick_peer], 3, size, NOW) is quick_peer
    assert picker.choose_for_start([crowded], 3, size, NOW) is crowded


# -- rescue in a busy swarm -------------------------------------------------------------------


def test_news_that_never_ceases_does_not_put_the_rescue_off() -> None:
    fetch = fetching(PEER)
    fetch.wait(0, NOW)
    (first,) = asks(fetch)
    now = NOW
    while now < NOW + SNUBBED_AFTER_SECONDS + 1.0:
        now += 0.1
        fetch.gained(PEER, (1,), now)
        if now >= fetch.get_timer():
            fetch.handle_timer(now)
    assert Cancel(first.request) in orders(fetch)


def test_a_source_is_seen_to_be_slow_while_it_works() -> None:
    peer = source("A", rate=200_000.0)
    peer.promised(100_000, NOW)
    peer.leaf_arrived(20_000, NOW + 0.5)
    assert peer.rate_seen(NOW + 0.9) == 200_000.0  # too soon to say
    assert peer.rate_seen(NOW + 2.0) == 10_000.0
    peer.leaf_arrived(80_000, NOW + 2.0)
    assert peer.rate_seen(NOW + 9.0) == 200_000.0  # it has nothing to do
