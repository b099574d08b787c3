"""A home line in virtual time, in steps of 10 ms: a queue before it, leechers with congestion windows,
a household that counters show, and a neighbour in the house that they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from peer.core.line import Counters, LineSample, Own, PathSample
from peer.core.upload_cap import UploadCap

STEP = 0.01
DATAGRAM = 1378.0
BASE_RTT = 0.03


def nothing(at: float) -> float:
    """Nobody sends."""
    return 0.0


@dataclass(slots=True)
class Leecher:
    """One connection: how far it is, what it may have under way, what else delays it."""

    rtt: float
    window: float = 60_000.0
    noise: Callable[[float], float] = nothing  # seconds, by time
    grown_at: float = 0.0


@dataclass(slots=True)
class HomeLine:
    """All rates in bytes per second. `greedy` neighbours fill whatever queue there is, as TCP does."""

    line_rate: Callable[[float], float]
    cap: UploadCap
    leechers: list[Leecher]
    household: Callable[[float], float] = nothing
    neighbour: Callable[[float], float] = nothing
    queue_seconds: float = 0.2
    loss_share: float = 0.0
    from_second: float = 1.0  # on there is demand; before, connections exist
    rng: Random = field(default_factory=lambda: Random(1))
    now: float = 0.0
    queue: float = 0.0  # bytes
    ours: float = 0.0  # of these
    sent: list[tuple[float, float]] = field(default_factory=list)  # per step
    queued: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=lambda: [0.0, 0.0])
    counted: list[float] = field(default_factory=lambda: [0.0, 0.0])
    shares: dict[int, list[float]] = field(
        default_factory=dict
    )  # delivered, sent, lost since the last sample

    def run(self, seconds: float) -> HomeLine:
        """Goes on for so long."""
        for _ in range(round(seconds / STEP)):
            self._step()
            if round(self.now / STEP) % 10 == 0:
                self._sample()
        return self

    def mean_rate(self, begin: float, end: float) -> float:
        """What we sent between two moments."""
        return sum(count for at, count in self.sent if begin <= at < end) / (end - begin)

    def delay(self) -> float:
        """What a packet waits now."""
        return self.queue / self.line_rate(self.now)

    def _step(self) -> None:
        self.now += STEP
        rate = self.line_rate(self.now)
        others = self.household(self.now) * STEP, self.neighbour(self.now) * STEP
        wanted = [leecher.window / (leecher.rtt + self.delay()) * STEP for leecher in self.leechers]
        allowed = self.cap.gate_rate() * STEP if self.now > self.from_second else 0.0
        ours = min(allowed, sum(wanted))
        coming = ours + sum(others)
        room = self.queue_seconds * rate - self.queue + rate * STEP
        dropped = max(0.0, coming - room) / coming if coming else 0.0
        self.queue += coming * (1 - dropped)
        self.ours += ours * (1 - dropped)
        leaving = min(self.queue, rate * STEP)
        arrived = leaving * self.ours / self.queue if self.queue else 0.0
        self.queue -= leaving
        self.ours -= arrived
        lost = min(1.0, dropped + self.loss_share)
        for number, (leecher, part) in enumerate(zip(self.leechers, wanted, strict=True)):
            share = ours * part / (sum(wanted) or 1.0)
            self._move_window(leecher, share * lost)
            figures = self.shares.setdefault(number, [0.0, 0.0, 0.0])
            got = arrived * (1 - self.loss_share) * part / (sum(wanted) or 1.0)
            for index, amount in enumerate((got, share / DATAGRAM, share * lost / DATAGRAM)):
                figures[index] += amount
        self.own[0] += ours
        self.own[1] += ours / DATAGRAM
        self.counted[0] += ours + others[0] + 14 * (ours + others[0]) / DATAGRAM
        self.counted[1] += (ours + others[0]) / DATAGRAM
        self.sent.append((self.now, ours))
        self.queued.append(self.delay())

    def _move_window(self, leecher: Leecher, lost_bytes: float) -> None:
        """As Reno: half at a loss, at most once a round trip; a datagram more each round trip."""
        rtt = leecher.rtt + self.delay()
        if self.rng.random() < lost_bytes / DATAGRAM and self.now - leecher.grown_at > rtt:
            leecher.window = max(2 * DATAGRAM, leecher.window / 2)
            leecher.grown_at = self.now
        leecher.window += DATAGRAM * STEP / rtt

    def _sample(self) -> None:
        paths = tuple(
            PathSample(
                number,
                leecher.rtt + self.delay() + leecher.noise(self.now),
                *(int(figure) for figure in self.shares.setdefault(number, [0.0, 0.0, 0.0])),
            )
            for number, leecher in enumerate(self.leechers)
        )
        for figures in self.shares.values():
            figures[:] = [figure % 1 for figure in figures]
        own = Own(int(self.own[0]), int(self.own[1]), int(self.own[1]) * 28)
        counters = Counters(int(self.counted[0]), int(self.counted[1]), 14)
        self.cap.sample(LineSample(self.now, own, counters, paths))


def five(noise: Callable[[float], float] = nothing) -> list[Leecher]:
    """Five hungry leechers at 30 to 50 ms."""
    return [Leecher(BASE_RTT + 0.005 * number, noise=noise) for number in range(5)]
