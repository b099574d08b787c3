"""The upload cap on a home line in virtual time: what the line carries, and who else is on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peer.core.uplink import Grounds
from peer.core.upload_cap import AIMED_SHARE, CAP_SHARE, UploadCap
from tests.cap_line import HomeLine, five

MBIT = 125_000.0


def steady(rate: float) -> Callable[[float], float]:
    return lambda at: rate


def test_a_good_line_is_well_used_and_stays_empty() -> None:
    """With demand, 57 % of the line leave, and hardly anything ever waits before it."""
    line = HomeLine(steady(10 * MBIT), UploadCap(10 * MBIT), five()).run(30)
    assert 0.57 * 10 * MBIT <= line.mean_rate(5, 30) < CAP_SHARE * 10 * MBIT
    assert max(line.queued) < 0.001


@pytest.mark.parametrize("said", [18, 20, 40])
@pytest.mark.parametrize("queue_seconds", [0.05, 0.2, 1.0])
def test_a_line_said_to_be_faster_is_found_out(said: float, queue_seconds: float) -> None:
    """Said to be up to four times as fast: ten seconds later we keep to 60 % of the real line, for good."""
    line = HomeLine(steady(10 * MBIT), UploadCap(said * MBIT), five(), queue_seconds=queue_seconds).run(60)
    for begin in range(10, 59):
        assert line.mean_rate(begin, begin + 1) < CAP_SHARE * 10 * MBIT
    assert line.mean_rate(20, 60) > 0.5 * 10 * MBIT
    assert line.cap.belief.grounds is Grounds.CORRECTED


def test_a_line_that_becomes_slower_is_followed() -> None:
    """From 20 to 5 Mbit/s: ten seconds later we are under 60 % of 5."""
    line = HomeLine(lambda at: (20 if at < 20 else 5) * MBIT, UploadCap(20 * MBIT), five()).run(50)
    assert line.mean_rate(5, 20) >= 0.57 * 20 * MBIT
    assert line.mean_rate(30, 50) < CAP_SHARE * 5 * MBIT


def test_the_household_comes_first() -> None:
    """It sends 4 of 10 Mbit/s for ten seconds: 2 s later we keep to 60 % of 6; 10 s after, we are back."""
    household = lambda at: 4 * MBIT if 10 <= at < 20 else 0.0  # noqa: E731
    line = HomeLine(steady(10 * MBIT), UploadCap(10 * MBIT), five(), household=household).run(40)
    assert line.mean_rate(12, 20) < CAP_SHARE * 6 * MBIT
    assert line.mean_rate(12, 20) > 0.5 * 6 * MBIT
    assert line.mean_rate(30, 40) >= 0.57 * 10 * MBIT
    assert line.cap.belief.grounds is Grounds.CONFIGURED


def test_a_neighbour_in_the_house_whom_no_counter_shows_is_given_way() -> None:
    """Its upload fills the queue: we fall to a sixth, the belief stays, and we return when it ends."""
    neighbour = lambda at: 9.5 * MBIT if 10 <= at < 25 else 0.0  # noqa: E731
    line = HomeLine(steady(10 * MBIT), UploadCap(10 * MBIT), five(), neighbour=neighbour).run(60)
    assert line.mean_rate(15, 25) < 0.16 * 10 * MBIT
    assert line.mean_rate(35, 60) >= 0.9 * AIMED_SHARE * 10 * MBIT


def test_random_losses_are_no_full_line() -> None:
    """2 % of loss change nothing about what the gate allows."""
    line = HomeLine(steady(10 * MBIT), UploadCap(10 * MBIT), five(), loss_share=0.02).run(30)
    assert line.cap.gate_rate() >= 0.57 * 10 * MBIT


def test_noise_and_one_slow_receiver_are_no_queue() -> None:
    """One connection waits 300 ms at its own end, all jitter by 40 ms now and then: the gate stays open."""
    noisy = five(noise=lambda at: 0.04 if int(at * 10) % 3 else 0.001)
    noisy[0].noise = lambda at: 0.3 if at > 5 else 0.0
    line = HomeLine(steady(10 * MBIT), UploadCap(10 * MBIT), noisy).run(30)
    assert line.mean_rate(10, 30) >= 0.57 * 10 * MBIT


def test_slow_receivers_do_not_make_our_line_full() -> None:
    """All but one wait at their own ends, 60 to 300 ms: nothing is concluded, and nothing held back."""
    leechers = five()
    for number, leecher in enumerate(leechers[1:], 1):
        leecher.noise = lambda at, wait=0.06 * number**1.2: wait if at > 5 else 0.0  # type: ignore[misc]
    line = HomeLine(steady(10 * MBIT), UploadCap(10 * MBIT), leechers).run(40)
    assert line.mean_rate(10, 40) >= 0.57 * 10 * MBIT
    assert line.cap.belief.grounds is Grounds.CONFIGURED


def test_an_unknown_line_is_estimated_and_never_used_beyond() -> None:
    """It begins as for 2 Mbit/s; a household that fills the line shows what it carries."""
    line = HomeLine(steady(10 * MBIT), UploadCap(0.0), five()).run(20)
    assert line.cap.belief.grounds is Grounds.ESTIMATED
    assert line.mean_rate(0, 20) < CAP_SHARE * 2 * MBIT
    slow = HomeLine(steady(1 * MBIT), UploadCap(0.0), five()).run(40)
    assert slow.mean_rate(15, 40) < CAP_SHARE * 1 * MBIT
