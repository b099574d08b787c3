"""Consent: mode, pause, quiet hours, budgets and metered networks each end uploading, and only uploading."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.core.consent import DAY_SECONDS, Choice, Terms, Use, Verdict, Why, judge, left_bytes
from peer.core.worst_windows import WorstWindows
from shared.core.ids import Mode

HOUR = 3600.0
SHARED = Choice(Mode.SHARED)
NOON = Use(day_bytes=100, month_bytes=1000, local_seconds=12 * HOUR, network="wlan0 c0:ff:ee:00:00:01")
NIGHT = Terms(quiet_hours=((22 * HOUR, 7 * HOUR),))


def at_second(second: float) -> Use:
    return Use(100, 1000, float(second), "eth0")


def at(hour: float, **told: object) -> Use:
    return Use(100, 1000, hour * HOUR, "eth0", **told)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("terms", "choice", "use", "verdict"),
    [
        (Terms(), SHARED, NOON, Verdict(Why.SHARED)),
        (Terms(), Choice(Mode.DIRECT), NOON, Verdict(Why.DIRECT)),
        (Terms(), Choice(Mode.SHARED, 1500.0), NOON, Verdict(Why.PAUSED, 1500.0)),
        (Terms(), Choice(Mode.SHARED, 1000.0), NOON, Verdict(Why.SHARED)),
        (Terms(), Choice(Mode.SHARED, inf), NOON, Verdict(Why.PAUSED)),
        (Terms(metered=frozenset({"wlan0"})), SHARED, NOON, Verdict(Why.METERED)),
        (Terms(metered=frozenset({"wlan"})), SHARED, NOON, Verdict(Why.SHARED)),
        (Terms(), Choice(Mode.SHARED, metered=frozenset({NOON.network})), NOON, Verdict(Why.METERED)),
        (NIGHT, SHARED, at(21.99), Verdict(Why.SHARED)),
        (NIGHT, SHARED, at(22), Verdict(Why.QUIET_HOURS, 1000 + 9 * HOUR)),
        (NIGHT, SHARED, at(6.5), Verdict(Why.QUIET_HOURS, 1000 + HOUR / 2)),
        (NIGHT, SHARED, at(7), Verdict(Why.SHARED)),
        (Terms(day_budget=100), SHARED, at(18), Verdict(Why.DAY_BUDGET, 1000 + 6 * HOUR)),
        (Terms(day_budget=101), SHARED, at(18), Verdict(Why.SHARED)),
        (Terms(month_budget=1000), SHARED, at(18), Verdict(Why.MONTH_BUDGET)),
        (Terms(day_budget=101), SHARED, at(18, is_kept=False), Verdict(Why.UNKNOWN_USE)),
        (Terms(), SHARED, at(18, is_kept=False), Verdict(Why.SHARED)),
    ],
)
def test_each_of_them_ends_uploading(terms: Terms, choice: Choice, use: Use, verdict: Verdict) -> None:
    assert judge(terms, choice, use, 1000.0) == verdict
    assert verdict.may_upload == (verdict.why is Why.SHARED)


SECONDS = st.integers(0, 86_399)


@given(SECONDS, SECONDS, SECONDS)
def test_quiet_hours_are_over_when_they_say(begin: int, end: int, now: int) -> None:
    """Inside a stretch nothing is uploaded, and at `until` it is over, to the second; outside it is."""
    if begin == end:
        return
    terms = Terms(quiet_hours=((float(begin), float(end)),))
    inside = begin <= now < end if begin < end else now >= begin or now < end
    verdict = judge(terms, SHARED, at_second(now), 0.0)
    assert verdict.may_upload != inside
    if inside:
        later = (now + verdict.until) % DAY_SECONDS
        assert judge(terms, SHARED, at_second(later + 0.001), 0.0).may_upload


def test_the_tighter_budget_counts() -> None:
    assert left_bytes(Terms(), NOON) == inf
    assert left_bytes(Terms(day_budget=150), NOON) == 50
    assert left_bytes(Terms(day_budget=150, month_budget=1010), NOON) == 10
    assert left_bytes(Terms(day_budget=10), NOON) == 0


def test_the_fullest_windows_are_found() -> None:
    """One second at 500 of 1000 bytes/s among idle ones: 50 % of a second, 5 % of ten."""
    worst, sent = WorstWindows(), 0
    for tick in range(300):
        sent += 50 if 100 <= tick < 110 else 0
        worst.add(tick / 10, sent, 1000.0)
    assert worst.second == pytest.approx(0.5, rel=0.01)
    assert worst.ten_seconds == pytest.approx(0.05, rel=0.01)
    assert worst.take() == pytest.approx((0.5, 0.05), rel=0.01)
    worst.give_back(0.5, 0.05)
    worst.give_back(0.4, 0.06)
    assert worst.take() == (0.5, 0.06)
    worst.add(300.0, sent + 10**9, 1000.0)  # the machine slept: no second is known to have held this
    assert worst.take() == (0.0, 0.0)
