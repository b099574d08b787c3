"""BBR in aioquic's hook for congestion control, under the name `bbr`.

aioquic reports packets one by one, our engine reports batches of packets that left together
(`shared/quic/recovery.py`), and neither says that an acknowledgement is complete. So what was acknowledged
is gathered, and handed to the core at once with the next different event: a round trip measured, a packet
lost or sent, or a later `now`. In what order it was gathered does not matter.

Who sends reads two attributes, which change with every event:

    congestion_window   bytes that may be in flight, as aioquic expects
    pacing_rate         bytes/s at which packets should leave; aioquic's own pacer derives twice that from
                        the window, so a pacer of ours takes this figure instead
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket

from shared.core.bbr import Bbr
from shared.core.bbr_phases import BbrStatistics
from shared.core.bbr_rate import Departure
from shared.core.dice import Dice

ALGORITHM = "bbr"


class BbrCongestionControl(QuicCongestionControl):
    """One connection's BBR. A packet, or batch, carries its departure in an attribute of that name."""

    def __init__(self, *, max_datagram_size: int, rng: Dice | None = None) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._core = Bbr(max_datagram_size, random.Random() if rng is None else rng)
        self._acked_bytes = 0
        self._newest: Departure | None = None  # of the batch being gathered
        self._now = 0.0
        self.lost_datagrams = 0
        self._show()

    def statistics(self) -> BbrStatistics:
        """What the controller believes and allows now."""
        self._settle()
        return self._core.statistics()

    def set_datagram_bytes(self, count: int) -> None:
        """Datagrams are of this size from now on."""
        self._core.set_datagram_bytes(count)
        self._show()

    # As aioquic calls

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        assert packet.sent_time is not None  # it was sent
        self._settle()
        _attach(packet, self._core.sent(packet.sent_time, packet.sent_bytes))
        self.bytes_in_flight = self._core.in_flight_bytes

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        if now != self._now:
            self._settle()
        self._now = now
        self._acked_bytes += packet.sent_bytes
        self.bytes_in_flight -= packet.sent_bytes
        departure = _departure(packet)
        if self._newest is None or departure.number > self._newest.number:
            self._newest = departure

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        self._settle()

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        self._settle()
        lost = [(packet.sent_bytes, _departure(packet)) for packet in packets]
        self.lost_datagrams += len(lost)
        self._core.lost(now, lost)
        self._show()

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        self._settle()
        self._core.expired(sum(packet.sent_bytes for packet in packets))
        self._show()

    def on_persistent_congestion(self) -> None:
        self._settle()
        self._core.collapsed()
        self._show()

    def get_log_data(self) -> dict[str, Any]:
        return {**super().get_log_data(), "bbr-pacing-rate": self.pacing_rate}

    def _settle(self) -> None:
        if self._newest is None:
            return
        newest, size = self._newest, self._acked_bytes
        self._newest, self._acked_bytes = None, 0
        self._core.acknowledged(self._now, size, newest)
        self._show()

    def _show(self) -> None:
        self.bytes_in_flight = self._core.in_flight_bytes
        self.congestion_window = self._core.window_bytes
        self.pacing_rate = self._core.pacing_rate


def _attach(packet: Any, departure: Departure) -> None:
    packet.departure = departure


def _departure(packet: Any) -> Departure:
    departure: Departure = packet.departure
    return departure


register_congestion_control(ALGORITHM, BbrCongestionControl)
