"""Fetching one rendition, whatever sources and players do."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from peer.core.company import Company
from peer.core.fetch import Fetch
from shared.core.actions import Ask, Cancel, Dial, Hangup
from shared.core.bitfield import Bitfield
from shared.core.errors import Reason
from shared.core.ids import NodeId
from shared.core.merkle import LEAF_BYTES
from tests.fetch_parts import EVERYBODY, MANIFEST, NOW, PIECES, orders, redirect, wire

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
        self.company = Company()
        self.fetch = Fetch(MANIFEST.infohash, Random(3), self.company)
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
                    self.running.pop(action.request, None)  # or it fell with its connection
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
        assert set(self.company.owners) == set(self.running)
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
