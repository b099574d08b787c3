"""What a datagram from a stranger earns: silence, a short reply, or a new connection.

Replies are never longer than what they answer, so nobody can use us to flood a third party. Above
`retry_above` unfinished handshakes a stranger must first show that it receives at the address it
claims (Retry, RFC 9000 section 8.1), which costs us no state.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.connection import TRANSPORT_CLOSE_FRAME_CAPACITY
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.retry import QuicRetryTokenHandler

from shared.quic import Resets
from shared.quic_settings import CONNECTION_ID_BYTES, VERSIONS
from shared.sockets import destination, is_short

_MAX_ID_BYTES = 20  # RFC 9000 section 17.2
_MIN_FIRST_ID_BYTES = 8  # RFC 9000 section 7.2


@dataclass(frozen=True, slots=True)
class Welcome:
    """Start a connection for this first datagram."""

    original_id: bytes  # the destination the client first chose
    retry_id: bytes | None  # the one we chose, if it came back from a Retry


class Reception:
    """Judges first datagrams; keeps nothing but the keys of its Retry and reset tokens."""

    def __init__(
        self,
        *,
        max_connections: int,
        max_half_open: int,
        retry_above: int,
        reset_key: bytes,
        mark: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """`mark` makes a random connection id one of ours."""
        self._max_connections = max_connections
        self._max_half_open = max_half_open
        self._retry_above = retry_above
        self._mark = mark
        self._tokens = QuicRetryTokenHandler()
        self._resets = Resets(reset_key)

    def judge(
        self, datagram: bytes, sender: Any, now: float, *, connections: int, half_open: int
    ) -> bytes | Welcome | None:
        """A reply to send, a Welcome, or None for silence."""
        if is_short(datagram):
            return self._resets.answer(datagram, destination(datagram), now)
        if len(datagram) < SMALLEST_MAX_DATAGRAM_SIZE:
            return None
        version = int.from_bytes(datagram[1:5], "big")
        if version not in VERSIONS:
            return _version_negotiation(datagram) if version else None
        try:
            header = pull_quic_header(Buffer(data=datagram), host_cid_length=CONNECTION_ID_BYTES)
        except ValueError:
            return None
        if (
            header.packet_type is not QuicPacketType.INITIAL
            or len(header.destination_cid) < _MIN_FIRST_ID_BYTES
        ):
            return None
        if connections >= self._max_connections or half_open >= self._max_half_open:
            return _refusal(header, QuicErrorCode.CONNECTION_REFUSED)
        if header.token:
            return self._check_token(header, sender, now)
        if half_open >= self._retry_above:
            return self._retry(header, sender, now)
        return Welcome(header.destination_cid, None)

    def _check_token(self, header: QuicHeader, sender: Any, now: float) -> bytes | Welcome:
        try:
            original_id = self._tokens.validate_token(
                address=sender, destination_cid=header.destination_cid, token=header.token, now=now
            )
        except ValueError:
            return _refusal(header, QuicErrorCode.INVALID_TOKEN)
        return Welcome(original_id, header.destination_cid)

    def _retry(self, header: QuicHeader, sender: Any, now: float) -> bytes:
        chosen = self._mark(os.urandom(CONNECTION_ID_BYTES))
        token = self._tokens.create_token(
            address=sender,
            original_destination_connection_id=header.destination_cid,
            retry_source_connection_id=chosen,
            now=now,
        )
        assert header.version is not None  # a long header has one
        return encode_quic_retry(
            version=header.version,
            source_cid=chosen,
            destination_cid=header.source_cid,
            original_destination_cid=header.destination_cid,
            retry_token=token,
        )


def _version_negotiation(datagram: bytes) -> bytes | None:
    """The versions we speak; only the ids are read, which all versions share (RFC 8999)."""
    to_end = 6 + datagram[5]
    from_end = to_end + 1 + datagram[to_end]
    to_id, from_id = datagram[6:to_end], datagram[to_end + 1 : from_end]
    if max(len(to_id), len(from_id)) > _MAX_ID_BYTES:
        return None
    return encode_quic_version_negotiation(
        source_cid=to_id, destination_cid=from_id, supported_versions=VERSIONS
    )


def _refusal(header: QuicHeader, code: QuicErrorCode) -> bytes:
    """An Initial packet that closes the connection before it exists."""
    assert header.version is not None  # a long header has one
    crypto = CryptoPair()
    crypto.setup_initial(cid=header.destination_cid, is_client=False, version=header.version)
    builder = QuicPacketBuilder(
        host_cid=header.destination_cid,
        is_client=False,
        max_datagram_size=SMALLEST_MAX_DATAGRAM_SIZE,
        peer_cid=header.source_cid,
        version=header.version,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=TRANSPORT_CLOSE_FRAME_CAPACITY)
    frame.push_uint_var(code)
    frame.push_uint_var(QuicFrameType.PADDING)
    frame.push_uint_var(0)
    return builder.flush()[0][0]
