from __future__ import annotations

from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.core.gate import TURN_BYTES, Gate, Pass, Turn, burst_for, peak_seconds

AT_ONCE = st.lists(st.tuples(st.floats(0, 2), st.integers(40, TURN_BYTES)), max_size=80)


def run(gate: Gate[str], at_once: list[tuple[float, int]], until: float) -> list[tuple[float, int, Pass]]:
    """Three greedy askers and `at_once` datagrams through a gate in virtual time: what left, when."""
    out: list[tuple[float, int, Pass]] = []
    pending = sorted(at_once)
    for asker in "abc":
        gate.ask(asker)
    now = 0.0
    while now < until:
        while pending and pending[0][0] <= now:
            size = pending.pop(0)[1]
            gate.charge(size, Pass.AT_ONCE, now)
            out.append((now, size, Pass.AT_ONCE))
        while (turn := gate.next_turn(now)) is not None:
            for _ in range(turn.datagrams):
                gate.charge(TURN_BYTES, Pass.TURN, now)
                out.append((now, TURN_BYTES, Pass.TURN))
            gate.ask(turn.asker)
        following = pending[0][0] if pending else until
        now = min(max(gate.ready_at(now), now + 1e-9), following)
    return out


def asker_of(gate: Gate[str], now: float) -> str | None:
    """Who has the next turn."""
    turn = gate.next_turn(now)
    return None if turn is None else turn.asker


RATES = st.one_of(st.integers(20_000, 500_000), st.integers(500_000, 20_000_000))


@given(rate=RATES, at_once=AT_ONCE)
def test_windows(rate: int, at_once: list[tuple[float, int]]) -> None:
    """Any window that ends with a turn's datagram holds at most rate x W + burst, whatever else left in it;
    one that ends otherwise exceeds that by no more than the debt at its end."""
    gate: Gate[str] = Gate(rate)
    burst, replayed = burst_for(rate), Gate[str](rate)
    out = run(gate, at_once, until=min(3.0, 400_000 / rate))
    assert any(how is Pass.TURN for _, _, how in out)
    total = 0
    before: list[tuple[float, int]] = []  # start of each window, bytes out before it
    for when, size, how in out:
        before.append((when, total))
        total += size
        replayed.charge(size, how, when)
        debt = replayed.statistics(when).debt_bytes
        if how is Pass.TURN:
            assert debt < 1e-6
        for start, earlier in before:
            assert total - earlier <= rate * (when - start) + burst + debt + 1e-3


@given(rate=RATES, at_once=AT_ONCE, seconds=st.sampled_from([0.1, 1.0]))
def test_a_window_of_a_second_or_a_tenth_keeps_to_its_peak(
    rate: int, at_once: list[tuple[float, int]], seconds: float
) -> None:
    """No window that ends with a turn's datagram holds more than its peak, unless what could not wait
    took more than the peak by itself; no other exceeds it by more than what could not wait."""
    out = run(Gate(rate), at_once, until=min(2.5, 800_000 / rate))
    peak, begin, total, urgent = rate * peak_seconds(rate, seconds), 0, 0, 0
    for when, size, how in out:
        total += size
        urgent += size if how is Pass.AT_ONCE else 0
        while out[begin][0] + seconds <= when:
            total -= out[begin][1]
            urgent -= out[begin][1] if out[begin][2] is Pass.AT_ONCE else 0
            begin += 1
        assert total <= peak + (1e-3 if how is Pass.TURN else urgent)


def test_what_cannot_wait_goes_first_but_waits_for_room_in_the_windows() -> None:
    gate: Gate[str] = Gate(1_000_000.0)
    fill(gate, up_to=1_000_000.0 * peak_seconds(1_000_000.0, 0.1) - 1.5 * TURN_BYTES)
    gate.ask("data")
    assert gate.admits(0.0985)
    assert not gate.admits(0.0985, datagrams=2)
    gate.ask_at_once("new", datagrams=2)
    assert gate.next_turn(0.0985) is None
    assert 0.1 < gate.ready_at(0.0985) < 0.102
    assert gate.next_turn(0.103) == Turn("new", 0)
    assert asker_of(gate, 0.105) == "data"


def fill(gate: Gate[str], up_to: float) -> None:
    """So many bytes leave in the first 100 ms."""
    for step in range(50):
        gate.charge(int(up_to / 50), Pass.AT_ONCE, step / 500)


def test_a_rate_that_falls_stalls_nothing() -> None:
    """What left at the old rate is not held against the new one."""
    gate: Gate[str] = Gate(4_000_000.0)
    fill(gate, up_to=4_000_000.0 * 0.1)
    gate.set_rate(400_000.0, 0.1)
    gate.ask("a")
    assert gate.ready_at(0.1) < 0.12


