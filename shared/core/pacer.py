"""The pacer: spreads a connection's datagrams over time, a quantum at a time.

A sender that empties its congestion window at once fills the queue of the slowest link on the
path. So datagrams leave at a rate, from a bucket that gains `rate` bytes a second. Waking for
every datagram would cost more than building it; the bucket is therefore looked at in quanta: a
wait ends when QUANTUM_SECONDS of the rate are there, and what is there then leaves as one burst.

Trade-off: a longer quantum means fewer wake-ups and longer bursts into the first queue. On a fast
path it is one millisecond of the rate, which is what timers resolve anyway. On a slow one, where
a millisecond is less than a datagram or two, it is up to 4 ms, but no more than 4 datagrams: of a longer
burst into a queue that somebody else keeps full, most is lost. A timer
that comes late is made up for: an edge that is busy with a hundred connections comes late for
all of them, and larger bursts are what makes it faster then.
"""

from __future__ import annotations

from math import inf

QUANTUM_SECONDS = 0.001
SLOW_QUANTUM_SECONDS = 0.004  # as long as that is no more than
SLOW_QUANTUM_DATAGRAMS = 4
BURST_SECONDS = 0.002  # what a late timer may make up for,
SLOW_BURST_SECONDS = 0.04  # as long as that is no more than
SLOW_BURST_DATAGRAMS = 64
LEAST_BURST_DATAGRAMS = 10  # RFC 9002 section 7.7: the initial window may leave at once
BURST_DATAGRAMS = 256  # whatever the rate; the receive buffer of a modest system holds it,
BURST_BYTES = 400_000  # and fewer, if they are jumbo frames
LEAST_WAIT_SECONDS = 1e-6  # finer than any timer, coarser than a clock's last digit


class Pacer:
    """How many datagrams may leave now. Bytes are UDP payloads; open until a rate is set."""

    def __init__(self, datagram_bytes: int) -> None:
        self.datagram_bytes = datagram_bytes
        self._rate = inf
        self._burst_bytes = float(BURST_DATAGRAMS * datagram_bytes)
        self._quantum_bytes = float(datagram_bytes)
        self._level = self._burst_bytes
        self._counted_at = -inf

    @property
    def rate(self) -> float:
        """Bytes per second; `inf` before the first sample of the path."""
        return self._rate

    def set_rate(self, rate: float, now: float) -> None:
        """Pace at `rate` bytes/s from `now` on.

        Rates that are no use (zero, negative, not a number) are taken as one datagram a second.
        """
        self._mint(now)
        self._rate = rate if rate > self.datagram_bytes else float(self.datagram_bytes)
        size = self.datagram_bytes
        slow = min(self._rate * SLOW_BURST_SECONDS, SLOW_BURST_DATAGRAMS * size)
        wanted = max(self._rate * BURST_SECONDS, slow, LEAST_BURST_DATAGRAMS * size)
        self._burst_bytes = float(min(BURST_DATAGRAMS * size, BURST_BYTES, wanted))
        slow = min(self._rate * SLOW_QUANTUM_SECONDS, SLOW_QUANTUM_DATAGRAMS * size)
        wanted = max(self._rate * QUANTUM_SECONDS, slow, size)
        self._quantum_bytes = min(self._burst_bytes / 2, wanted)
        self._level = min(self._level, self._burst_bytes)

    def allowance(self, now: float) -> int:
        """Whole datagrams that may leave at `now`."""
        self._mint(now)
        return max(0, int(self._level // self.datagram_bytes))

    def spend(self, count: float, now: float) -> None:
        """`count` bytes left; the level may go below zero."""
        self._mint(now)
        self._level -= count

    def ready_at(self, now: float) -> float:
        """When it is worth looking again: `now` if a datagram may leave, else when a quantum may."""
        if self.allowance(now) > 0:
            return now
        # Datagrams may have grown since the quantum was set. And a wait that rounds to nothing would be none.
        enough = max(self._quantum_bytes, self.datagram_bytes)
        return max(now, self._counted_at) + max(LEAST_WAIT_SECONDS, (enough - self._level) / self._rate)

    def _mint(self, now: float) -> None:
        if now <= self._counted_at:
            return
        if self._rate == inf or self._counted_at == -inf:
            self._level = self._burst_bytes
        else:
            self._level = min(self._burst_bytes, self._level + self._rate * (now - self._counted_at))
        self._counted_at = now
