"""How the QUIC engine is set up: versions, windows, sizes, pacing; each number with its reason."""

from __future__ import annotations

import ssl
from typing import Any

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer

from shared.core.gate import MAX_DATAGRAM_BYTES
from shared.identity import Identity

ALPN = "penstock/1"
VERSIONS = [int(QuicProtocolVersion.VERSION_1)]
CONNECTION_ID_BYTES = 8

# MAX_DATAGRAM_BYTES is 1350: with IPv6 and UDP headers 1398 bytes, which passes PPPoE, most tunnels
# and mobile networks unprobed (the size Chrome settled on); aioquic does not probe the path.

STREAM_WINDOW_BYTES = 256 * 1024  # what a stranger may make us hold before anything is read
MAX_STREAM_WINDOW_BYTES = 2 * 1024 * 1024  # reached as the reader keeps up
CONNECTION_WINDOW_BYTES = 768 * 1024
MAX_CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024
MAX_CRYPTO_BYTES = 32 * 1024  # of handshake messages per epoch; two certificates take under 2 KiB
MAX_GAPS = 2048  # holes in one stream's received ranges; a lost half of a full window makes 800

# One acknowledgement per connection in 5 ms. aioquic's 1 ms would cost a viewer of five sources
# about 3 Mbit/s of uplink for acknowledgements alone; peers assume up to 25 ms.
ACK_DELAY_SECONDS = 0.005
AT_ONCE_DATAGRAMS = 16  # of control frames in one pass; more leave with the next event

# Timers come up about a millisecond late, so the pacer may catch up on 2 ms, but with no more than a
# receiver's default socket buffer holds. aioquic's bursts of 16 would end at 10 MB/s.
BURST_SECONDS = 0.002
BURST_DATAGRAMS = 64

_NEVER = 3600.0


class CountingReno(RenoCongestionControl):
    """aioquic's New Reno that also counts what was lost."""

    lost_datagrams = 0

    def on_packets_lost(self, *, now: float, packets: Any) -> None:
        lost: list[QuicSentPacket] = list(packets)
        self.lost_datagrams += len(lost)
        super().on_packets_lost(now=now, packets=lost)


class TurnPacer(QuicPacketPacer):
    """aioquic's pacer, which can also be told how many packets the current pass may build."""

    allowance: int | None = None  # None: as aioquic paces

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        super().update_rate(congestion_window, smoothed_rtt)
        if self.packet_time is not None:
            self.bucket_max = max(self.bucket_max, min(BURST_SECONDS, BURST_DATAGRAMS * self.packet_time))

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]  # it returns None too
        if self.allowance is None:
            return super().next_send_time(now)
        return None if self.allowance > 0 else now + _NEVER

    def update_after_send(self, now: float) -> None:
        super().update_after_send(now)
        if self.allowance is not None:
            self.allowance -= 1


def configure(identity: Identity, is_client: bool, idle_timeout_seconds: float) -> QuicConfiguration:
    """The engine's configuration for one side of a connection."""
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        certificate=identity.certificate,
        cipher_suites=[
            tls.CipherSuite.AES_128_GCM_SHA256,
            tls.CipherSuite.AES_256_GCM_SHA384,
            tls.CipherSuite.CHACHA20_POLY1305_SHA256,
        ],
        congestion_control_algorithm="penstock",
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=idle_timeout_seconds,
        is_client=is_client,
        max_data=CONNECTION_WINDOW_BYTES,
        max_datagram_size=MAX_DATAGRAM_BYTES,
        max_stream_data=STREAM_WINDOW_BYTES,
        private_key=identity.private_key,
        supported_versions=list(VERSIONS),
        # No authority vouches for anybody: the id is pinned instead, and the peer's signature by
        # the certificate's key is checked in any case.
        verify_mode=ssl.CERT_NONE,
    )


register_congestion_control("penstock", CountingReno)
