"""One client after the other on the same line: what leaves the modem, and what the household's ping says."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.cap.clients import LEECHERS, SHARE, Client, Job, uploading
from tests.lab.capped import CORE, Home
from tests.lab.lab import Lab
from tests.lab.line import Line, mbit
from tests.lab.samples import Sample, in_ip_bytes
from tests.lab.traffic import RoundTrips, start_flow, start_ping
from tests.lab.windows import Shares, share_over, shares

UPLINK = 10.0  # Mbit/s
SETTLE_SECONDS = 8.0  # until it uploads as it goes on to
PING_SECONDS = 0.02  # between two
SAMPLE_SECONDS = 0.002
WEB = Line("web", mbit(1000), mbit(1000))
LINES = (*Home(UPLINK).lines(), WEB, *(Line(name, mbit(10), mbit(50)) for name in LEECHERS))


@dataclass(frozen=True, slots=True)
class Found:
    """What a client did to the line."""

    shares: Shares
    over: float  # share of 100 ms windows over the limit
    pings: RoundTrips
    tcp_share: float | None = None  # of the line that a TCP upload of the household got


def measure(client: Client, lab: Lab, payload: Path, seconds: float, *, tcp_seconds: float = 0.0) -> Found:
    """Upload for so many seconds beside the household's pings; then, if wanted, beside its TCP upload."""
    lab.set_line("core", up_rate=CORE.up_rate)
    with tempfile.TemporaryDirectory(prefix="penstock-lab-") as scratch:
        job = Job(lab, payload, Path(scratch), int(SHARE * mbit(UPLINK)))
        with uploading(client, job):
            time.sleep(SETTLE_SECONDS)
            with lab.record(SAMPLE_SECONDS) as recording:
                pings = ping(lab, seconds)
            tcp_share = _tcp_share(lab, tcp_seconds) if tcp_seconds else None
    sent = _less(in_ip_bytes(recording.line("home").up), in_ip_bytes(recording.host("tv").up))
    line = mbit(UPLINK)
    return Found(shares(sent, line), share_over(sent, 0.1, SHARE * line), pings, tcp_share)


def _less(all_sent: Sequence[Sample], pings: Sequence[Sample]) -> tuple[Sample, ...]:
    """What went over the line, behind the modem's queue, without the household's pings."""
    pairs = zip(all_sent, pings, strict=True)
    return tuple(replace(sample, bytes=sample.bytes - ping.bytes) for sample, ping in pairs)


def ping(lab: Lab, seconds: float) -> RoundTrips:
    """From the household's other host to a server on a fast line, for so long."""
    count = int(seconds / PING_SECONDS)
    return start_ping(lab, "tv", "web", count=count, interval_seconds=PING_SECONDS).result()


def _tcp_share(lab: Lab, seconds: float) -> float:
    """Of the line, in IP packets: what a TCP upload of the household gets."""
    with lab.record() as recording:
        start_flow(lab, "tv", "web", seconds=seconds).wait()
    went = in_ip_bytes(recording.host("tv").up)
    return (went[-1].bytes - went[0].bytes) / seconds / mbit(UPLINK)
