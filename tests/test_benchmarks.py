"""The benchmarks' own parts: what they report, the path they emulate, and that they leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path as Folder

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.data import stock
from benchmarks.data.bench import Bench, Entry, Measured, Scale, Weather
from benchmarks.data.children import ROOT, Child, ChildFailed
from benchmarks.data.competitors import PENSTOCK, STOCK, Place, Transfer, transfer
from benchmarks.data.goals import NOT_QUICK, OF, set_goals
from benchmarks.data.orders import Order, Ready
from benchmarks.data.path import Path
from benchmarks.data.readings import LeafCheck, block, cpu_seconds, resident_bytes
from benchmarks.data.relay import Drops
from benchmarks.data.scenarios import SCENARIOS, handshakes, idle
from benchmarks.report import Report, machine, median, number, render
from shared.core.merkle import LEAF_BYTES

BRIEF = Order(warm_seconds=0.1, seconds=0.3)


# -- reports ----------------------------------------------------------------------------------


def test_last_line_is_json() -> None:
    report = Report()
    report.goal("speed", ">=", 8)
    report.figure("speed", 9.87654321)
    report.table("Title", ["who", "MB/s"], [["us", "9.88"]])
    text = report.text()
    assert json.loads(text.splitlines()[-1]) == {
        "ok": True,
        "figures": {"speed": 9.877},
        "goals": {"speed": [">=", 8]},
    }
    assert "who  MB/s" in text


@pytest.mark.parametrize(("direction", "met", "missed"), [("<=", 1.0, 1.1), (">=", 1.0, 0.9)])
def test_goals_hold_at_the_bound(direction: str, met: float, missed: float) -> None:
    for value, ok in ((met, True), (missed, False)):
        report = Report()
        report.goal("it", direction, 1.0)  # type: ignore[arg-type]
        report.figure("it", value)
        assert report.ok is ok
        assert ("MISSED" in report.text()) is not ok


def test_a_goal_without_figure_is_not_met_unless_skipped() -> None:
    report = Report()
    report.goal("it", "<=", 1.0)
    report.figure("it", None)
    report.ratio("it", 1.0, None)
    assert json.loads(report.last_line())["ok"] is False
    report.skip(["it"], "needs root")
    assert json.loads(report.last_line())["ok"] is True
    assert json.loads(report.last_line())["goals"] == {}
    assert "it: needs root" in report.text()


def test_table_is_aligned() -> None:
    lines = render("T", ["a", "value"], [["long name", "1"], ["x", "22"]]).splitlines()
    assert lines == ["T", "a          value", "---------  -----", "long name      1", "x             22"]


def test_numbers_and_medians() -> None:
    assert [number(value) for value in (None, 0.12345, 12.345, 1234.5)] == ["-", "0.123", "12.3", "1,234"]
    assert (median([]), median([3, 1, 2])) == (None, 2)
    assert "aioquic 1." in machine(["aioquic"])


def test_every_goal_belongs_to_a_scenario() -> None:
    assert set(OF) <= set(SCENARIOS)
    report = Report()
    set_goals(report, "idle", is_quick=True)
    assert set(NOT_QUICK) == set(report.skipped) <= set(report.goals)


# -- the emulated path ------------------------------------------------------------------------


def path(**changes: float) -> Path[str]:
    wanted = {"rate": 1e6, "delay_seconds": 0.02, "loss": 0.0, "queue_bytes": 1 << 20, "seed": 7} | changes
    return Path[str](**wanted)  # type: ignore[arg-type]


def arrivals(over: Path[str]) -> list[tuple[float, bytes]]:
    found = []
    while (clump := over.pop_due(1e9)) is not None:
        step = clump.segment_bytes
        found += [(clump.due_at, clump.payload[at : at + step]) for at in range(0, len(clump.payload), step)]
    return found


@given(
    st.lists(st.tuples(st.floats(0, 0.01), st.integers(1, 60), st.integers(1, 1400)), max_size=30),
    st.sampled_from([0.0, 0.1]),
    st.integers(2000, 60_000),
)
def test_path_keeps_order_and_rate(
    bursts: list[tuple[float, int, int]], loss: float, queue_bytes: int
) -> None:
    """What arrives is what went in, less lost and dropped, in order, never before rate and delay allow."""
    over = path(loss=loss, queue_bytes=queue_bytes)
    now, count, sent = 0.0, 0, []
    for pause, segments, size in bursts:
        now += pause
        datagrams = [(count + at).to_bytes(4, "big").ljust(max(4, size), b".") for at in range(segments)]
        count += segments
        sent += [(now, datagram) for datagram in datagrams]
        over.take("a", b"".join(datagrams), max(4, size), now)
    taken = arrivals(over)
    assert over.passed + over.lost + over.dropped == count
    assert len(taken) == over.passed
    sent_at = {datagram: at for at, datagram in sent}
    assert [datagram for _, datagram in taken] == [one for _, one in sent if one in {d for _, d in taken}]
    assert all(at >= sent_at[datagram] + 0.02 for at, datagram in taken)
    if taken:
        total = sum(len(datagram) for _, datagram in taken)
        assert taken[-1][0] - sent[0][0] - 0.02 >= total / 1e6 - 1e-6


def test_path_loses_the_share_asked_for_and_the_same_each_time() -> None:
    def kept(seed: int) -> list[bytes]:
        over = path(loss=0.1, seed=seed)
        for at in range(5000):
            over.take("a", at.to_bytes(2, "big"), 2, at / 100)
        assert 400 < over.lost < 600
        return [datagram for _, datagram in arrivals(over)]

    assert kept(1) == kept(1) != kept(2)


def test_a_full_queue_drops() -> None:
    over = path(queue_bytes=5000)
    over.take("a", b"." * 20_000, 1000, 0.0)
    assert (over.passed, over.dropped) == (5, 15)
    assert over.next_at() is not None


# -- processes --------------------------------------------------------------------------------


def test_leaf_check_counts_whole_leaves_only_and_finds_one_wrong_bit() -> None:
    check = LeafCheck()
    data = block() + block()[: LEAF_BYTES // 2]
    assert sum(check.feed(data[at : at + 40_000]) for at in range(0, len(data), 40_000)) == len(block())
    wrong = bytearray(data[: 3 * LEAF_BYTES])
    wrong[2 * LEAF_BYTES] ^= 1
    with pytest.raises(ValueError, match="leaf 2"):
        LeafCheck().feed(bytes(wrong))


def test_relay_carries_both_ways_and_counts() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        order = Order(port=server.getsockname()[1], rtt_seconds=0.04)
        with (
            Child("relay", "relay", order) as relay,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            port = relay.hear(Ready).port
            client.settimeout(5)
            begun_at = time.monotonic()
            client.sendto(b"ask", ("127.0.0.1", port))
            asked, sender = server.recvfrom(100)
            server.sendto(b"answer", sender)
            assert (asked, client.recv(100)) == (b"ask", b"answer")
            assert time.monotonic() - begun_at >= 0.04
            assert relay.ask(Drops) == Drops(passed=1, lost=0, dropped=0)


def test_a_child_that_fails_says_why_and_is_reaped() -> None:
    with (
        Child("torrent", "send_tcp", Order(folder="/nowhere")) as child,
        pytest.raises(ChildFailed) as caught,
    ):
        child.hear(Ready)
    assert "torrent send_tcp ended early: " in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_silent_child_is_not_waited_for() -> None:
    with Child("relay", "relay", Order(port=9)) as child:
        child.hear(Ready)
        with pytest.raises(ChildFailed, match="said nothing"):
            child.hear(Ready, timeout_seconds=0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_child_ends_by_itself_in_the_end() -> None:
    with Child("relay", "relay", Order(port=9, limit_seconds=0.5)) as child, pytest.raises(ChildFailed):
        child.hear(Ready)
        child.hear(Ready, timeout_seconds=20)


def place(folder: Folder) -> Place:
    return Place(folder, None, None)


@pytest.mark.parametrize("request_bytes", [0, 1 << 18])
def test_a_transfer_of_ours(tmp_path: Folder, request_bytes: int) -> None:
    found = transfer(PENSTOCK, replace(BRIEF, request_bytes=request_bytes, connections=2), place(tmp_path))
    assert found.rate > 1e5
    assert found.sender_share > 0 < found.receiver_share
    assert list(tmp_path.iterdir()) == []


def test_a_transfer_of_stock_over_the_relay(tmp_path: Folder) -> None:
    stock.write_certificate(tmp_path)
    found = transfer(STOCK, replace(BRIEF, rtt_seconds=0.01, loss=0.01), place(tmp_path), relayed=True)
    assert found.rate > 1e4
    assert found.drops is not None
    assert found.drops.passed > 0


def small_bench(folder: Folder, budget_seconds: float = 60.0) -> Bench:
    scale = Scale(budget_seconds, 1 << 20, 1, 1, 0.2, 0.2, 20)
    return Bench(scale, place(folder), Report(), is_quick=True)


def test_handshakes_and_idle_connections(tmp_path: Folder) -> None:
    bench = small_bench(tmp_path)
    handshakes(bench)
    idle(bench)
    assert bench.report.figures["handshakes_per_core"] > 10
    assert bench.report.figures["idle_connections"] == 20
    assert bench.report.figures["idle_connection_bytes"] > 0


def test_rounds_go_on_after_a_failure_and_stop_when_time_is_over(tmp_path: Folder) -> None:
    entries = [Entry("broken", STOCK, BRIEF), Entry("capped", PENSTOCK, replace(BRIEF, rate=1e6))]
    found = small_bench(tmp_path).rounds(entries, 1)
    rows = list(found.rows())
    assert "cert.pem" in rows[0][0]
    assert rows[1][0] == "capped"
    assert 0 < (found.rate("capped") or 0) < 1.3e6
    assert small_bench(tmp_path, 0.0).rounds(entries, 1).failures["capped"] == "no time left"


def test_medians_over_runs() -> None:
    runs = [Transfer(rate, 1.0, 0.5) for rate in (1e9, 2e9, 4e9)]
    found = Measured({"us": runs, "them": []})
    assert (found.rate("us"), found.cpu_per_gb("us"), found.core_rate("us")) == (2e9, 0.75, 2e9)
    assert found.rate("them") is None
    rows = list(found.rows())
    assert rows[0] == ["us", "2,000", "1,000-4,000", "0.5", "0.25", "2,000", "3"]
    assert rows[1][0] == "them: no time left"


def test_readings_of_this_process() -> None:
    before, weather = cpu_seconds(os.getpid()), Weather.now()
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    assert 0.04 < cpu_seconds(os.getpid()) - before < 5
    assert resident_bytes(os.getpid()) > 1 << 20
    assert 0 <= weather.others_share(Weather.now()) <= 1.5


def test_interrupted_it_leaves_nothing(tmp_path: Folder) -> None:
    """A stop in mid-run removes the children and the payload."""
    command = [sys.executable, "-m", "benchmarks.data", "--quick", "--only", "capped"]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        mine = f"penstock-bench-{run.pid}-"
        seen = ""
        for line in run.stderr:
            seen += line
            if line.startswith("capped"):
                break
        places = [Folder("/dev/shm"), Folder("/tmp")]
        assert any(found for folder in places for found in folder.glob(mine + "*")), seen
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=20)
        assert run.returncode == 143
    assert not [found for folder in places if folder.is_dir() for found in folder.glob(mine + "*")]


def test_an_unknown_scenario_is_refused() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.data", "--only", "two"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "invalid choice: 'two'" in answer.stderr
