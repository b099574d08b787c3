"""How the QUIC engine is set up: versions, windows, sizes, pacing; each number with its reason."""

from __future__ import annotations

import logging
import ssl

from aioquic import tls
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

from shared import congestion
from shared.core.path_mtu import LEAST_BYTES
from shared.identity import Identity

ALPN = "penstock/1"
CONGESTION_CONTROL = congestion.ALGORITHM  # as registered with aioquic
VERSIONS = [int(QuicProtocolVersion.VERSION_1)]
CONNECTION_ID_BYTES = 8

STREAM_WINDOW_BYTES = 256 * 1024  # what a stranger may make us hold before anything is read
MAX_STREAM_WINDOW_BYTES = 8 * 1024 * 1024  # reached as the reader keeps up; 80 MB/s at 100 ms
CONNECTION_WINDOW_BYTES = 768 * 1024
MAX_CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024
MAX_CRYPTO_BYTES = 32 * 1024  # of handshake messages per epoch; two certificates take under 2 KiB
MAX_GAPS = 2048  # holes in one stream's received ranges; a lost half of a full window makes 800

# An acknowledgement waits 5 ms while a connection gets going, later 16: aioquic's 1 ms would cost a
# viewer of five sources about 3 Mbit/s of uplink for acknowledgements alone; peers assume up to
# 25 ms. On a fast path so many packets come meanwhile that the sender would run out of window.
ACK_DELAY_SECONDS = 0.005
SETTLED_PACKETS = 256  # received; from then on
SETTLED_ACK_DELAY_SECONDS = 0.016
MAX_UNACKNOWLEDGED = 192  # packets; then the acknowledgement leaves at once
AT_ONCE_DATAGRAMS = 16  # of control frames in one pass; more leave with the next event

# Limits of RFC 9001 section 6.6. AES-GCM keys are changed well before the 2^23 packets that they may
# seal (ChaCha20 has no such limit, and is treated alike); the others count packets that were forged.
PACKETS_PER_KEY = 1 << 21
FORGED_PACKETS_AES = 1 << 52
FORGED_PACKETS_CHACHA20 = 1 << 36


def quieten_engine() -> None:
    """aioquic warns about each bad packet, and strangers decide how many there are."""
    logging.getLogger("quic").setLevel(logging.CRITICAL)


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
        congestion_control_algorithm=CONGESTION_CONTROL,
        connection_id_length=CONNECTION_ID_BYTES,
        idle_timeout=idle_timeout_seconds,
        is_client=is_client,
        max_data=CONNECTION_WINDOW_BYTES,
        max_datagram_size=LEAST_BYTES,  # the client's first datagrams are padded to it; see path_mtu
        max_stream_data=STREAM_WINDOW_BYTES,
        private_key=identity.private_key,
        supported_versions=list(VERSIONS),
        # No authority vouches for anybody: the id is pinned instead, and the peer's signature by
        # the certificate's key is checked in any case.
        verify_mode=ssl.CERT_NONE,
    )
