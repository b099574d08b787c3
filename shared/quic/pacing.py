"""The pacer that aioquic's connection asks, over ours; it also counts what a turn at the gate allows."""

from __future__ import annotations

from typing import Protocol

from aioquic.quic.recovery import QuicPacketPacer

from shared.core.pacer import Pacer

_NEVER = 3600.0


class Paced(Protocol):
    """A congestion controller that knows its rate."""

    pacing_rate: float  # bytes/s


class EnginePacer(QuicPacketPacer):
    """Paces by the congestion controller's `pacing_rate`, or lets a turn's number of datagrams through."""

    def __init__(self, *, max_datagram_size: int, congestion: Paced) -> None:
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
        self._pacer.set_rate(self._congestion.pacing_rate, self._now)
