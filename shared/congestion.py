"""BBR in aioquic's hook for congestion control, under the name `bbr`.

aioquic reports packets one by one and never says that an acknowledgement is complete. So acknowledged
packets are gathered, and handed to the core as one batch with the next different event: a round trip
measured, a packet lost or sent, or a later `now`. What the order within a batch was does not matter.

Who sends reads three attributes, which change with every event:

    congestion_window   bytes that may be in flight, as aioquic expects
    pacing_rate         bytes/s at which packets should leave; aioquic's own pacer derives twice that from
                        the window, so a pacer of ours takes this figure instead
    send_quantum        bytes that may leave in one go without the path noticing

and may call `note_app_limited()` when it ran out of data or was held back by a gate; if it never does,
the core notices by itself, a few packets later. A sender that keeps its own books per batch instead of
per packet calls `sent`, `acked` and `lost`, the batch forms of aioquic's hooks; both can be mixed.
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
    """One connection's BBR. A packet carries its departure in an attribute of that name."""

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

    def note_app_limited(self) -> None:
        """The sender has nothing to send, or something other than the path holds it back."""
        self._settle()
        self._core.note_app_limited()

    # In batches

    def sent(self, now: float, size: int) -> Departure:
        """`size` bytes leave in one go; every packet of them shares the departure."""
        self._settle()
        departure = self._core.sent(now, size)
        self.bytes_in_flight = self._core.in_flight_bytes
        return departure

    def acked(self, now: float, size: int, newest: Departure) -> None:
        """`size` bytes are acknowledged, and `newest` was the last of them to leave."""
        self._settle()
        self._core.acknowledged(now, size, newest)
        self._show()

    def lost(self, now: float, losses: Iterable[tuple[int, Departure]]) -> None:
        """Pairs of a packet's size and departure; packets of one departure stay separate pairs."""
        self._settle()
        gone = list(losses)
        self.lost_datagrams += len(gone)
        self._core.lost(now, gone)
        self._show()

    # One by one, as aioquic calls

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        assert packet.sent_time is not None
        _attach(packet, self.sent(packet.sent_time, packet.sent_bytes))

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
        self.lost(now, [(packet.sent_bytes, _departure(packet)) for packet in packets])

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
        self.send_quantum = self._core.send_quantum


def _attach(packet: Any, departure: Departure) -> None:
    packet.departure = departure


def _departure(packet: Any) -> Departure:
    departure: Departure = packet.departure
    return departure


register_congestion_control(ALGORITHM, BbrCongestionControl)
