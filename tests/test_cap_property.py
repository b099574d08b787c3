"""However the estimate, the traffic and the clock move, what leaves stays under 60 % of the available
uplink: over the real gate and the real cap, in virtual time; and mutants of the gate are found out.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peer.core.upload_cap import FAST_LINE
from shared.core.gate import Gate, Pass
from tests.cap_world import Case, World, windows_of, worst_share

LINES = st.one_of(
    st.sampled_from([32_000.0, 250_000.0, 1_249_999.0, FAST_LINE, 6.25e6, 25e6]),
    st.floats(32_000.0, 6.25e6),
)
SEEDS = st.integers(0, 2**32)
ROUNDING = 1e-3  # bytes


def check(case: Case, gate_class: type[Gate[str]] = Gate) -> None:
    """The gate's own bound, to the byte, and the promise, for every window that counts."""
    world = World(case, gate_class)
    trace = world.run()
    assert trace.out
    assert trace.overrun_bytes <= ROUNDING
    for window in windows_of(case.line_rate):
        assert worst_share(world, trace, window) < 1.0


@st.composite
def short_cases(draw: st.DrawFn) -> Case:
    """Little more than the shortest window, with all kinds of traffic."""
    line = draw(LINES)
    return Case(
        line,
        seconds=0.18 if line >= FAST_LINE else 1.2,
        seed=draw(SEEDS),
        at_once_share=draw(st.sampled_from([0.0, 0.1, 0.9, 3.0])),
        full_datagrams=draw(st.booleans()),
        lateness_seconds=draw(st.sampled_from([0.0, 0.001, 0.02])),
        lulls=draw(st.sampled_from([(), ((0.05, 0.05),), ((0.1, 0.4),)])),
    )


@settings(max_examples=1200)
@given(short_cases())
def test_any_traffic_stays_under_the_cap(case: Case) -> None:
    """No 100 ms (from 10 Mbit/s up), 1 s or 10 s window reaches 60 % of the line, whatever is sent."""
    check(case)


MOMENTS = st.floats(0.0, 12.0)


@st.composite
def long_cases(draw: st.DrawFn) -> Case:
    """A quarter of a minute on a slow line on which everything moves."""
    line = draw(st.sampled_from([32_000.0, 125_000.0, 250_000.0]))
    shares = st.sampled_from([0.0, 0.003, 0.2, 0.4, 0.9, 1.0])
    household = sorted(draw(st.lists(st.tuples(MOMENTS, shares), max_size=3)))
    beliefs = sorted(draw(st.lists(st.tuples(MOMENTS, shares), max_size=2)))
    return Case(
        line,
        seconds=16.0,
        seed=draw(SEEDS),
        household=tuple((at, share * line) for at, share in household),
        at_once_share=draw(st.sampled_from([0.0, 0.1, 2.0])),
        lateness_seconds=0.002,
        sleeps=tuple(draw(st.lists(st.tuples(MOMENTS, st.sampled_from([0.5, 2.5, 3600.0])), max_size=1))),
        steps_back=tuple(draw(st.lists(st.tuples(MOMENTS, st.sampled_from([0.01, 1.5])), max_size=1))),
        lulls=tuple(draw(st.lists(st.tuples(MOMENTS, st.floats(0.1, 3.0)), max_size=2))),
        glitches=tuple(draw(st.lists(MOMENTS, max_size=2))),
        beliefs=tuple((at, share * line) for at, share in beliefs),
    )


@settings(max_examples=250)
@given(long_cases())
def test_any_afternoon_stays_under_the_cap(case: Case) -> None:
    """Two seconds after each change of household or line, every window is under 60 % of what is left."""
    check(case)


# -- that the test can fail -----------------------------------------------------------------------------


class OneByteMore(Gate[str]):
    def set_rate(self, rate: float | None, now: float, burst_bytes: float | None = None) -> None:
        super().set_rate(rate, now, None if burst_bytes is None else burst_bytes + 1)


class OneByteUncounted(Gate[str]):
    def charge(self, count: int, how: Pass, now: float) -> None:
        super().charge(count - 1, how, now)


class HeadersForgotten(Gate[str]):
    def charge(self, count: int, how: Pass, now: float) -> None:
        super().charge(max(0, count - 28), how, now)


class BurstDoubled(Gate[str]):
    def set_rate(self, rate: float | None, now: float, burst_bytes: float | None = None) -> None:
        super().set_rate(rate, now, None if burst_bytes is None else burst_bytes * 2)


class AcksUncounted(Gate[str]):
    def charge(self, count: int, how: Pass, now: float) -> None:
        super().charge(count if how is Pass.TURN else 0, how, now)


class AcksNeverWait(Gate[str]):
    def admits(self, now: float, datagrams: int = 1) -> bool:
        return True


class WindowsForgotten(Gate[str]):
    def _level(self, now: float) -> float:
        return self._bucket.available(now)


@pytest.mark.parametrize("line", [FAST_LINE, 6.25e6])
def test_a_gate_without_windows_is_found_out(line: float) -> None:
    """The bucket alone lets 100 ms hold a burst too much."""
    case = Case(line, 0.5, lulls=((0.1, 0.1),))
    check(case)
    with pytest.raises(AssertionError):
        check(case, WindowsForgotten)


MUTANTS = (OneByteMore, OneByteUncounted, HeadersForgotten, BurstDoubled, AcksUncounted, AcksNeverWait)


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("line", [250_000.0, FAST_LINE, 6.25e6])
def test_mutants_are_found_out(mutant: type[Gate[str]], line: float) -> None:
    """The same check fails for each gate that is only a little wrong."""
    seconds = 0.5 if line >= FAST_LINE else 3.0
    cases = [Case(line, seconds, at_once_share=share, lulls=((0.1, 0.1),)) for share in (0.0, 0.9, 3.0)]
    for case in cases:
        check(case)
    with pytest.raises(AssertionError):
        for case in cases:
            check(case, mutant)
