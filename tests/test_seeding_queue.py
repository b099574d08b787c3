"""The queue of requests, whatever guests do."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.core.actions import Decline, Serve
from shared.core.bulk import PieceRequest
from shared.core.ids import NodeId
from shared.core.seeding import QUEUE_PER_GUEST, SERVING_PER_GUEST
from tests.seeding_parts import ANN, BOB, EVE, SIZE, SWARM, join, orders, serving
from tests.tracker_parts import NOW


class QueueMachine(RuleBasedStateMachine):
    """However guests ask and leave: never more than `slots` are served at once, nor more than
    two of one guest; nobody waits while a place is free for it; every request is answered once."""

    def __init__(self) -> None:
        super().__init__()
        self.core = serving(ANN, BOB, EVE, slots=4)
        self.numbers = 0
        self.asked: dict[int, tuple[NodeId, float]] = {}
        self.under_way: set[int] = set()
        self.answered: Counter[int] = Counter()

    def take_orders(self) -> None:
        for action in orders(self.core):
            assert isinstance(action, Serve | Decline)
            self.answered[action.request] += 1
            assert self.answered[action.request] == 1
            if isinstance(action, Serve):
                self.check_order(action.request)
                self.under_way.add(action.request)
            else:
                del self.asked[action.request]

    def check_order(self, number: int) -> None:
        mine, deadline = self.asked[number]
        waiting = [n for n in self.asked if n not in self.under_way and n != number]
        serving_now = Counter(self.asked[n][0] for n in self.under_way)
        for other in waiting:
            guest, due = self.asked[other]
            assert due >= deadline or serving_now[guest] >= SERVING_PER_GUEST, (number, other, mine)

    @rule(guest=st.sampled_from((ANN, BOB, EVE)), slack_ms=st.integers(0, 10_000))
    def request(self, guest: NodeId, slack_ms: int) -> None:
        self.numbers += 1
        mine = sum(1 for who, _ in self.asked.values() if who == guest)
        self.asked[self.numbers] = (guest, NOW + slack_ms / 1000)
        self.core.requested(self.numbers, PieceRequest(SWARM, 1, 0, 1, slack_ms), guest, SIZE, NOW)
        self.take_orders()
        assert (self.numbers not in self.asked) == (mine >= QUEUE_PER_GUEST)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.asked)))
        del self.asked[number]
        self.under_way.discard(number)
        self.core.served(number)
        self.take_orders()

    @rule(guest=st.sampled_from((ANN, BOB, EVE)))
    def reconnects(self, guest: NodeId) -> None:
        gone = {n for n, (who, _) in self.asked.items() if who == guest}
        for number in gone:
            del self.asked[number]
        self.under_way -= gone
        self.core.disconnected(guest)
        self.take_orders()
        join(self.core, guest)

    @invariant()
    def places_are_kept_and_used(self) -> None:
        per_guest = Counter(self.asked[number][0] for number in self.under_way)
        assert len(self.under_way) <= 4
        assert all(places <= SERVING_PER_GUEST for places in per_guest.values())
        waiting = {who for n, (who, _) in self.asked.items() if n not in self.under_way}
        if len(self.under_way) < 4:
            assert all(per_guest[guest] == SERVING_PER_GUEST for guest in waiting)
        statistics = self.core.statistics()
        assert statistics.serving == len(self.under_way)
        assert statistics.waiting == len(self.asked) - len(self.under_way)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
