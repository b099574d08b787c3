"""The upload cap: 60 % of the uplink is never reached, whatever is asked of the gate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.config import LEAST_UPLINK
from peer.core.upload_cap import CAP_SHARE, FAST_LINE, LEAST_SLOTS, UploadCap
from shared.core import spare
from shared.core.gate import MAX_DATAGRAM_BYTES, TURN_BYTES, Gate, Pass, peak_seconds
from shared.core.shape import PIECE_BYTES

uplinks = st.floats(LEAST_UPLINK, 1.25e9)


@given(uplinks)
def test_what_the_gate_may_let_through_stays_under_the_cap(uplink: float) -> None:
    """A second holds less than 60 % of what the uplink carries in it, and so do 100 ms from 10 Mbit/s up."""
    rate = UploadCap(uplink).gate_rate()
    for seconds in (1.0, 0.1) if uplink >= FAST_LINE else (1.0,):
        assert rate * peak_seconds(rate, seconds) < 0.999 * CAP_SHARE * uplink * seconds


@given(uplinks)
def test_a_line_that_may_share_can_send_and_is_well_used(uplink: float) -> None:
    """The gate takes a whole datagram, and lines from 2 Mbit/s up give 57 % and more."""
    cap = UploadCap(uplink)
    assert cap.gate_rate() > 0
    assert cap.burst_bytes() >= TURN_BYTES
    if uplink >= 250_000:
        assert cap.gate_rate() >= 0.57 * uplink


@pytest.mark.parametrize("uplink", [LEAST_UPLINK, 125_000.0, 1_250_000.0])
def test_a_greedy_sender_behind_the_gate_keeps_every_window_under_the_cap(uplink: float) -> None:
    cap = UploadCap(uplink)
    gate: Gate[str] = Gate(cap.gate_rate(), cap.burst_bytes())
    sent = send_greedily(gate, seconds=25.0)
    times = [at for at, _ in sent]
    for window in (1.0, 10.0):
        for start in times[:: max(1, len(times) // 200)]:
            inside = sum(size for at, size in sent if start <= at < start + window)
            assert inside < CAP_SHARE * uplink * window
    assert sum(size for _, size in sent) > 0.35 * uplink * 25


def send_greedily(gate: Gate[str], seconds: float) -> list[tuple[float, int]]:
    sent, size, now = [], MAX_DATAGRAM_BYTES + 28, 0.0
    while now < seconds:
        gate.ask("greedy")
        if gate.next_turn(now) is None:
            now += size / 4 / (gate.rate or 1.0)
            continue
        gate.charge(size, Pass.TURN, now)
        sent.append((now, size))
    return sent


@given(uplinks, st.integers(1, 64))
def test_few_pieces_are_sent_at_once(uplink: float, most: int) -> None:
    """Never more than allowed, and never more than the line sends in about a second."""
    slots = UploadCap(uplink).slots(most)
    assert 1 <= slots <= most
    assert slots <= max(LEAST_SLOTS, uplink / PIECE_BYTES)


@given(uplinks, st.floats(0.0, 2.0))
def test_what_is_said_to_be_spare_is_not_in_use(uplink: float, use: float) -> None:
    """The least rate of the announced class and what leaves now fit under the gate together."""
    cap = UploadCap(uplink)
    used = use * cap.gate_rate()
    cap.used(used)
    if cap.spare_class():
        assert spare.rate_of(cap.spare_class()) + used <= cap.gate_rate() * 1.0001


def test_a_full_uplink_offers_a_newcomer_its_part_beside_those_who_are_served() -> None:
    cap = UploadCap(1_250_000.0)
    cap.used(cap.gate_rate())
    assert cap.spare_class() == 0
    assert cap.spare_class(guests=3) == spare.class_of(cap.gate_rate() / 4)


def test_statistics_say_what_share_of_the_cap_is_in_use() -> None:
    cap = UploadCap(1_000_000.0)
    cap.used(292_000.0)
    statistics = cap.statistics()
    assert statistics.uplink_rate == 1_000_000.0
    assert statistics.cap_rate == pytest.approx(584_000.0)
    assert statistics.use == pytest.approx(0.5)
