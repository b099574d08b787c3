"""BBR on a virtual bottleneck: what it gets, what it leaves to others, and that nothing upsets it."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import pytest
from aioquic.quic.congestion.base import create_congestion_control
from hypothesis import given
from hypothesis import strategies as st

from shared.congestion import ALGORITHM, BbrCongestionControl
from shared.core.bbr import MIN_WINDOW_DATAGRAMS
from shared.core.bbr_phases import BbrStatistics, Phase
from shared.core.bbr_rate import Departure
from tests.bottleneck import (
    DATAGRAM_BYTES,
    Bottleneck,
    Flow,
    Kind,
    drop_share,
    goodput,
    make_flow,
    mean_rtt,
)

FAST_RATE = 40e6
HOME_RATE = 2.5e6  # 20 Mbit/s
RTT = 0.05


def beliefs(flow: Flow) -> BbrStatistics:
    assert isinstance(flow.control, BbrCongestionControl)
    return flow.control.statistics()


def alone(rate: float, queue: float, seconds: float, loss: float = 0.0, kind: Kind = Kind.BBR) -> Flow:
    """One flow with a queue of so many times what fits into the path."""
    line = Bottleneck(rate, queue * rate * RTT, loss)
    flow = line.add(make_flow(kind, RTT))
    line.run(seconds)
    return flow


def share_of_first(first: Flow, second: Flow, queue: float, since: float, until: float) -> float:
    line = Bottleneck(HOME_RATE, queue * HOME_RATE * first.base_rtt)
    line.add(first)
    line.add(second)
    line.run(until)
    rates = goodput(first, since, until), goodput(second, since, until)
    assert sum(rates) > 0.93 * HOME_RATE  # politeness must not cost the line
    return rates[0] / sum(rates)


# What it gets


@pytest.mark.parametrize(("loss", "least_rate"), [(0.0, 32e6), (0.001, 30e6), (0.01, 26e6)])
def test_fills_a_long_fast_path_in_spite_of_losses(loss: float, least_rate: float) -> None:
    assert goodput(alone(FAST_RATE, 1.0, 8.0, loss), 0.0, 8.0) > least_rate


def test_one_percent_loss_gets_twenty_times_what_reno_gets() -> None:
    ours = alone(FAST_RATE, 1.0, 8.0, 0.01)
    reno = alone(FAST_RATE, 1.0, 30.0, 0.01, Kind.STOCK_RENO)
    assert goodput(ours, 2.0, 8.0) > 20 * goodput(reno, 2.0, 30.0)


def test_a_lossy_home_line_is_used() -> None:
    """Two lost of ninety in flight are 2 %, but no sign of a full queue."""
    assert goodput(alone(HOME_RATE, 1.0, 20.0, 0.01), 0.0, 20.0) > 0.75 * HOME_RATE


@pytest.mark.parametrize("base_rtt", [0.0002, 0.001, 0.005])
def test_fills_a_short_path_whose_acknowledgements_are_saved_up(base_rtt: float) -> None:
    line = Bottleneck(30e6, 30e6 * 0.02, loss=0.002)
    flow = line.add(make_flow(Kind.BBR, base_rtt, ack_delay=0.005))
    line.run(4.0)
    assert goodput(flow, 1.0, 4.0) > 0.75 * 30e6


def test_next_door_late_timers_do_not_slow_it() -> None:
    """Where a round trip is shorter than a timer, the window holds it; timers may miss half the pace."""
    line = Bottleneck(150e6, 8e6)
    flow = line.add(make_flow(Kind.BBR, 0.0003, ack_delay=0.001, pace_share=0.5))
    line.run(0.5)
    assert goodput(flow, 0.1, 0.5) > 0.85 * 150e6


def test_a_line_of_a_quarter_megabit_works_with_four_datagrams() -> None:
    line = Bottleneck(30e3, 30e3)
    flow = line.add(make_flow(Kind.BBR, RTT))
    line.run(20.0)
    assert goodput(flow, 5.0, 20.0) > 0.9 * 30e3
    assert beliefs(flow).window_bytes >= MIN_WINDOW_DATAGRAMS * DATAGRAM_BYTES


def test_keeps_a_deep_queue_empty() -> None:
    flow = alone(HOME_RATE, 20.0, 25.0)
    assert goodput(flow, 3.0, 25.0) > 0.95 * HOME_RATE
    assert mean_rtt(flow, 3.0, 25.0) < 1.25 * RTT
    assert flow.dropped == 0


@pytest.mark.parametrize("rate", [HOME_RATE, FAST_RATE])
def test_drops_little_into_a_shallow_queue(rate: float) -> None:
    flow = alone(rate, 0.25, 8.0 if rate == FAST_RATE else 30.0)
    assert goodput(flow, 2.0, 8.0) > 0.9 * rate
    assert drop_share(flow) < 0.015


def test_two_drop_little_into_a_shallow_queue() -> None:
    """Where a queue hardly shows, shares wander, but neither starves."""
    first, second = make_flow(Kind.BBR, RTT, 1), make_flow(Kind.BBR, RTT, 2, begins_at=5.0)
    assert 0.3 < share_of_first(first, second, 0.25, 20.0, 70.0) < 0.7
    assert max(drop_share(first), drop_share(second)) < 0.03


# What it leaves to others


@pytest.mark.parametrize("base_rtt", [0.02, 0.05, 0.1])
def test_shares_with_a_tcp_download(base_rtt: float) -> None:
    """Coarsely: a model of Cubic is no Cubic, so the goal is judged in the laboratory (`fairness`)."""
    ours, tcp = make_flow(Kind.BBR, base_rtt, 3, ack_delay=0.016), make_flow(Kind.TCP, base_rtt)
    assert 0.3 < share_of_first(ours, tcp, 1.0, 10.0, 60.0) < 0.7


@pytest.mark.parametrize("queue", [0.5, 2.0])
def test_shares_other_queues_with_a_tcp_download(queue: float) -> None:
    ours, tcp = make_flow(Kind.BBR, RTT, 3), make_flow(Kind.TCP, RTT)
    assert 0.35 < share_of_first(ours, tcp, queue, 10.0, 50.0) < 0.72


def test_lets_a_tcp_download_in_that_comes_later() -> None:
    ours, tcp = make_flow(Kind.BBR, RTT, 4), make_flow(Kind.TCP, RTT, begins_at=5.0)
    assert 0.35 < share_of_first(ours, tcp, 1.0, 15.0, 60.0) < 0.65


@pytest.mark.parametrize(
    ("queue", "begins_at", "since"), [(1.0, 0.0, 10.0), (1.0, 8.0, 20.0), (4.0, 8.0, 50.0)]
)
def test_shares_with_its_own_kind(queue: float, begins_at: float, since: float) -> None:
    """Also with one that comes later; in a queue so deep that nothing is lost, that takes longer."""
    first, second = make_flow(Kind.BBR, RTT, 5), make_flow(Kind.BBR, RTT, 6, begins_at=begins_at)
    assert 0.4 <= share_of_first(first, second, queue, since, since + 40.0) <= 0.6


# Changes


@pytest.mark.parametrize("queue", [0.25, 1.0])
def test_finds_a_line_that_became_four_times_as_fast(queue: float) -> None:
    line = Bottleneck(HOME_RATE, queue * 4 * HOME_RATE * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT))
    line.run(10.0)
    line.set_rate(4 * HOME_RATE)
    line.run(20.0)
    assert goodput(flow, 16.0, 20.0) > 0.85 * 4 * HOME_RATE


@pytest.mark.parametrize(("queue", "seconds"), [(0.25, 2.0), (1.0, 2.0), (10.0, 2.75)])
def test_follows_a_line_that_became_four_times_as_slow(queue: float, seconds: float) -> None:
    """Then it sends what the line carries, and the queue that it made meanwhile is gone."""
    line = Bottleneck(4 * HOME_RATE, queue * 4 * HOME_RATE * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT))
    line.run(10.0)
    line.set_rate(HOME_RATE)
    since = 10.0 + seconds
    line.run(since)
    believed = beliefs(flow)
    assert min(believed.bandwidth, believed.short_rate) < 1.1 * HOME_RATE
    line.run(since + 2.0)
    assert goodput(flow, since, since + 2.0) > 0.85 * HOME_RATE
    assert mean_rtt(flow, since, since + 2.0) < 1.5 * RTT
    assert drop_share(flow, since) < 0.03


# Senders that have less to send than the path takes


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_capped_sender_keeps_its_estimate(share: float) -> None:
    rate = 4 * HOME_RATE
    line = Bottleneck(rate, rate * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT))
    line.run(4.0)
    flow.app_rate, flow.app_at, flow.app_credit = share * rate, line.now, 0.0
    for second in range(5, 25):
        line.run(float(second))
        assert beliefs(flow).bandwidth > 0.9 * rate
    assert goodput(flow, 6.0, 24.0) > 0.95 * share * rate
    flow.app_rate = None
    line.run(26.0)
    assert goodput(flow, 25.0, 26.0) > 0.9 * rate


def test_a_sender_capped_from_its_first_byte_is_not_slowed_further() -> None:
    line = Bottleneck(4 * HOME_RATE, HOME_RATE * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT, app_rate=0.75e6))
    line.run(20.0)
    assert goodput(flow, 2.0, 20.0) > 0.97 * 0.75e6


def test_after_a_pause_it_goes_on_as_before() -> None:
    line = Bottleneck(HOME_RATE, 4 * HOME_RATE * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT))
    line.run(4.0)
    flow.app_rate, flow.app_at, flow.app_credit = 1e-3, line.now, 0.0
    line.run(12.0)
    assert beliefs(flow).in_flight_bytes == 0
    flow.app_rate = None
    line.at(12.0, lambda: line._pump(flow))
    line.run(14.0)
    assert goodput(flow, 12.25, 14.0) > 0.85 * HOME_RATE
    assert mean_rtt(flow, 12.0, 14.0) < 1.6 * RTT


def test_timers_that_reach_nine_tenths_of_the_pace_do_not_shrink_it() -> None:
    line = Bottleneck(HOME_RATE, HOME_RATE * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT, pace_share=0.9))
    line.run(25.0)
    assert goodput(flow, 5.0, 25.0) > 0.8 * HOME_RATE


# The machine


def test_goes_through_every_phase() -> None:
    line = Bottleneck(HOME_RATE, HOME_RATE * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT))
    line.add(make_flow(Kind.TCP, RTT, begins_at=5.0))  # its queue hides the shortest round trip
    seen: list[Phase] = []
    for tick in range(1, 1200):
        line.run(tick * 0.01)
        phase = beliefs(flow).phase
        if not seen or seen[-1] is not phase:
            seen.append(phase)
    assert seen[:2] == [Phase.STARTUP, Phase.DRAIN]
    assert set(seen) == set(Phase)
    after_refill = {later for phase, later in zip(seen, seen[1:], strict=False) if phase is Phase.REFILL}
    assert after_refill <= {Phase.UP, Phase.PROBE_RTT, Phase.DOWN}


def test_alone_it_never_needs_to_look_for_the_shortest_round_trip() -> None:
    """It drains its own queue in every cycle, so it sees the shortest round trip without slowing down."""
    line = Bottleneck(HOME_RATE, HOME_RATE * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT))
    seen = set()
    for tick in range(1, 1500):
        line.run(tick * 0.01)
        seen.add(beliefs(flow).phase)
    assert seen == set(Phase) - {Phase.PROBE_RTT}


def test_same_dice_same_trace() -> None:
    traces = [
        [(round(at, 9), count) for at, count in alone(HOME_RATE, 1.0, 6.0, 0.01).delivered] for _ in range(2)
    ]
    assert traces[0] == traces[1]


def test_persistent_congestion_starts_small_and_recovers() -> None:
    line = Bottleneck(HOME_RATE, HOME_RATE * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT))
    line.run(5.0)
    before = beliefs(flow).window_bytes
    flow.control.on_persistent_congestion()
    assert flow.control.congestion_window <= flow.control.bytes_in_flight + DATAGRAM_BYTES <= before
    line.run(6.0)
    assert goodput(flow, 5.3, 6.0) > 0.85 * HOME_RATE


def test_a_dead_path_comes_back() -> None:
    line = Bottleneck(HOME_RATE, HOME_RATE * RTT)
    flow = line.add(make_flow(Kind.BBR, RTT))
    line.run(5.0)
    line.loss = 1.0
    line.run(8.0)
    assert flow.control.congestion_window >= MIN_WINDOW_DATAGRAMS * DATAGRAM_BYTES
    line.loss = 0.0
    line.run(14.0)
    assert goodput(flow, 11.0, 14.0) > 0.85 * HOME_RATE


# Whatever is reported

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["send", "ack", "lose", "expire", "collapse", "wait"]),
        st.integers(1, 40),
        st.floats(0, 3, allow_nan=False),
    ),
    max_size=120,
)


@given(EVENTS, st.integers(0, 2**32))
def test_its_figures_stay_usable(events: list[tuple[str, int, float]], seed: int) -> None:
    """Whatever is sent, acknowledged and lost in whatever order, the window is at least four datagrams, the
    pace positive and finite, and the bytes in flight add up."""
    control = BbrCongestionControl(max_datagram_size=DATAGRAM_BYTES, rng=random.Random(seed))
    dice = random.Random(seed)
    flying: list[Any] = []
    now = 100.0
    for name, number, step in events:
        dice.shuffle(flying)
        if name == "send":
            for _ in range(number):
                flying.append(Sent(now, dice.choice((DATAGRAM_BYTES, 40))))
                control.on_packet_sent(packet=flying[-1])
        elif name == "ack":
            gone, flying = flying[:number], flying[number:]
            for packet in gone:
                control.on_packet_acked(now=now, packet=packet)
        elif name == "lose" and flying:
            gone, flying = flying[:number], flying[number:]
            control.on_packets_lost(now=now, packets=gone)
        elif name == "expire" and flying:
            control.on_packets_expired(packets=[flying.pop()])
        elif name == "collapse":
            control.on_persistent_congestion()
        else:
            now += step / number
        assert control.congestion_window >= MIN_WINDOW_DATAGRAMS * DATAGRAM_BYTES
        assert 0 < control.pacing_rate < inf
        assert control.bytes_in_flight == sum(packet.sent_bytes for packet in flying)


class Sent:
    """A packet as the hook sees it."""

    def __init__(self, sent_time: float, sent_bytes: int) -> None:
        self.sent_time = sent_time
        self.sent_bytes = sent_bytes
        self.departure: Departure | None = None


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.integers(0, 2**32))
def test_the_order_within_an_acknowledgement_does_not_matter(bursts: list[int], seed: int) -> None:
    """Two controllers that hear of the same packets, in different orders within each acknowledgement and
    each loss report, believe the same."""
    controls = [
        BbrCongestionControl(max_datagram_size=DATAGRAM_BYTES, rng=random.Random(seed)) for _ in range(2)
    ]
    dice = random.Random(seed)
    now = 0.0
    for count in bursts:
        now += 0.01
        sent: list[list[Any]] = [[Sent(now, DATAGRAM_BYTES) for _ in range(count)] for _ in controls]
        for control, packets in zip(controls, sent, strict=True):
            for packet in packets:
                control.on_packet_sent(packet=packet)
        fates = [dice.random() < 0.8 for _ in range(count)]
        order = list(range(count))
        now += 0.05
        for control, packets in zip(controls, sent, strict=True):
            dice.shuffle(order)
            for i in order:
                if fates[i]:
                    control.on_packet_acked(now=now, packet=packets[i])
            control.on_packets_lost(now=now, packets=[packets[i] for i in order if not fates[i]])
        assert controls[0].statistics() == controls[1].statistics()


def test_aioquic_knows_it_by_name() -> None:
    control = create_congestion_control(ALGORITHM, max_datagram_size=1200)
    assert isinstance(control, BbrCongestionControl)
    assert control.congestion_window == 12_000
