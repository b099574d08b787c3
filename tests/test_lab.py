"""The network laboratory keeps its promises: rates, delays, losses, counters, and a clean end."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab import remover, system
from tests.lab.lab import Lab, open_lab
from tests.lab.line import LabError, Line, mbit
from tests.lab.samples import (
    Recording,
    Sample,
    between,
    in_ip_bytes,
    mean_rate,
    total_bytes,
    worst_window,
)
from tests.lab.traffic import RoundTrips, ping, start_flow, start_ping

ROOT = Path(__file__).parent.parent
SEED = 7
IPV4_HEADERS, IPV6_HEADERS, FRAME_HEADER = 28, 48, 14
STRAY_BYTES = 600  # a few multicast reports that Linux sends when an IPv6 address is new
LINES = (
    Line("edge", up_rate=mbit(100), down_rate=mbit(100)),
    Line("near", up_rate=mbit(20), down_rate=mbit(50), delay_seconds=0.005),
    Line("far", delay_seconds=0.020),
    Line("leaky", up_loss=0.05),
    Line("deaf", down_loss=0.10),
    Line("home", up_rate=mbit(10), hosts=("pc", "tv")),
)


@pytest.fixture(scope="module")
def possible() -> None:
    reason = system.unavailable()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def lab(possible: None) -> Iterator[Lab]:
    with open_lab(*LINES, seed=SEED) as opened:
        yield opened


# -- rates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sender, receiver, ipv6, rate",
    [
        ("near", "edge", False, mbit(20)),
        ("near", "edge", True, mbit(20)),
        ("edge", "near", False, mbit(50)),
        ("pc", "edge", False, mbit(10)),
    ],
)
def test_a_flow_fills_the_narrower_line_and_no_more(
    lab: Lab, sender: str, receiver: str, ipv6: bool, rate: float
) -> None:
    with lab.record() as recording:
        start_at = time.monotonic()
        received = start_flow(lab, sender, receiver, seconds=1.8, ipv6=ipv6).wait()
    line = lab.wiring.hosts[sender].line.name
    narrow = recording.line("near").down if receiver == "near" else recording.line(line).up
    assert mean_rate(between(narrow, start_at + 0.6, start_at + 1.7)) == pytest.approx(rate, rel=0.03)
    assert worst_window(narrow, 0.5) < rate * 1.03
    # At the sender's port there is also what the queue had no room for.
    assert total_bytes(recording.host(sender).up) >= total_bytes(recording.line(line).up)
    assert total_bytes(recording.host(receiver).down) > received.payload_bytes


def test_a_flow_keeps_to_its_own_rate(lab: Lab) -> None:
    received = start_flow(lab, "tv", "edge", seconds=1.5, rate=mbit(4)).wait()
    assert received.payload_rate == pytest.approx(mbit(4), rel=0.1)


def test_a_full_uplink_makes_the_whole_household_wait(lab: Lab) -> None:
    quiet = ping(lab, "pc", "edge", count=20)
    flow = start_flow(lab, "tv", "edge", seconds=10)
    with lab.record() as recording:
        full = ping(lab, "pc", "edge", count=100)
    flow.result()
    assert quiet.percentile(0.5) < 0.002
    assert 0.05 < full.percentile(0.95) < 0.115  # the line's queue holds 100 ms
    assert total_bytes(recording.host("pc").up) < total_bytes(recording.host("tv").up) / 20
    assert mean_rate(recording.line("home").up) == pytest.approx(mbit(10), rel=0.1)


def test_a_line_changes_while_packets_flow() -> None:
    """Rates, delay and loss of a running line can be changed, there and back."""


# -- delay and loss ---------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize(
    "client, server, expected", [("near", "edge", 0.010), ("far", "near", 0.050), ("pc", "tv", 0.0)]
)
def test_a_round_trip_takes_twice_the_delay_of_both_lines(
    lab: Lab, client: str, server: str, expected: float, ipv6: bool
) -> None:
    trips = ping(lab, client, server, count=60, interval_seconds=0.005, ipv6=ipv6)
    assert trips.lost == ()
    assert trips.percentile(0.5) == pytest.approx(expected, abs=0.0015)
    assert trips.percentile(0.0) > expected - 0.001


def predicted(line: str, direction: str, share: float, count: int) -> tuple[int, ...]:
    dice = random.Random(f"{SEED} {line} {direction}")
    return tuple(number for number in range(count) if dice.random() < share)


def test_a_seed_decides_which_packets_are_lost(lab: Lab) -> None:
    """The same packets are lost whenever the seed is the same, in the share that was asked for."""
    up = start_ping(lab, "leaky", "edge", count=1000, interval_seconds=0.001)
    down = start_ping(lab, "edge", "deaf", count=1000, interval_seconds=0.001)
    assert up.result().lost == predicted("leaky", "up", 0.05, 1000)
    assert down.result().lost == predicted("deaf", "down", 0.10, 1000)
    assert 30 < len(predicted("leaky", "up", 0.05, 1000)) < 70
    assert lab.delay_statistics().overruns == 0


def test_round_trips_in_order_of_size() -> None:
    trips = RoundTrips((0.3, None, 0.1, 0.2))
    assert trips.lost == (1,)
    assert [trips.percentile(share) for share in (0, 0.5, 1)] == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="no answer"):
        RoundTrips((None,)).percentile(0.5)


# -- counters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6, headers", [(False, IPV4_HEADERS), (True, IPV6_HEADERS)])
def test_counters_agree_with_what_was_sent(lab: Lab, ipv6: bool, headers: int) -> None:
    with lab.record() as recording:
        ping(lab, "far", "edge", count=200, interval_seconds=0.001, payload_bytes=1000, ipv6=ipv6)
    for traffic in (recording.host("far"), recording.line("far"), recording.host("edge")):
        for samples in (traffic.up, traffic.down):
            frames = 200 * (1000 + headers + FRAME_HEADER)
            assert frames <= total_bytes(samples) <= frames + STRAY_BYTES
            assert 200 <= samples[-1].packets - samples[0].packets <= 210
            packets = 200 * (1000 + headers)
            assert packets <= total_bytes(in_ip_bytes(samples)) <= packets + STRAY_BYTES


def test_packets_that_the_kernel_cuts_are_counted_one_by_one(lab: Lab) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        f"s.setsockopt(17, 103, 1200); s.sendto(bytes(12000), ({lab.address('edge')!r}, 9))"
    )
    with lab.record() as recording:
        lab.run("far", [sys.executable, "-c", script])
    up = recording.line("far").up
    assert total_bytes(up) - 10 * (1200 + IPV4_HEADERS + FRAME_HEADER) in range(STRAY_BYTES)


def test_samples_come_at_their_pace(lab: Lab) -> None:
    start_at = time.monotonic()
    with lab.record(interval_seconds=0.01) as recording:
        ping(lab, "far", "edge", count=20, interval_seconds=0.01)
    end_at = time.monotonic()
    times = [sample.at for sample in recording.host("far").up]
    assert start_at <= times[0] and times[-1] <= end_at
    gaps = sorted(later - earlier for earlier, later in zip(times, times[1:], strict=False))
    assert gaps[len(gaps) // 2] == pytest.approx(0.01, abs=0.003)


SAMPLES = st.lists(
    st.tuples(st.integers(1, 2000), st.integers(0, 10**6)), min_size=2, max_size=40
).map(lambda steps: tuple(accumulated(steps)))


def accumulated(steps: list[tuple[int, int]]) -> Iterator[Sample]:
    at, size = 0, 0
    for milliseconds, more in steps:
        at, size = at + milliseconds, size + more
        yield Sample(at / 1000, size, 0)


def bytes_until(samples: tuple[Sample, ...], at: float) -> float:
    """The area under even flow between samples, added up piece by piece."""
    total = 0.0
    for earlier, later in zip(samples, samples[1:], strict=False):
        share = (min(max(at, earlier.at), later.at) - earlier.at) / (later.at - earlier.at)
        total += share * (later.bytes - earlier.bytes)
    return total


@given(SAMPLES, st.floats(0.01, 1), st.floats(0, 1))
def test_no_window_is_worse_than_the_worst(
    samples: tuple[Sample, ...], length: float, place: float
) -> None:
    """No window of the same length inside the recording has a higher rate, and the mean is not above it."""
    whole_seconds = samples[-1].at - samples[0].at
    seconds = length * whole_seconds
    start_at = samples[0].at + place * (whole_seconds - seconds)
    worst = worst_window(samples, seconds)
    rate = (bytes_until(samples, start_at + seconds) - bytes_until(samples, start_at)) / seconds
    assert rate <= worst * (1 + 1e-9) + 1e-3
    assert worst_window(samples, whole_seconds) == pytest.approx(mean_rate(samples), abs=1e-3)


def test_the_worst_window_of_a_burst() -> None:
    burst = (Sample(0, 0, 0), Sample(1, 100, 1), Sample(1.5, 1100, 2), Sample(3, 1100, 2))
    assert worst_window(burst, 0.5) == pytest.approx(2000)
    assert worst_window(burst, 1.0) == pytest.approx(1050)
    for seconds in (0.0, 3.1):
        with pytest.raises(ValueError, match="no window"):
            worst_window(burst, seconds)


def test_a_recording_is_read_while_a_line_of_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    path.write_text("1.5 lo 0 0 0 0 s1 10 1 20 2\n2.5 lo 0 0 0 0 s1 30 3 40 4\n3.5 lo 0 0 0 0 s1 5")
    line = Recording(path, system_free_wiring()).line("only")
    assert line.up == (Sample(1.5, 10, 1), Sample(2.5, 30, 3))
    assert line.down == (Sample(1.5, 20, 2), Sample(2.5, 40, 4))
