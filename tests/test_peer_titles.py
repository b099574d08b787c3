"""The peer's core with several titles: what they share, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from peer.core.fetch import Fetch
from peer.core.peer import Peer
from shared.core.actions import Ask, Dial, Hangup, Send
from shared.core.errors import Reason
from shared.core.ids import InfoHash, Kind
from shared.core.merkle import LEAF_BYTES
from shared.core.messages import (
    Join,
    Locate,
    Redirect,
    Source,
    Why,
)
from tests.peer_parts import (
    AT,
    EDGE,
    OTHER,
    SWARM,
    TICKET,
    orders,
    peer,
    sent,
    watching,
)
from tests.tracker_parts import NOW, TRACKER_ID, hello
from tests.world_parts import film


def locate_other(core: Peer, now: float) -> Redirect:
    """The tracker's answer about the other title, of which the same edge is a source."""
    core.fetch(OTHER.infohash, now)
    (locate,) = [m for m in sent(core, now) if isinstance(m, Locate) and m.infohash == OTHER.infohash]
    source = Source(EDGE, str(AT), Kind.EDGE, "", 7, Why.EDGE_FIRST)
    return Redirect(locate.request, OTHER.infohash, OTHER.signer_id, TICKET, 3, (source,))


def joins(core: Peer) -> list[InfoHash]:
    return [a.message.infohash for a in orders(core) if isinstance(a, Send) and isinstance(a.message, Join)]


def test_a_second_title_joins_a_connected_source_and_leaves_the_first_alone() -> None:
    core = watching(peer())
    orders(core)
    core.receive(locate_other(core, NOW + 0.1), TRACKER_ID, NOW + 0.1)
    done = orders(core)
    assert not any(isinstance(action, Dial) for action in done)
    sends = [a.message for a in done if isinstance(a, Send) and a.to == EDGE]
    assert [m.infohash for m in sends if isinstance(m, Join)] == [OTHER.infohash]
    assert core.fetches[SWARM].sources.by_node[EDGE].joined


def test_a_source_that_came_back_is_joined_for_every_title() -> None:
    core = watching(peer())
    core.receive(locate_other(core, NOW + 0.1), TRACKER_ID, NOW + 0.1)
    orders(core)
    core.connected(EDGE, AT, hello(Kind.EDGE), NOW + 1)
    assert joins(core) == [SWARM, OTHER.infohash]
    assert not core.fetches[SWARM].sources.by_node[EDGE].joined


def test_who_sent_wrong_bytes_for_one_title_is_asked_for_no_other() -> None:
    core = watching(peer())
    (ask, *_) = [action for action in orders(core) if isinstance(action, Ask)]
    core.chunk_ended(ask.request, Reason.BAD_DATA, NOW)
    assert any(isinstance(action, Hangup) for action in orders(core))
    core.disconnected(EDGE, Reason.BAD_DATA, NOW)
    core.receive(locate_other(core, NOW + 0.1), TRACKER_ID, NOW + 0.1)
    assert not any(isinstance(action, Dial) for action in orders(core))
    assert core.fetches[OTHER.infohash].sources.all == []


def test_a_library_of_held_titles_costs_nothing_while_one_is_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core = watching(peer())
    for number in range(50):
        made, _ = film(seconds=4, bit_rate=100_000.0 + 800 * number)
        core.hold(made, frozenset(range(made.piece_count)), NOW)
    core.handle_timer(NOW + 0.1)
    (asked, *_) = [action for action in orders(core) if isinstance(action, Ask)]
    looked_at: list[InfoHash] = []
    for name in ("get_timer", "handle_timer", "leaf_arrived"):
        monkeypatch.setattr(Fetch, name, noting(getattr(Fetch, name), looked_at))
    core.get_timer()
    core.handle_timer(NOW + 0.2)
    core.leaf_arrived(asked.request, EDGE, LEAF_BYTES, NOW + 0.2)
    assert set(looked_at) == {SWARM}


def noting(method: Callable[..., Any], seen: list[InfoHash]) -> Callable[..., Any]:
    def noted(fetch: Fetch, *rest: Any) -> Any:
        seen.append(fetch.infohash)
        return method(fetch, *rest)

    return noted
