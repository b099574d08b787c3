from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.pacer import (
    BURST_DATAGRAMS,
    BURST_SECONDS,
    LEAST_BURST_DATAGRAMS,
    QUANTUM_SECONDS,
    SLOW_BURST_DATAGRAMS,
    SLOW_BURST_SECONDS,
    Pacer,
)
from shared.core.passes import COUNTING_SECONDS, MAX_SPACING_SECONDS, PASS_SECONDS, Passes

SIZE = 1350


def greedy(pacer: Pacer, late: float, until: float) -> tuple[list[tuple[float, int]], int]:
    """A sender that sends all it may and comes back when told, or later: what left when, and its wake-ups."""
    now, wakes = 0.0, 0
    sent: list[tuple[float, int]] = []
    while now < until:
        count = pacer.allowance(now)
        if count:
            pacer.spend(count * SIZE, now)
            sent.append((now, count * SIZE))
        now = pacer.ready_at(now) + 1e-7 + late
        wakes += 1
    return sent, wakes


@given(rate=st.floats(20_000, 1e9), late=st.floats(0.0, 0.0015))
def test_no_window_holds_more_than_the_rate_and_a_burst(rate: float, late: float) -> None:
    """In any W seconds at most rate x W + the burst leaves; with timers on time, nearly that leaves."""
    pacer = Pacer(SIZE)
    pacer.set_rate(rate, 0.0)
    until = min(2.0, 400 * max(QUANTUM_SECONDS, SIZE / rate))
    sent, _ = greedy(pacer, late, until)
    slow = min(SLOW_BURST_SECONDS * rate, SLOW_BURST_DATAGRAMS * SIZE)
    burst = max(BURST_SECONDS * rate, slow, LEAST_BURST_DATAGRAMS * SIZE)
    burst = min(burst, BURST_DATAGRAMS * SIZE)
    for first in range(0, len(sent), 17):
        total = 0
        for at, size in sent[first:]:
            total += size
            assert total <= rate * (at - sent[first][0]) + burst + SIZE
    if rate * (late + QUANTUM_SECONDS) < burst / 2:
        assert sum(size for _, size in sent) >= 0.95 * rate * until - burst


@given(
    rate=st.floats(1_000, 1e9),
    sizes=st.lists(st.sampled_from([1200, 1350, 1452, 8900]), min_size=1, max_size=6),
    began_at=st.floats(0.0, 1e6),
    first=st.integers(0, 40_000),
)
def test_who_may_not_send_is_told_a_later_moment_and_may_send_then(
    rate: float, sizes: list[int], began_at: float, first: int
) -> None:
    """Whatever datagrams grow or shrink to: no datagram now means a wait, and one after it."""
    pacer, now = Pacer(SIZE), began_at
    pacer.set_rate(rate, now)
    pacer.spend(first, now)
    for size in sizes:
        pacer.datagram_bytes = size
        while pacer.allowance(now):
            pacer.spend(size, now)
        assert pacer.ready_at(now) > now
        now = pacer.ready_at(now) + 1e-6
        assert pacer.allowance(now) > 0


@pytest.mark.parametrize(("rate", "most"), [(100e6, 1000), (5e6, 950), (1e6, 260)])
def test_few_wake_ups_a_second(rate: float, most: int) -> None:
    pacer = Pacer(SIZE)
    pacer.set_rate(rate, 0.0)
    sent, wakes = greedy(pacer, 0.0005, 1.0)
    assert wakes <= most
    assert sum(size for _, size in sent) > 0.95 * rate


def test_it_is_open_until_a_rate_is_set_and_absurd_rates_are_slow_ones() -> None:
    pacer = Pacer(SIZE)
    assert pacer.allowance(5.0) == BURST_DATAGRAMS
    pacer.spend(BURST_DATAGRAMS * SIZE, 5.0)
    assert pacer.ready_at(5.0) >= 5.0
    assert pacer.allowance(5.1) == BURST_DATAGRAMS
    for rate in (0.0, -1.0, float("nan")):
        pacer.set_rate(rate, 6.0)
        assert pacer.rate == SIZE
        assert pacer.allowance(6.0) == LEAST_BURST_DATAGRAMS
    pacer.spend(100 * SIZE, 6.0)
    assert 90 < pacer.ready_at(6.0) - 6.0 < 100
    assert pacer.allowance(1.0) == 0  # an earlier time mints nothing
    assert pacer.ready_at(6.0) < inf


def test_passes_are_spaced_by_how_many_others_send() -> None:
    passes: Passes[int] = Passes()
    for round_at in (0.0, COUNTING_SECONDS):
        for sender in range(51):
            passes.next_at(sender, round_at)
            passes.passed(sender, round_at)
    now = 2 * COUNTING_SECONDS
    passes.passed(7, now)
    assert passes.next_at(7, now) == pytest.approx(now + 50 * PASS_SECONDS)
    assert passes.next_at(99, now) == -inf  # never passed
    passes.discard(7)
    assert passes.next_at(7, now) == -inf
    assert passes.next_at(3, now + COUNTING_SECONDS) <= now  # they have stopped
    for sender in range(10_000):
        passes.passed(sender, now + 1)
    assert passes.next_at(5, now + 1) == pytest.approx(now + 1 + MAX_SPACING_SECONDS)


def test_a_single_sender_never_waits() -> None:
    passes: Passes[str] = Passes()
    for step in range(1000):
        assert passes.next_at("a", step / 1000) <= step / 1000
        passes.passed("a", step / 1000)
