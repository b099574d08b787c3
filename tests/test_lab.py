"""The network laboratory keeps its promises: rates, delays, losses, counters, and a clean end."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.lab import remover, system
from tests.lab.lab import Lab, open_lab
from tests.lab.line import LabError, Line, mbit
from tests.lab.punctual import be_punctual
from tests.lab.samples import (
    between,
    in_ip_bytes,
    mean_rate,
    total_bytes,
    worst_window,
)
from tests.lab.traffic import ping, start_flow, start_ping

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


@pytest.fixture(scope="module")
def punctual(possible: None) -> None:
    """Figures are exact only where the laboratory's processes run before others."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        if not pool.submit(be_punctual).result():
            pytest.skip("real-time scheduling is not allowed here")


# -- rates ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("punctual")
@pytest.mark.parametrize(
    "sender, receiver, ipv6, rate",
    [
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
        received = start_flow(lab, sender, receiver, seconds=1.6, ipv6=ipv6).wait()
    line = lab.wiring.hosts[sender].line.name
    narrow = recording.line("near").down if receiver == "near" else recording.line(line).up
    assert mean_rate(between(narrow, start_at + 0.6, start_at + 1.5)) == pytest.approx(rate, rel=0.03)
    assert worst_window(narrow, 0.5) < rate * 1.03
    # At the sender's port there is also what the queue had no room for.
    assert total_bytes(recording.host(sender).up) > total_bytes(recording.line(line).up) - STRAY_BYTES
    assert total_bytes(recording.host(receiver).down) > received.payload_bytes


@pytest.mark.usefixtures("punctual")
def test_a_flow_keeps_to_its_own_rate(lab: Lab) -> None:
    received = start_flow(lab, "tv", "edge", seconds=1.5, rate=mbit(4)).wait()
    assert received.payload_rate == pytest.approx(mbit(4), rel=0.1)


@pytest.mark.usefixtures("punctual")
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


@pytest.mark.usefixtures("punctual")
def test_the_rate_of_a_line_changes_in_the_middle_of_a_flow(lab: Lab) -> None:
    flow = start_flow(lab, "far", "edge", seconds=20)
    with lab.record() as recording:
        time.sleep(1.2)  # the length of a measurement, not a wait for something
        lab.set_line("far", up_rate=mbit(5))
        narrow_at = time.monotonic()
        time.sleep(1.2)
        lab.set_line("far", up_rate=mbit(20))
        wide_at = time.monotonic()
    flow.result()
    up = recording.line("far").up
    before, after = between(up, 0, narrow_at - 0.05), between(up, narrow_at + 0.1, wide_at - 0.05)
    assert worst_window(before, 0.5) == pytest.approx(mbit(20), rel=0.03)
    assert mean_rate(after) == pytest.approx(mbit(5), rel=0.03)
    assert lab.line("far").up_rate == mbit(20)


@pytest.mark.usefixtures("punctual")
def test_delay_and_loss_of_a_line_change(lab: Lab) -> None:
    lab.set_line("edge", delay_seconds=0.030)
    assert ping(lab, "pc", "edge", count=20).percentile(0.5) == pytest.approx(0.060, abs=0.0015)
    lab.set_line("edge", down_loss=1.0)
    assert len(ping(lab, "pc", "edge", count=20).lost) == 20
    lab.set_line("edge", delay_seconds=0.0, down_loss=0.0)
    assert ping(lab, "pc", "edge", count=20).percentile(0.5) < 0.002


# -- delay and loss ---------------------------------------------------------------------------


@pytest.mark.usefixtures("punctual")
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


@pytest.mark.usefixtures("punctual")
def test_samples_come_at_their_pace(lab: Lab) -> None:
    start_at = time.monotonic()
    with lab.record(interval_seconds=0.01) as recording:
        ping(lab, "far", "edge", count=20, interval_seconds=0.01)
    end_at = time.monotonic()
    times = [sample.at for sample in recording.host("far").up]
    assert start_at <= times[0] and times[-1] <= end_at
    gaps = sorted(later - earlier for earlier, later in zip(times, times[1:], strict=False))
    assert gaps[len(gaps) // 2] == pytest.approx(0.01, abs=0.003)


# -- hosts and programs -----------------------------------------------------------------------


def test_programs_run_inside_hosts(lab: Lab) -> None:
    shown = lab.run("far", ["ip", "-o", "addr", "show", "dev", "eth0"]).stdout
    assert lab.address("far") in shown and lab.address6("far") in shown
    process = lab.popen("far", ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.communicate("hello")[0] == "hello"


def test_what_goes_wrong_in_a_host_is_said(lab: Lab) -> None:
    with pytest.raises(LabError, match="sh in far ended with 3: no luck"):
        lab.run("far", ["sh", "-c", "echo no luck >&2; exit 3"])
    assert lab.run("far", ["sh", "-c", "exit 3"], check=False).returncode == 3
    with pytest.raises(LabError, match="sleep in far did not end within 0.1 seconds"):
        lab.run("far", ["sleep", "60"], timeout=0.1)
    with pytest.raises(LabError, match="no host is named 'moon'; there are edge, near"):
        lab.address("moon")
    with pytest.raises(LabError, match="no line is named 'pc'"):
        lab.set_line("pc", up_rate=mbit(1))
    with pytest.raises(LabError, match="line 'far': a loss is a share"):
        lab.set_line("far", up_loss=5)
    assert lab.line("far").up_loss == 0


def test_no_host_reaches_anything_else(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        for address in ("192.0.2.1", "2001:db8:ffff::1", "127.0.0.1", "::1"):
            script = f"import socket; socket.create_connection(({address!r}, {server.getsockname()[1]}), 5)"
            done = lab.run("far", [sys.executable, "-c", script], check=False)
            assert "unreachable" in done.stderr or "refused" in done.stderr


def test_jumbo_and_small_packets_pass_where_the_mtu_allows(possible: None) -> None:
    lines = Line("small", mtu=1280), Line("big", mtu=9000), Line("large", mtu=9000)
    with open_lab(*lines) as lab:
        assert ping(lab, "big", "large", count=3, payload_bytes=8900).lost == ()
        assert ping(lab, "small", "big", count=3, payload_bytes=1280 - 28).lost == ()
        start = start_flow(lab, "big", "small", seconds=0.5)
        with lab.record() as recording:
            assert start.wait().payload_bytes > 100_000
    down = recording.line("small").down
    assert total_bytes(down) <= (1280 + FRAME_HEADER) * (down[-1].packets - down[0].packets)


# -- beginning and end ------------------------------------------------------------------------


def own_namespaces() -> list[str]:
    return remover.namespaces(f"penstock-{os.getpid()}-")


def is_running(process: str) -> bool:
    """Whether there is such a process, and more of it than an exit status nobody has asked for yet."""
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_nothing_is_left_behind(possible: None) -> None:
    before = own_namespaces()
    with open_lab(Line("one")) as lab:
        assert len(own_namespaces()) == len(before) + 2
        stubborn = ["sh", "-c", "trap '' TERM; sleep 600 & echo ready; wait; sleep 600"]
        polite = lab.popen("one", ["sleep", "600"])
        detached = lab.popen("one", stubborn, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert detached.stdout and detached.stdout.readline() == "ready\n"
        folder = lab.folder
    assert own_namespaces() == before
    assert (polite.returncode, detached.returncode) == (-signal.SIGTERM, -signal.SIGKILL)
    assert not folder.exists()


def test_nothing_is_left_behind_by_a_failure(possible: None) -> None:
    before = own_namespaces()
    with pytest.raises(ZeroDivisionError), open_lab(Line("one")) as lab, lab.record():
        raise ZeroDivisionError
    assert own_namespaces() == before


def test_nothing_is_left_behind_by_a_killed_owner(possible: None) -> None:
    script = """
        import subprocess, time
        from tests.lab.lab import open_lab
        from tests.lab.line import Line
        with open_lab(Line("one", delay_seconds=0.01)) as lab, lab.record():
            process = lab.popen("one", ["sleep", "600"])
            print(process.pid, lab.folder, flush=True)
            time.sleep(600)
    """
    command = [sys.executable, "-c", "import textwrap; exec(textwrap.dedent(" + repr(script) + "))"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        inner, folder = owner.stdout.readline().split()
        assert remover.namespaces(f"penstock-{owner.pid}-")
        owner.kill()
    give_up_at = time.monotonic() + 20
    while Path(folder).exists() and time.monotonic() < give_up_at:
        time.sleep(0.02)
    assert not Path(folder).exists()
    assert remover.namespaces(f"penstock-{owner.pid}-") == []
    assert not is_running(inner)


def test_what_a_dead_owner_left_is_removed_and_no_more(possible: None) -> None:
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    stale, foreign = f"penstock-{dead.pid}-1-net", "penstockish"
    for name in (stale, foreign):
        system.command("ip", "netns", "add", name)
    try:
        with open_lab(Line("one")) as lab, open_lab(Line("one")):
            assert remover.namespaces(stale) == []
            assert remover.namespaces(foreign) == [foreign]
            assert lab.run("one", ["true"]).returncode == 0
    finally:
        system.command("ip", "netns", "del", foreign)


@pytest.mark.usefixtures("punctual")
def test_two_laboratories_run_side_by_side(possible: None) -> None:
    """They have the same addresses and see nothing of each other."""
    slow, fast = Line("a", delay_seconds=0.01), Line("a")
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_lab(line, Line("b"))) for line in (slow, fast))
        assert first.address("a") == second.address("a")
        with second.record() as recording:
            assert ping(first, "a", "b", count=10).percentile(0.5) == pytest.approx(0.02, abs=0.0015)
        assert total_bytes(recording.host("b").up) < STRAY_BYTES
        assert ping(second, "a", "b", count=10).percentile(0.5) < 0.002


def test_a_machine_without_what_it_needs_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system.unavailable() == "install iproute2, iptables, util-linux"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "need root" in str(system.unavailable())
