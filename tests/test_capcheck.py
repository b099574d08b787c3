"""`penstock peer capcheck`: what an interface's counters prove, and what they do not."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain, repeat

import pytest

from peer import capcheck
from peer.core.cap_proof import Compared, Proof, Verdict, prove
from shared.core.errors import LocalError
from shared.core.windows import fullest
from tests.lab.samples import Sample, worst_window

LINE = 1_250_000.0
SECONDS = 12


def recording(rate: float, burst: int = 0) -> tuple[list[float], list[int]]:
    """Every 2 ms, at an even rate; `burst` bytes more at once in the middle."""
    times = [at / 500 for at in range(500 * SECONDS + 1)]
    return times, [int(rate * at) + (burst if at > SECONDS / 2 else 0) for at in times]


def proof_of(rate: float, peer_bytes: int | None, burst: int = 0, line: float = LINE) -> Proof:
    times, totals = recording(rate, burst)
    return prove(("eth0",), times, totals, line, Compared(totals[-1] - totals[0], peer_bytes))


@pytest.mark.parametrize(
    "share, burst, peer_share, verdict",
    [
        (0.58, 0, 1.0, Verdict.KEPT),
        (0.58, 0, 0.7, Verdict.KEPT),  # others' bytes only make it harder
        (0.58, 4000, 1.0, Verdict.BROKEN),  # 100 ms at 61.2 %
        (0.61, 0, 0.99, Verdict.BROKEN),
        (0.70, 0, 0.8, Verdict.OTHERS),
        (0.20, 0, 1.0, Verdict.IDLE),
        (0.58, 0, 0.1, Verdict.IDLE),
        (0.58, 0, None, Verdict.NO_PEER),
    ],
)
def test_verdicts(share: float, burst: int, peer_share: float | None, verdict: Verdict) -> None:
    peer_bytes = None if peer_share is None else int(peer_share * (share * LINE * SECONDS + burst))
    assert proof_of(share * LINE, peer_bytes, burst).verdict is verdict


def test_short_windows_do_not_count_on_a_slow_line() -> None:
    proof = proof_of(0.58 * 250_000, int(0.58 * 250_000 * SECONDS), burst=2000, line=250_000.0)
    assert proof.worst[0.1].rate > 0.6 * 250_000
    assert proof.verdict is Verdict.KEPT
    assert "too short" in capcheck.as_text(proof)


def test_headers_that_a_device_adds_later_are_added() -> None:
    sent = int(0.595 * LINE * SECONDS)
    assert proof_of(0.595 * LINE, sent).verdict is Verdict.KEPT
    assert proof_of(0.595 * LINE, int(1.02 * sent)).verdict is Verdict.BROKEN


def test_what_is_seen_is_never_more_than_was() -> None:
    """Samples far apart cannot tell when between them a burst left: it must not be laid into a window."""
    times, totals = [0.0, 0.05, 0.10, 0.19, 0.25, 0.30], [0, 50, 100, 290, 300, 350]
    samples = [Sample(at, total, 0) for at, total in zip(times, totals, strict=True)]
    assert worst_window(samples, 0.1) > 1950
    assert fullest(times, totals, 0.1, 0.01).rate == pytest.approx(1900)
    assert fullest(times, totals, 0.1, 0.004).rate == pytest.approx(1000)


def test_the_fullest_window_is_found_wherever_it_begins() -> None:
    times, totals = recording(1000.0, burst=500)
    assert fullest(times, totals, 1.0, 0.01).rate == pytest.approx(1500.0, abs=3)
    with pytest.raises(ValueError, match="no window of 13"):
        fullest(times, totals, 13.0, 0.01)


def test_windows_that_were_not_seen_accuse_nobody_and_prove_nothing() -> None:
    times, totals = recording(0.58 * LINE)
    kept = [at for at in range(len(times)) if at % 17 == 0]  # one in 34 ms
    times, totals = [times[at] for at in kept], [totals[at] for at in kept]
    proof = prove(("eth0",), times, totals, LINE, Compared(totals[-1], totals[-1]))
    assert proof.worst[0.1].seen_share < 0.5 < proof.worst[1.0].seen_share
    assert proof.verdict is Verdict.BUSY
    assert "could be seen: this machine is busy" in capcheck.as_text(proof)


def test_it_says_what_was_counted() -> None:
    proof = proof_of(0.58 * LINE, int(0.50 * LINE * SECONDS))
    text = capcheck.as_text(proof)
    assert "everything that this machine sent, held against a line of 10 Mbit/s" in text
    assert "fullest 100 ms   58.0%" in text
    assert "the peer says it sent 7.5 MB of these 8.7 MB; other programs sent 1.2 MB" in text
    told = json.loads(capcheck.as_json(proof))
    assert told["verdict"] == "kept"
    assert told["worst_shares"] == {"100 ms": 0.58, "1 s": 0.58, "10 s": 0.58}


@pytest.mark.parametrize("readings", [[5, 4], [5, None], [None]])
def test_counters_that_vanish_or_jump_back_end_it(readings: list[int | None]) -> None:
    values = chain(readings, repeat(0))
    with pytest.raises(LocalError, match="went away or began anew"):
        capcheck.record(lambda: next(values), 1.0, lambda _: None)


def test_a_recording_is_as_long_as_asked() -> None:
    counted = capcheck.record(lambda: 7, 0.05, lambda _: None)
    assert 0.05 <= counted.times[-1] - counted.times[0] < 1.0
    assert set(counted.totals) == {7}


PENSTOCK = [sys.executable, "-c", "import sys; from shared.cli import main; sys.exit(main())"]


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--interface", "moon0"], "--interface: moon0 has no counters"),
        (["--seconds", "3"], "--seconds: from 11"),
        (["--uplink", "-4 Mbit/s"], "-4 Mbit/s"),
    ],
)
def test_errors_of_one_line(flags: list[str], said: str) -> None:
    done = subprocess.run(
        [*PENSTOCK, "peer", "capcheck", *flags], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
