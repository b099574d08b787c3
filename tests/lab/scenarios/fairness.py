"""A line of 20 Mbit/s is shared: our download beside a TCP one (Cubic), and beside another of ours.

Both flows come from hosts that nothing else narrows, and end behind one household's downlink, whose counters
say who got how much. Shares are judged from SETTLE_SECONDS on, at several round trips and lengths of queue;
the queue is counted in products of rate and round trip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from time import monotonic, sleep

from benchmarks.data.children import Child, ChildFailed
from benchmarks.data.orders import Order, Ready
from benchmarks.report import Goal, Report, median, number
from tests.lab.lab import Lab, open_lab
from tests.lab.line import LabError, Line, mbit
from tests.lab.samples import Recording, between, mean_rate, total_bytes
from tests.lab.traffic import RoundTrips, start_flow, start_ping

GOALS: dict[str, Goal] = {
    "fairness_beside_cubic_low": (">=", 0.35),
    "fairness_beside_cubic_high": ("<=", 0.65),
    "fairness_two_of_ours": (">=", 0.40),
}
LINE_RATE = mbit(20)
OURS, THEIRS = "ours", "theirs"  # the hosts behind the household's line that download
SETTLE_SECONDS = 8.0
PING_SECONDS = 0.02
SETTINGS = ((0.02, 1.0), (0.05, 1.0), (0.1, 1.0), (0.05, 0.5), (0.05, 2.0))  # round trip, queue
QUICK_SETTINGS = SETTINGS[1:2]
RUNS = 3
SHARED_SECONDS, QUICK_SECONDS = 20.0, 15.0


@dataclass(frozen=True, slots=True)
class Shared:
    """One run. Shares are of what both got; `ping_seconds` is the household's round trip meanwhile."""

    our_share: float
    used: float  # of the line
    ping_seconds: float  # median
    dropped: float  # of our packets


def run(report: Report, *, is_quick: bool) -> None:
    """Every setting beside Cubic, then two of ours; the goals hold for the worst setting's median."""
    settings = QUICK_SETTINGS if is_quick else SETTINGS
    seconds = QUICK_SECONDS if is_quick else SHARED_SECONDS
    runs = 1 if is_quick else RUNS
    beside: list[float] = []
    smaller: list[float] = []
    rows: list[list[str]] = []
    for rtt_seconds, queue in settings:
        for other, shares in (("TCP Cubic", beside), ("ours", smaller)):
            found = [
                _share(rtt_seconds, queue, seconds, seed, is_cubic=shares is beside) for seed in range(runs)
            ]
            ours = [one.our_share for one in found]
            if shares is smaller:
                ours = [min(share, 1 - share) for share in ours]
            shares.append(median(ours) or 0.0)
            rows.append(_row(rtt_seconds, queue, other, ours, found))
    columns = ["round trip, queue", "beside", "our share", "of runs", "line used", "ping, ms", "our drops"]
    report.table("Shares of a line of 20 Mbit/s; of two of ours the smaller one", columns, rows)
    report.figure("fairness_beside_cubic_low", min(beside))
    report.figure("fairness_beside_cubic_high", max(beside))
    report.figure("fairness_two_of_ours", min(smaller))


def _row(rtt_seconds: float, queue: float, other: str, ours: list[float], found: list[Shared]) -> list[str]:
    return [
        f"{rtt_seconds * 1000:.0f} ms, {queue:g}",
        other,
        f"{median(ours):.0%}",
        " ".join(f"{share:.0%}" for share in sorted(ours)),
        f"{median([one.used for one in found]):.0%}",
        number(1000 * (median([one.ping_seconds for one in found]) or 0.0)),
        f"{median([one.dropped for one in found]):.1%}",
    ]


def _share(rtt_seconds: float, queue: float, seconds: float, seed: int, *, is_cubic: bool) -> Shared:
    whole_seconds = SETTLE_SECONDS + seconds
    with _household(rtt_seconds, queue, seed) as lab, ExitStack() as running, lab.record() as recording:
        started_at = monotonic()
        _download(running, lab, OURS, "edge", whole_seconds)
        if is_cubic:
            start_flow(lab, "server", THEIRS, seconds=whole_seconds)
        else:
            _download(running, lab, THEIRS, "server", whole_seconds)
        sleep(max(0.0, started_at + SETTLE_SECONDS - monotonic()))
        pinging = start_ping(
            lab, "phone", "clock", count=int(seconds / PING_SECONDS), interval_seconds=PING_SECONDS
        )
        pings = pinging.result()
        ended_at = monotonic()
        overruns = lab.delay_statistics().overruns
    if overruns:
        raise LabError("the laboratory was too slow: packets were lost that should not have been")
    return _judge(recording, started_at + SETTLE_SECONDS, ended_at, pings)


def _judge(recording: Recording, since: float, until: float, pings: RoundTrips) -> Shared:
    ours, theirs = (between(recording.host(name).down, since, until) for name in (OURS, THEIRS))
    sent = between(recording.host("edge").up, since, until)
    rates = mean_rate(ours), mean_rate(theirs)
    return Shared(
        our_share=rates[0] / sum(rates),
        used=sum(rates) / LINE_RATE,
        ping_seconds=pings.percentile(0.5),
        dropped=max(0.0, 1 - total_bytes(ours) / total_bytes(sent)),
    )


@contextmanager
def _household(rtt_seconds: float, queue: float, seed: int) -> Iterator[Lab]:
    home = Line(
        "home", down_rate=LINE_RATE, up_rate=LINE_RATE,
        queue_seconds=queue * rtt_seconds, hosts=(OURS, THEIRS, "phone"),
    )  # fmt: skip
    far = Line("far", up_rate=mbit(200), down_rate=mbit(200), hosts=("edge", "server", "clock"))
    with open_lab(home, replace(far, delay_seconds=rtt_seconds / 2), seed=seed) as lab:
        yield lab


def _download(running: ExitStack, lab: Lab, receiver: str, sender: str, seconds: float) -> None:
    """Our endpoints, one endless stream; they end with `running`."""
    order = Order(host=lab.address(sender), seconds=seconds, limit_seconds=seconds + 30)
    try:
        sending = running.enter_context(Child("ours", "send", order, lab.command(sender, [])))
        ready = sending.hear(Ready)
        order = replace(order, port=ready.port, node=ready.node, sender_pid=ready.pid)
        running.enter_context(Child("ours", "receive", order, lab.command(receiver, [])))
    except ChildFailed as error:
        raise LabError(str(error)) from None