@given(rate=st.integers(20_000, 500_000))
@example(rate=500_000)
def test_data_alone(rate: int) -> None:
    """Data alone uses the rate: of each second at most a datagram is lost, as the next would not fit, and
    a hundredth where whole datagrams just miss filling a tenth of a second (500,000 bytes/s is so)."""
    total = sum(size for _, size, _ in run(Gate(rate), [], until=3.0))
    assert (0.99 * rate - TURN_BYTES) * 3 - burst_for(rate) <= total <= rate * 3 + burst_for(rate)


@given(rate=st.integers(1_000_000, 60_000_000), late=st.floats(0, 0.001))
def test_a_fast_line_needs_few_wake_ups(rate: int, late: float) -> None:
    """From 8 Mbit/s on, timers up to 1 ms late keep the rate with at most 400 wake-ups a second."""
    gate: Gate[str] = Gate(rate)
    gate.ask("a")
    now, wakes, sent = 0.0, 0, 0
    while now < 1.0:
        while (turn := gate.next_turn(now)) is not None:
            gate.charge(turn.datagrams * TURN_BYTES, Pass.TURN, now)
            sent += turn.datagrams * TURN_BYTES
            gate.ask(turn.asker)
        now = gate.ready_at(now) + 1e-9 + late
        wakes += 1
    assert wakes <= 400
    assert sent >= 0.98 * rate - burst_for(rate)


def test_a_turn_is_shared_out_over_those_who_wait() -> None:
    gate: Gate[str] = Gate(8_000_000.0)
    for asker in "abc":
        gate.ask(asker)
    shares = []
    while (turn := gate.next_turn(0.0)) is not None:
        gate.charge(turn.datagrams * TURN_BYTES, Pass.TURN, 0.0)
        shares.append((turn.asker, turn.datagrams))
    assert [asker for asker, _ in shares] == ["a", "b", "c"]
    counts = [datagrams for _, datagrams in shares]
    assert sum(counts) == burst_for(8_000_000.0) // TURN_BYTES
    assert max(counts) - min(counts) <= 1
    gate.ask("a")
    assert gate.ready_at(0.0) * 8_000_000.0 > gate.quantum_bytes - TURN_BYTES


def test_turns_go_round() -> None:
    gate: Gate[str] = Gate(None)
    for asker in "abcab":
        gate.ask(asker)
    assert [asker_of(gate, 0), asker_of(gate, 0)] == ["a", "b"]
    gate.ask("a")
    gate.withdraw("never asked")
    assert [asker_of(gate, 0) for _ in range(3)] == ["c", "a", None]
    gate.ask("d")
    gate.withdraw("d")
    assert gate.next_turn(0) is None
    assert gate.ready_at(0) == inf


def test_a_turn_waits_for_a_full_datagram_and_for_debts() -> None:
    gate: Gate[str] = Gate(1000.0, burst_bytes=TURN_BYTES)
    gate.ask("a")
    gate.charge(TURN_BYTES + 500, Pass.AT_ONCE, 0.0)
    assert gate.next_turn(0.0) is None
    assert gate.statistics(0.0).debt_bytes == 500
    ready_at = gate.ready_at(0.0)
    assert ready_at == pytest.approx((TURN_BYTES + 500) / 1000)
    assert gate.next_turn(ready_at - 0.01) is None
    assert asker_of(gate, ready_at + 1e-6) == "a"


def test_a_paused_gate_gives_no_turns_until_it_is_set_again() -> None:
    gate: Gate[str] = Gate(0.0)
    gate.ask("a")
    assert gate.paused
    assert gate.next_turn(1e6) is None
    assert gate.ready_at(1e6) == inf
    gate.set_rate(1000.0, 1e6)
    assert asker_of(gate, 1e6 + 60) == "a"


def test_closing_an_open_gate_grants_no_burst() -> None:
    gate: Gate[str] = Gate(None)
    gate.ask("a")
    gate.charge(10**9, Pass.AT_ONCE, 4.0)  # an open gate keeps no debts
    gate.set_rate(1000.0, 5.0)
    assert gate.next_turn(5.0) is None
    assert asker_of(gate, 5.0 + TURN_BYTES / 1000 + 1e-6) == "a"
    gate.set_rate(None, 6.0)
    assert gate.is_open
    assert gate.rate is None


def test_statistics_tell_turns_from_the_rest() -> None:
    gate: Gate[str] = Gate(1e6)
    gate.ask("a")
    gate.ask("b")
    assert asker_of(gate, 0.0) == "a"
    gate.charge(1000, Pass.TURN, 0.0)
    gate.charge(80, Pass.AT_ONCE, 0.0)
    seen = gate.statistics(0.0)
    assert (seen.turn_bytes, seen.at_once_bytes, seen.turns, seen.waiting) == (1000, 80, 1, 1)
    assert seen.out_rate > 0


def test_a_burst_below_a_datagram_is_refused() -> None:
    with pytest.raises(ValueError, match="one datagram"):
        Gate[str](1000.0, burst_bytes=TURN_BYTES - 1)
    with pytest.raises(ValueError, match="bucket"):
        Gate[str](-1.0)
