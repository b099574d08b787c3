from __future__ import annotations

from itertools import accumulate
from math import inf, isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.rate import WINDOW_GRAINS, RateMeter, RateWindow, TokenBucket

STEPS = st.lists(
    st.tuples(st.floats(-5, 5), st.integers(0, 5_000)), min_size=1, max_size=60
)  # seconds the clock moves (also back), bytes wanted


@given(rate=st.integers(0, 100_000), burst=st.integers(1, 10_000), steps=STEPS)
def test_a_patient_taker_keeps_to_the_rate(rate: int, burst: int, steps: list[tuple[float, int]]) -> None:
    """Whoever takes only what is there takes at most rate x W + burst in W, however the clock moves."""
    bucket = TokenBucket(rate, burst)
    now, taken = 100.0, 0
    first = last = now + steps[0][0]
    for step, wanted in steps:
        now += step
        last = max(last, now)
        if bucket.available(now) >= wanted:
            bucket.take(wanted, now)
            taken += wanted
        assert taken <= rate * (last - first) + burst + 1e-6


@given(rate=st.integers(1, 100_000), burst=st.integers(100, 10_000), debt=st.integers(0, 30_000))
def test_ready_at_is_the_earliest_time(rate: int, burst: int, debt: int) -> None:
    """At ready_at the bytes are there; shortly before they are not."""
    bucket = TokenBucket(rate, burst)
    bucket.take(debt, 10.0)
    ready_at = bucket.ready_at(100, 10.0)
    if ready_at > 10.0:
        assert bucket.available(10.0 + (ready_at - 10.0) * 0.99) < 100
    assert bucket.available(ready_at + 1e-6) >= 100 - 1e-3


def test_ready_never() -> None:
    bucket = TokenBucket(1000, 100)
    assert bucket.ready_at(101, 0.0) == inf
    assert bucket.ready_at(100, 0.0) == 0.0
    bucket.set_rate(0, 0.0)
    bucket.take(1, 0.0)
    assert bucket.ready_at(100, 0.0) == inf


def test_a_clock_stepping_back_mints_nothing_even_after_it_returns() -> None:
    bucket = TokenBucket(1000, 1000)
    bucket.take(1000, 50.0)
    for now in (40.0, 50.0, 10.0, 50.0):
        assert bucket.available(now) == 0
    assert bucket.ready_at(500, 40.0) == pytest.approx(50.5)
    assert bucket.available(50.25) == pytest.approx(250)


def test_a_new_rate_counts_from_its_moment_and_cuts_what_was_saved() -> None:
    bucket = TokenBucket(1000, 4000)
    bucket.take(4000, 0.0)
    bucket.set_rate(100, 1.0)
    assert bucket.available(2.0) == pytest.approx(1100)
    bucket.set_rate(100, 2.0, burst_bytes=500)
    assert (bucket.available(2.0), bucket.rate, bucket.burst_bytes) == (500, 100, 500)
    bucket.empty(2.0)
    assert bucket.available(2.0) == 0


@pytest.mark.parametrize(("rate", "burst"), [(-1, 10), (1, 0), (inf, 1), (1, inf), (float("nan"), 1)])
def test_absurd_buckets_are_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="bucket"):
        TokenBucket(rate, burst)


def test_a_meter_settles_at_the_rate_and_forgets() -> None:
    meter = RateMeter(time_constant_seconds=1.0)
    for now in accumulate([0.01] * 1000):
        meter.add(50, now)
    assert isclose(meter.rate(10.0), 5000, rel_tol=0.02)
    assert meter.rate(30.0) < 1
    assert meter.rate(5.0) < 1  # an older question gets no older answer
    assert RateMeter().rate(1.0) == 0
    with pytest.raises(ValueError, match="time constant"):
        RateMeter(0)


PASSED = st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1000)), max_size=60)


@given(passed=PASSED, seconds=st.sampled_from([0.1, 1.0]), later=st.floats(0, 2))
def test_a_window_never_says_less_than_passed(
    passed: list[tuple[float, float]], seconds: float, later: float
) -> None:
    """A window holds at least what passed in its length, and nothing that is older than that and a grain."""
    window = RateWindow(seconds)
    for at, amount in sorted(passed):
        window.add(amount, at)
    now = max((at for at, _ in passed), default=0.0) + later
    inside = sum(amount for at, amount in passed if at > now - seconds)
    about = sum(amount for at, amount in passed if at > now - seconds * (1 + 2 / WINDOW_GRAINS) - 1e-4)
    assert inside - 1e-6 <= window.total(now) <= about + 1e-6


@given(passed=PASSED, bound=st.floats(0, 5000))
def test_a_window_says_when_it_has_room(passed: list[tuple[float, float]], bound: float) -> None:
    """At the moment that it names no more than `bound` is in it, and just before that more is."""
    window = RateWindow(1.0)
    for at, amount in sorted(passed):
        window.add(amount, at)
    now = max((at for at, _ in passed), default=0.0)
    ready_at = window.ready_at(bound, now)
    if ready_at - 1e-6 > now:
        assert window.total(ready_at - 1e-6) > bound - 1e-6
    assert window.total(ready_at) <= bound + 1e-6


def test_a_clock_that_steps_back_stands_still_for_a_window() -> None:
    window = RateWindow(1.0)
    window.add(10.0, 5.0)
    window.add(10.0, 4.0)
    assert window.total(3.0) == 20.0
    assert window.total(5.5) == 20.0
    assert window.total(6.1) == 0.0
