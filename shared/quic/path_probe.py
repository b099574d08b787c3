"""A packet that is sent for its size."""

from __future__ import annotations

from collections.abc import Callable

from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.tls import Epoch


class PathProbe(QuicSentPacket):
    """A packet that finds out whether the path carries its size; its loss tells nothing else."""

    count = 1

    def __init__(
        self, packet_number: int, size: int, now: float, on_delivery: Callable[[QuicDeliveryState, int], None]
    ) -> None:
        super().__init__(
            epoch=Epoch.ONE_RTT,
            in_flight=True,
            is_ack_eliciting=True,
            is_crypto_packet=False,
            packet_number=packet_number,
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=now,
            sent_bytes=size,
            delivery_handlers=[(on_delivery, (size,))],
        )
