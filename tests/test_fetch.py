"""Fetching one rendition: a random machine over its invariants, and the rules one by one."""

from __future__ import annotations

from collections import Counter
from itertools import count
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from peer.core.fetch import LOCATE_AGAIN_SECONDS, LOCATE_EVERY_SECONDS, SNUBBED_AFTER_SECONDS, Fetch
from peer.core.wishes import PATIENCE_SECONDS
from shared.core.actions import Action, Ask, AskManifest, Cancel, Dial, Hangup, Send
from shared.core.bitfield import Bitfield
from shared.core.errors import ProtocolError, Reason
from shared.core.ids import Kind, NodeId
from shared.core.merkle import LEAF_BYTES
from shared.core.messages import Join, Leave, Redirect, Source, Why
from tests.world_parts import film

NOW = 5_000.0
MANIFEST, _ = film(seconds=12, bit_rate=2_000_000.0)
PIECES = MANIFEST.piece_count
EDGE, OTHER_EDGE = NodeId(b"E" * 32), NodeId(b"F" * 32)
PEER, OTHER_PEER, THIRD_PEER = NodeId(b"P" * 32), NodeId(b"Q" * 32), NodeId(b"R" * 32)
EVERYBODY = (EDGE, OTHER_EDGE, PEER, OTHER_PEER, THIRD_PEER)
EVERYTHING = range(PIECES)


def named(node: NodeId) -> Source:
    is_edge = node in (EDGE, OTHER_EDGE)
    kind, why = (Kind.EDGE, Why.EDGE_FIRST) if is_edge else (Kind.PC, Why.NEAR_PC)
    return Source(node, "192.0.2.1:4430", kind, "", 4, why)


def redirect(*nodes: NodeId, connections: int = 8) -> Redirect:
    return Redirect(
        1, MANIFEST.infohash, MANIFEST.signer_id, b"ticket", connections, tuple(map(named, nodes))
    )


def orders(fetch: Fetch) -> list[Action]:
    taken: list[Action] = []
    while (action := fetch.next_action()) is not None:
        taken.append(action)
    return taken


def asks(fetch: Fetch) -> list[Ask]:
    return [action for action in orders(fetch) if isinstance(action, Ask)]


def wire(pieces: range | list[int] | set[int]) -> bytes:
    return Bitfield(PIECES, pieces).to_wire()


def fetching(*nodes: NodeId, held: tuple[int, ...] = ()) -> Fetch:
    """A fetch whose sources let us in and hold everything."""
    fetch = Fetch(MANIFEST.infohash, Random(1), count(1))
    fetch.redirected(redirect(*nodes), NOW)
    fetch.learn(MANIFEST, Bitfield(PIECES, held), NOW)
    for node in nodes:
        fetch.connected(node)
        fetch.have(node, wire(EVERYTHING), NOW)
    orders(fetch)
    return fetch


def deliver(fetch: Fetch, ask: Ask, leaves: int, now: float) -> None:
    """The first leaves of a request arrive."""
    piece_size = MANIFEST.piece_size(ask.piece)
    for leaf in range(ask.first_leaf, ask.first_leaf + leaves):
        assert fetch.leaf_arrived(ask.request, min(LEAF_BYTES, piece_size - leaf * LEAF_BYTES), now)


# -- the random machine -----------------------------------------------------------------------

FAILURES = [
    Reason.BAD_DATA,
    Reason.NOT_HELD,
    Reason.BUSY,
    Reason.TICKET_EXPIRED,
    Reason.NOT_SHARING,
    Reason.TIMEOUT,
    Reason.SHUTDOWN,
]


