"""Trains of bytes that measure the line: when they leave, what they tell, and what a lying edge gains."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.probe_quota import MAX_NODES, PROBES, SPAN_SECONDS, ProbeQuota
from peer.core.trains import (
    BUDGET_BYTES,
    DAY_SECONDS,
    GAP_SECONDS,
    LEAST_MICROSECONDS,
    LENGTHS,
    MOST_TRAINS,
    RETRY_SECONDS,
    ROUND_SECONDS,
    TRAINS,
    WIRE_SHARE,
    Trains,
)
from peer.core.uplink import BEYOND_FULL, ESTIMATE_FROM, MOST_MEASURED, Grounds, UplinkBelief
from peer.core.upload_cap import CAP_SHARE, UploadCap
from shared.core.gate import TURN_BYTES, Gate, Pass
from shared.core.ids import NodeId
from tests.cap_world import windows_of

MBIT = 125_000.0
COUNTED = LENGTHS[0] * 4 // 9
DATAGRAM = 1418  # bytes of a train


def seen_behind(rate: float, bucket_bytes: float, length: int) -> tuple[int, int]:
    """What an edge counts of a train behind a shaper whose bucket is full: bytes, microseconds."""
    arrivals, sent = list[tuple[float, int]](), 0
    while sent < length:
        sent = min(length, sent + DATAGRAM)
        arrivals.append((max(0.0, sent - bucket_bytes) / rate, sent))
    began_at, uncounted = next(each for each in arrivals if each[1] >= length / 2)
    return length - uncounted, round(1e6 * (arrivals[-1][0] - began_at))


def a_round(
    trains: Trains, rate: float, now: float, network: str = "home", bucket_bytes: float = 0.0
) -> tuple[float | None, float]:
    """Runs trains over a line of so many bytes/s until a round ends; what it told, and when."""
    for _ in range(MOST_TRAINS):
        assert trains.due(network, now)
        trains.left(now)
        assert not trains.due(network, now + GAP_SECONDS / 2)
        told = trains.told(*seen_behind(rate, bucket_bytes, trains.next_bytes), 1.0, now + 0.1)
        now += GAP_SECONDS
        if told is not None:
            return told, now
    return None, now


@given(st.floats(0.5, 20), st.floats(0, 0.004))
def test_a_round_tells_the_rate(mbit: float, bucket_seconds: float) -> None:
    """With a shaper's bucket of up to 4 ms, or two datagrams, a round tells a line's rate within 5 % in
    half a minute, and the next round is hours away."""
    trains = Trains(None)
    told, now = a_round(trains, mbit * MBIT, 0.0, bucket_bytes=max(3000, bucket_seconds * mbit * MBIT))
    slow_enough = 1e6 * LENGTHS[-1] / 2 / LEAST_MICROSECONDS
    assert told is not None
    assert told == pytest.approx(min(mbit * MBIT, slow_enough), rel=0.05)
    assert now < 30
    assert not trains.due("home", now + ROUND_SECONDS - 2 * GAP_SECONDS)
    assert trains.due("home", now + ROUND_SECONDS)


@given(st.floats(30, 1000), st.floats(0, 1e6))
def test_a_line_too_fast_for_trains_is_not_believed_to_carry_more_than_it_does(
    mbit: float, bucket_bytes: float
) -> None:
    """Where the longest train passes too fast, no more is believed than would have been slow enough."""
    told, _ = a_round(Trains(None), mbit * MBIT, 0.0, bucket_bytes=bucket_bytes)
    assert told is not None
    assert told <= 1e6 * LENGTHS[-1] / 2 / LEAST_MICROSECONDS < 30 * MBIT


def test_a_train_that_a_bucket_swallows_is_followed_by_a_longer_one() -> None:
    """20 Mbit/s with 4 ms of burst: 11,000 bytes pass at once, or all but a datagram."""
    trains = Trains(None)
    counted, microseconds = seen_behind(20 * MBIT, 10_000, trains.next_bytes)
    assert microseconds < LEAST_MICROSECONDS
    trains.left(0.0)
    assert trains.told(counted, microseconds, 1.0, 0.0) is None
    assert trains.next_bytes == LENGTHS[1]


def test_two_disturbed_trains_of_five_do_not_matter() -> None:
    trains, told = Trains(None), None
    for number in range(TRAINS):
        trains.left(0.0)
        rate = (5 * MBIT, 3 * MBIT, 5 * MBIT, 6 * MBIT, 5 * MBIT)[number]
        told = trains.told(COUNTED, round(1e6 * COUNTED / rate), 1.0, 0.0)
    assert told == pytest.approx(5 * MBIT, rel=0.01)


def test_another_network_is_measured_at_once() -> None:
    trains = Trains(None)
    _, now = a_round(trains, 10 * MBIT, 0.0)
    assert not trains.due("home", now)
    told, _ = a_round(trains, 2 * MBIT, now, "cafe")
    assert told == pytest.approx(2 * MBIT, rel=0.01)


def test_a_round_without_answers_is_given_up_for_a_while() -> None:
    trains, now = Trains(None), 0.0
    for _ in range(MOST_TRAINS):
        assert trains.due("home", now)
        trains.left(now)
        trains.failed(now)
        now += GAP_SECONDS
    assert not trains.due("home", now)
    assert trains.due("home", now + RETRY_SECONDS)


@given(st.none() | st.integers(0, 10**9), st.lists(st.floats(0, 3000), max_size=300))
def test_no_day_has_more_than_its_budget(day_budget: int | None, steps: list[float]) -> None:
    """Whatever networks come and go, trains of any 24 hours take 2 % of the budget at most."""
    trains, now, left = Trains(day_budget), 0.0, list[float]()
    most = BUDGET_BYTES if day_budget is None else min(BUDGET_BYTES, day_budget * 0.02)
    for number, step in enumerate(steps):
        now += step
        if trains.due(f"network {number}", now):
            trains.left(now)
            left.append(now)
        day = [at for at in left if at > now - DAY_SECONDS]
        assert len(day) * WIRE_SHARE * LENGTHS[0] <= most


@given(st.lists(st.tuples(st.integers(0, LENGTHS[-1]), st.integers(0, (1 << 32) - 1), st.floats(0, 1e9))))
def test_no_answer_of_an_edge_is_believed_beyond_bounds(answers: list[tuple[int, int, float]]) -> None:
    """Whatever an edge answers, the belief stays between the least line and MOST_MEASURED."""
    trains, belief = Trains(None), UplinkBelief(0.0)
    for answer in answers:
        trains.left(0.0)
        told = trains.told(*answer, 0.0)
        if told is not None:
            belief.measured(told)
        assert 16_000 <= belief.rate <= MOST_MEASURED
        assert belief.confidence < 1


def test_passive_evidence_bounds_a_lie() -> None:
    """A line seen full is not believed a quarter beyond, whatever trains say, and seen full again it is
    believed to carry just that."""
    belief = UplinkBelief(0.0)
    assert (belief.rate, belief.grounds) == (ESTIMATE_FROM, Grounds.ESTIMATED)
    belief.measured(inf)
    assert (belief.rate, belief.grounds) == (MOST_MEASURED, Grounds.MEASURED)
    belief.seen_full(10 * MBIT, 0.0)
    assert belief.rate < 10 * MBIT
    full = belief.rate
    belief.measured(1e9)
    assert belief.rate == pytest.approx(BEYOND_FULL * full)
    belief.moved()
    assert (belief.rate, belief.grounds) == (ESTIMATE_FROM, Grounds.ESTIMATED)


def test_measurements_that_agree_are_trusted_more() -> None:
    belief = UplinkBelief(0.0)
    belief.measured(10 * MBIT)
    first = belief.confidence
    belief.measured(9.5 * MBIT)
    assert first < belief.confidence < 1
    belief.measured(5 * MBIT)
    assert belief.confidence == first
    belief.measured(float("nan"))
    assert belief.rate == 5 * MBIT


def test_what_the_user_said_is_not_measured_away() -> None:
    belief = UplinkBelief(10 * MBIT)
    belief.measured(50 * MBIT)
    assert (belief.rate, belief.grounds) == (10 * MBIT, Grounds.CONFIGURED)


@pytest.mark.parametrize("line_rate", [2 * MBIT, 10 * MBIT, 100 * MBIT])
@pytest.mark.parametrize("is_known", [False, True])
def test_trains_keep_the_promise(line_rate: float, is_known: bool) -> None:
    """No window that counts holds 60 % of the line while trains leave amid greedy senders."""
    cap, out, now = UploadCap(0.0), list[tuple[float, int]](), 0.0
    if is_known:
        cap.belief.measured(line_rate)
    cap.save_up(LENGTHS[-1])
    gate: Gate[str] = Gate(cap.gate_rate(), cap.burst_bytes())
    most = 0
    while now < 12:
        is_train = int(now / GAP_SECONDS * 2) % 2 == 0  # a second of silence before each
        if not is_train:
            gate.ask("train")
        while (turn := gate.next_turn(now)) is not None:
            most = max(most, turn.datagrams)
            out.append((now, turn.datagrams * TURN_BYTES))
            gate.charge(turn.datagrams * TURN_BYTES, Pass.TURN, now)
            gate.ask("train")
        if is_train:
            gate.withdraw("train")
        now += 0.003
    assert most >= 27  # it did leave as one burst
    for window in windows_of(line_rate):
        fullest = max(sum(size for at, size in out if end - window < at <= end) for end, _ in out)
        assert fullest < CAP_SHARE * line_rate * window


def test_a_node_sends_few_probes_and_nobody_fills_the_memory() -> None:
    quota, node = ProbeQuota(), NodeId(bytes(32))
    assert [quota.take(node, 0.0) for _ in range(PROBES + 1)] == [True] * PROBES + [False]
    assert quota.take(node, SPAN_SECONDS)
    others = [NodeId(number.to_bytes(32, "big")) for number in range(1, MAX_NODES + 1)]
    assert [quota.take(one, SPAN_SECONDS) for one in others].count(True) == MAX_NODES - 1
