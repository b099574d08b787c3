"""The household's own traffic: what the line's interface sent, less what this process sent.

    rate = (interface's bytes - our bytes, as the interface counts them) / seconds

It is taken over HALF a second, and the highest of the last HOLD_SECONDS counts: traffic that
appears is seen within a second, traffic that comes in bursts is believed to go on, and five
seconds after its end the line is ours again.

A device that cuts a row of datagrams itself (UDP_SEGMENT) counts the row as one packet with one
header. So of our datagrams as many headers are taken off as there can have been packets: exact
while we are alone, and at most a header per packet of the household too much; `MARGIN` makes up
for that.

Counters that jump back, vanish or stand still in time say nothing: the last figure is held, and
after BLIND_SECONDS the household is not seen any more, and only the delay guard watches over it.
"""

from __future__ import annotations

from collections import deque

from peer.core.line import Counters, LineSample

HALF = 0.5  # seconds
HOLD_SECONDS = 4.0
BLIND_SECONDS = 5.0
MARGIN = 1.03  # 42 of 1400 bytes
LONGEST_GAP_SECONDS = 1.0  # between samples; after more, all of it is taken to be of the last second
MOST_RATE = 12.5e9  # bytes/s; more than 100 Gbit/s is no traffic, but a counter that was set


class Household:
    """Follows the counters; `rate` is in bytes per second, IP headers counted."""

    def __init__(self) -> None:
        self._last: LineSample | None = None
        self._sent: deque[tuple[float, float]] = deque()  # seconds, bytes sent in them
        self._seen: deque[tuple[float, float]] = deque()  # time, rate; rates fall from left to right
        self._read_at: float | None = None

    def sample(self, sample: LineSample) -> None:
        """Take in the counters, at least twice a second."""
        last, self._last = self._last, sample
        if last is not None and sample.at < last.at:
            self._restart(sample.at)
        elif last is not None and sample.at > last.at:
            self._count(last, sample)
        while self._seen and self._seen[0][0] < sample.at - HOLD_SECONDS and self.is_seen:
            self._seen.popleft()

    @property
    def is_seen(self) -> bool:
        """The counters could be read lately."""
        if self._last is None or self._read_at is None:
            return False
        return self._last.at - self._read_at <= BLIND_SECONDS

    @property
    def rate(self) -> float:
        """The most it sent lately. What was seen last is held while nothing can be seen."""
        return self._seen[0][1] if self._seen else 0.0

    @property
    def rate_now(self) -> float:
        """What it sent in the last half second."""
        return self._seen[-1][1] if self._seen else 0.0

    def moved(self) -> None:
        """Another network, other counters."""
        self._last = None
        self._read_at = None
        self._sent.clear()
        self._seen.clear()

    def _count(self, last: LineSample, sample: LineSample) -> None:
        sent = _sent_between(last, sample)
        if sent is None or sent > MOST_RATE * (sample.at - last.at):
            self._sent.clear()
            return
        self._read_at = sample.at
        self._sent.append((min(LONGEST_GAP_SECONDS, sample.at - last.at), sent))
        while sum(seconds for seconds, _ in self._sent) - self._sent[0][0] >= HALF:
            self._sent.popleft()
        span = max(HALF, sum(seconds for seconds, _ in self._sent))
        rate = MARGIN * max(0.0, sum(count for _, count in self._sent)) / span
        while self._seen and self._seen[-1][1] <= rate:
            self._seen.pop()
        self._seen.append((sample.at, rate))

    def _restart(self, at: float) -> None:
        """The clock went back: what is held is held from now on."""
        self._sent.clear()
        self._seen = deque([(at, self.rate)])
        self._read_at = None if self._read_at is None else min(self._read_at, at)


def _sent_between(last: LineSample, sample: LineSample) -> float | None:
    """Bytes of the household, IP headers counted; a little below 0 when ours were counted late."""
    if last.counters is None or sample.counters is None:
        return None
    packets = sample.counters.sent_packets - last.counters.sent_packets
    everything = sample.counters.sent_bytes - last.counters.sent_bytes
    if packets < 0 or everything < 0 or sample.own.bytes < last.own.bytes:
        return None
    return everything - packets * sample.counters.link_header_bytes - _ours(last, sample, packets)


def _ours(last: LineSample, sample: LineSample, packets: int) -> float:
    datagrams = sample.own.datagrams - last.own.datagrams
    if datagrams == 0:
        return 0.0
    headers = sample.own.header_bytes - last.own.header_bytes
    merged = max(0, datagrams - packets)
    return sample.own.bytes - last.own.bytes - headers * merged / datagrams


def counters_sum(counters: tuple[Counters, ...]) -> Counters | None:
    """Of several interfaces with a default route each; None without any."""
    if not counters:
        return None
    return Counters(
        sum(one.sent_bytes for one in counters),
        sum(one.sent_packets for one in counters),
        max(one.link_header_bytes for one in counters),
    )