class FetchMachine(RuleBasedStateMachine):
    """Whatever sources and players do: a source's outstanding bytes are those of its running
    requests, no piece is asked twice at once or when it is here, every request continues where
    the last one ended, and who sent bad bytes is never asked again."""

    def __init__(self) -> None:
        super().__init__()
        self.fetch = Fetch(MANIFEST.infohash, Random(3), count(1))
        self.held = Bitfield(PIECES)
        self.fetch.learn(MANIFEST, self.held, NOW)
        self.now = NOW
        self.running: dict[int, Ask] = {}
        self.arrived: Counter[int] = Counter()  # leaves of unfinished pieces
        self.whole: list[int] = []  # pieces on their way into the store
        self.waits: list[int] = []
        self.members: set[NodeId] = set()
        self.banned: set[NodeId] = set()

    def carry_out(self) -> None:
        for action in orders(self.fetch):
            match action:
                case Ask():
                    self.check(action)
                    self.running[action.request] = action
                case Cancel():
                    del self.running[action.request]
                case Dial():
                    assert action.node not in self.banned
                case Hangup():
                    self.banned.add(action.node)
                    self.gone(action.node)

    def check(self, ask: Ask) -> None:
        source = self.fetch.sources.by_node[ask.node]
        assert source.joined
        assert ask.node not in self.banned
        assert not self.fetch.known.here(ask.piece)
        assert ask.piece not in self.whole
        assert all(other.piece != ask.piece for other in self.running.values())
        assert ask.first_leaf == self.arrived[ask.piece]
        assert ask.leaf_count >= 1
        assert ask.first_leaf + ask.leaf_count == MANIFEST.leaf_count(ask.piece)

    def gone(self, node: NodeId) -> None:
        self.members.discard(node)
        self.running = {n: ask for n, ask in self.running.items() if ask.node != node}

    @rule(nodes=st.sets(st.sampled_from(EVERYBODY)), connections=st.integers(1, 4))
    def tracker_answers(self, nodes: set[NodeId], connections: int) -> None:
        self.fetch.redirected(redirect(*sorted(nodes), connections=connections), self.now)
        self.carry_out()

    @rule(node=st.sampled_from(EVERYBODY), pieces=st.sets(st.integers(0, PIECES - 1)))
    def source_lets_us_in(self, node: NodeId, pieces: set[int]) -> None:
        if node in self.fetch.sources.by_node and node not in self.members:
            self.fetch.connected(node)
            self.fetch.have(node, wire(pieces), self.now)
            self.members.add(node)
        self.carry_out()

    @rule(node=st.sampled_from(EVERYBODY), pieces=st.sets(st.integers(0, PIECES - 1)))
    def source_has_more(self, node: NodeId, pieces: set[int]) -> None:
        self.fetch.gained(node, tuple(sorted(pieces)), self.now)
        self.carry_out()

    @rule(node=st.sampled_from(EVERYBODY), pieces=st.sets(st.integers(0, PIECES - 1)))
    def source_has_less(self, node: NodeId, pieces: set[int]) -> None:
        self.fetch.gave_up(node, tuple(sorted(pieces)))

    @rule(node=st.sampled_from(EVERYBODY))
    def source_disconnects(self, node: NodeId) -> None:
        self.fetch.drop(node, self.now)
        self.carry_out()
        self.gone(node)

    @rule(offset=st.integers(0, MANIFEST.length - 1))
    def player_reads(self, offset: int) -> None:
        self.fetch.read(offset, self.now)
        self.carry_out()

    @rule(piece=st.integers(0, PIECES - 1))
    def reader_waits(self, piece: int) -> None:
        self.fetch.wait(piece, self.now)
        self.waits.append(piece)
        self.carry_out()

    @precondition(lambda self: self.waits)
    @rule()
    def reader_leaves(self) -> None:
        self.fetch.stop_waiting(self.waits.pop())

    @rule(wanted=st.booleans())
    def user_downloads(self, wanted: bool) -> None:
        self.fetch.download(wanted, self.now)
        self.carry_out()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), leaves=st.integers(1, 16))
    def leaves_arrive(self, data: st.DataObject, leaves: int) -> None:
        ask = self.running[data.draw(st.sampled_from(sorted(self.running)))]
        piece = ask.piece
        for _ in range(min(leaves, MANIFEST.leaf_count(piece) - self.arrived[piece])):
            size = min(LEAF_BYTES, MANIFEST.piece_size(piece) - self.arrived[piece] * LEAF_BYTES)
            assert self.fetch.leaf_arrived(ask.request, size, self.now)
            self.arrived[piece] += 1
        if self.arrived[piece] == MANIFEST.leaf_count(piece):
            del self.running[ask.request]
            self.whole.append(piece)
            self.fetch.chunk_ended(ask.request, Reason.NONE, self.now)
        self.carry_out()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), reason=st.sampled_from(FAILURES))
    def request_fails(self, data: st.DataObject, reason: Reason) -> None:
        number = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[number]
        self.fetch.chunk_ended(number, reason, self.now)
        self.members = {s.node for s in self.fetch.sources.all if s.joined}
        self.carry_out()

    @precondition(lambda self: self.whole)
    @rule(held=st.booleans())
    def store_answers(self, held: bool) -> None:
        piece = self.whole.pop(0)
        del self.arrived[piece]
        if held:
            self.held.add(piece)
        self.fetch.stored(piece, held, self.now)
        self.carry_out()

    @precondition(lambda self: self.fetch.known.unstored)
    @rule()
    def memory_runs_out(self) -> None:
        self.fetch.faded(min(self.fetch.known.unstored))

    @rule(piece=st.integers(0, PIECES - 1))
    def part_is_dropped(self, piece: int) -> None:
        busy = piece in self.whole or any(ask.piece == piece for ask in self.running.values())
        self.fetch.forget_part(piece)
        if not busy:
            self.arrived.pop(piece, None)

    @rule(number=st.integers(1, 50))
    def late_news_of_a_request_that_ended(self, number: int) -> None:
        if number not in self.running:
            assert not self.fetch.leaf_arrived(number, LEAF_BYTES, self.now)
            self.fetch.chunk_ended(number, Reason.CANCELLED, self.now)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 5.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.fetch.handle_timer(self.now)
        self.carry_out()

    @invariant()
    def outstanding_bytes_are_those_of_running_requests(self) -> None:
        assert {n for n in range(200) if self.fetch.owns(n)} == set(self.running)
        missing: Counter[NodeId] = Counter()
        for ask in self.running.values():
            missing[ask.node] += MANIFEST.piece_size(ask.piece) - self.arrived[ask.piece] * LEAF_BYTES
        for source in self.fetch.sources.all:
            assert source.outstanding_bytes == missing[source.node]
        assert set(missing) <= set(self.fetch.sources.by_node)

    @invariant()
    def a_timer_runs_while_something_is_wanted(self) -> None:
        if self.running:
            assert self.fetch.get_timer() < float("inf") or not self.fetch.wanted(self.now)


