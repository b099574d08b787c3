"""The pacer that aioquic's connection asks, over ours; it also counts what a turn at the gate allows."""

from __future__ import annotations

from aioquic.quic.congestion.base import QuicCongestionControl
from aioquic.quic.recovery import QuicPacketPacer

from shared.core.pacer import Pacer

_NEVER = 3600.0
_LEAST_RTT = 1e-6


class EnginePacer(QuicPacketPacer):
    """Paces by the congestion controller's rate, or lets a turn's number of datagrams through.

    A controller that knows its rate has `pacing_rate` (bytes/s) and may have `send_quantum` (bytes).
    For the others RFC 9002 section 7.7 holds: a little more than a window per round trip, and in
    slow start, where the window doubles in a round trip, twice that.
    """

    def __init__(self, *, max_datagram_size: int, congestion: QuicCongestionControl) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.allowance: int | None = None  # datagrams of a turn; None: no turn, as paced
        self._pacer = Pacer(max_datagram_size)
        self._congestion = congestion
        self._now = 0.0

    def set_datagram_bytes(self, count: int) -> None:
        """Datagrams are of this size from now on."""
        self._max_datagram_size = self._pacer.datagram_bytes = count

    def datagrams(self, now: float) -> int:
        """How many datagrams may leave now."""
        self._now = now
        paced = self._pacer.allowance(now)
        return paced if self.allowance is None else min(paced, self.allowance)

    def spend(self, datagrams: int, count: int, now: float) -> None:
        """So many datagrams of `count` bytes together left."""
        self._pacer.spend(count, now)
        if self.allowance is not None:
            self.allowance -= datagrams

    def ready_at(self, now: float) -> float | None:
        """When more may leave; None for now. A turn does not count."""
        ready_at = self._pacer.ready_at(now)
        return None if ready_at <= now else ready_at

    # For aioquic

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]  # it returns None too
        self._now = now
        if self.allowance is None:
            return self.ready_at(now)
        return None if self.allowance > 0 else now + _NEVER

    def update_after_send(self, now: float) -> None:
        self.spend(1, self._max_datagram_size, now)

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        rate: float | None = getattr(self._congestion, "pacing_rate", None)
        if rate is None:
            threshold = self._congestion.ssthresh
            gain = 2.0 if threshold is None or congestion_window < threshold else 1.25
            rate = gain * congestion_window / max(smoothed_rtt, _LEAST_RTT)
        self._pacer.set_rate(rate, self._now, getattr(self._congestion, "send_quantum", None))
