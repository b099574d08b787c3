"""`penstock peer capcheck`: reads the interface's counters from outside the peer, and says what they prove.

Without root nobody can count one program's packets from outside it, only an interface's. So that is
counted, and held against what the peer says that it sent in the same time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from rich.console import Console
from rich.progress import Progress

from peer.config import PeerConfig
from peer.core.cap_proof import Compared, Proof, counts, prove
from peer.core.upload_cap import CAP_SHARE
from peer.line_watch import default_route, read_counters
from shared.core.errors import LocalError
from shared.core.units import format_rate

SAMPLE_SECONDS = 0.0015
UNSURE_SECONDS = 0.0003  # a reading that took longer says too little about when
ANSWER_SECONDS = 2.0
NEARLY_ALL = 0.95


@dataclass(frozen=True, slots=True)
class Counted:
    """Samples of one recording."""

    times: list[float]
    totals: list[int]  # IP bytes


def run(seconds: float, interface: str | None, line_rate: float | None, settings: PeerConfig) -> Proof:
    """Counts, with a progress bar on a terminal. Raises LocalError if there is nothing to count."""
    interfaces = (interface,) if interface else default_route().interfaces
    with httpx2.Client(
        base_url=f"http://{settings.player}", timeout=ANSWER_SECONDS, trust_env=False, verify=False
    ) as door:
        _peer(door)  # the first answer takes long, and when it was given is to be known well
        begin, before = _both(door, interfaces)
        counted = _count(interfaces, seconds)
        end, after = _both(door, interfaces)
    said = None
    if before is not None and after is not None and after["sent_bytes"] >= before["sent_bytes"]:
        said = after["sent_bytes"] - before["sent_bytes"]
    believed = after["cap"]["uplink_rate"] if after is not None else float(settings.uplink)
    line_rate = line_rate or believed
    if not line_rate:
        raise LocalError("--uplink: say what the line carries, e.g. '40 Mbit/s'; nobody has measured it yet")
    return prove(interfaces, counted.times, counted.totals, line_rate, Compared(end - begin, said))


def _both(door: httpx2.Client, interfaces: tuple[str, ...]) -> tuple[int, Mapping[str, Any] | None]:
    """The interface's counter in the middle of the peer's answer, and that answer."""
    begin = _sent_bytes(interfaces) or 0
    answer = _peer(door)
    return (begin + (_sent_bytes(interfaces) or 0)) // 2, answer


def _peer(door: httpx2.Client) -> Mapping[str, Any] | None:
    """The running peer's statistics; None if there is none."""
    try:
        said: Mapping[str, Any] = door.get("/api/v1/statistics").json()
    except (httpx2.HTTPError, ValueError):
        return None
    return said if "sent_bytes" in said else None


def _count(interfaces: tuple[str, ...], seconds: float) -> Counted:
    if _sent_bytes(interfaces) is None:
        named = interfaces[0] if interfaces else "any"
        raise LocalError(f"--interface: {named} has no counters; `ip -brief link` lists what there is")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"counting {', '.join(interfaces) or 'all interfaces'}", total=seconds)
        return record(
            lambda: _sent_bytes(interfaces), seconds, lambda passed: bar.update(task, completed=passed)
        )


def record(read: Callable[[], int | None], seconds: float, tell: Callable[[float], None]) -> Counted:
    """Reads a counter every SAMPLE_SECONDS. Raises LocalError if it jumps back or is gone."""
    counted = Counted([], [])
    start_at = time.monotonic()
    while True:
        before_at = time.monotonic()
        total = read()
        after_at = time.monotonic()
        if total is None or (counted.totals and total < counted.totals[-1]):
            raise LocalError("the interface went away or began anew while it was counted; try again")
        if after_at - before_at <= UNSURE_SECONDS:
            counted.times.append((before_at + after_at) / 2)
            counted.totals.append(total)
        tell(after_at - start_at)
        if counted.times and counted.times[-1] - counted.times[0] >= seconds:
            return counted
        time.sleep(SAMPLE_SECONDS)


def _sent_bytes(interfaces: tuple[str, ...]) -> int | None:
    """In IP packets, as the cap is promised."""
    counters = read_counters(interfaces)
    return (
        None if counters is None else counters.sent_bytes - counters.sent_packets * counters.link_header_bytes
    )


def as_text(proof: Proof) -> str:
    """For people."""
    name = ", ".join(proof.interfaces) or "all interfaces"
    line = f"a line of {format_rate(round(proof.line_rate))}"
    lines = [f"{proof.seconds:.0f} s on {name}, everything that this machine sent, held against {line}:"]
    for length, each in proof.worst.items():
        note = "" if counts(length, proof.line_rate) else "  (too short on this line to count)"
        if each.seen_share < NEARLY_ALL:
            note += f"  ({each.seen_share:.0%} of them could be seen: this machine is busy)"
        lines.append(f"  fullest {_length(length):>6}  {_share(each.rate, proof)}{note}")
    lines.append(f"  mean            {_share(proof.mean_rate, proof)}   the cap is {CAP_SHARE:.0%}")
    if proof.peer_bytes is not None and proof.other_bytes is not None:
        lines.append(
            f"the peer says it sent {_megabytes(proof.peer_bytes)} of these "
            f"{_megabytes(proof.sent_bytes)}; other programs sent {_megabytes(proof.other_bytes)}"
        )
    return "\n".join([*lines, f"{proof.verdict.name.lower().replace('_', ' ')}: {proof.verdict.text}"])


def as_json(proof: Proof) -> str:
    """For programs: rates in bytes per second, shares of the line."""
    worst = {_length(length): each.rate / proof.line_rate for length, each in proof.worst.items()}
    seen = {_length(length): round(each.seen_share, 4) for length, each in proof.worst.items()}
    return json.dumps(
        {
            "verdict": proof.verdict.name.lower(),
            "interfaces": proof.interfaces,
            "seconds": round(proof.seconds, 3),
            "line_rate": proof.line_rate,
            "worst_shares": {length: round(share, 4) for length, share in worst.items()},
            "seen_shares": seen,
            "mean_share": round(proof.mean_rate / proof.line_rate, 4),
            "sent_bytes": proof.sent_bytes,
            "peer_bytes": proof.peer_bytes,
            "other_bytes": proof.other_bytes,
        }
    )


def _length(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{1000 * seconds:g} ms"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _share(rate: float, proof: Proof) -> str:
    return f"{rate / proof.line_rate:6.1%}"