TestFetchMachine = FetchMachine.TestCase
TestFetchMachine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)


# -- the rules one by one ---------------------------------------------------------------------


def test_the_manifest_is_asked_once_of_an_edge_first_and_then_of_the_next() -> None:
    fetch = Fetch(MANIFEST.infohash, Random(1), count(1))
    fetch.redirected(redirect(PEER, EDGE), NOW)
    for node in (EDGE, PEER):
        fetch.connected(node)
        fetch.have(node, wire(EVERYTHING), NOW)
    wanted = [action for action in orders(fetch) if isinstance(action, AskManifest)]
    assert wanted == [AskManifest(EDGE, MANIFEST.infohash, MANIFEST.signer_id)]
    fetch.manifest_failed(EDGE, NOW)
    assert AskManifest(PEER, MANIFEST.infohash, MANIFEST.signer_id) in orders(fetch)


def test_a_source_whose_bitfield_does_not_fit_the_manifest_is_banned() -> None:
    fetch = Fetch(MANIFEST.infohash, Random(1), count(1))
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
    fetch.have(PEER, wire(EVERYTHING), NOW)
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
    fetch.handle_timer(NOW + SNUBBED_AFTER_SECONDS + 0.1)
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
    fetch = Fetch(MANIFEST.infohash, Random(1), count(1))
    fetch.redirected(redirect(PEER, OTHER_PEER, THIRD_PEER, EDGE, OTHER_EDGE, connections=2), NOW)
    dialled = [a.node for a in orders(fetch) if isinstance(a, Dial)]
    assert dialled == [PEER, OTHER_PEER, EDGE, OTHER_EDGE]


def test_who_starts_with_us_is_looked_for_soon_and_later_less_often() -> None:
    fetch = Fetch(MANIFEST.infohash, Random(1), count(1))
    fetch.redirected(redirect(), NOW)
    assert fetch.locate_at == NOW + LOCATE_AGAIN_SECONDS
    pauses = []
    for _ in range(5):
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
        fetch = Fetch(MANIFEST.infohash, Random(seed), count(1))
        fetch.learn(MANIFEST, Bitfield(PIECES), NOW)
        fetch.download(True, NOW)
        orders_of_two.append(fetch.known.download_order(set()))
    assert sorted(orders_of_two[0]) == list(EVERYTHING)
    assert orders_of_two[0] != orders_of_two[1]
