"""Stateless resets (RFC 9000 section 10.3): a node that lost its memory says so at the next packet.

Each connection id that we give out comes with a token. A packet for an id that nobody here knows is
answered by random bytes that end in the id's token: whoever holds the token, and nobody else, sees
that the connection is gone, instead of asking into silence until its idle limit. Tokens follow from
the node's key and the id alone, so a node that was killed and started again still knows them.

What is sent is always shorter than what it answers, so two nodes without memory fall silent after a
few packets; `Resets` bounds how many leave.
"""

from __future__ import annotations

import hmac
import os

from aioquic.quic.connection import QuicConnection, QuicConnectionId
from aioquic.quic.packet_builder import QuicPacketBuilder

TOKEN_BYTES = 16
LEAST_RESET_BYTES = 5 + TOKEN_BYTES  # RFC 9000 section 10.3: a valid short packet, then the token
RESET_BYTES = 43  # like a packet with little in it
RESETS_A_SECOND = 1000  # in all: 43 KB/s; a tracker of 10,000 nodes is missed by all within their keep-alive
_FIXED_BIT, _RANDOM_BITS = 0x40, 0x3F  # of a short header's first byte


def reset_route(token: bytes) -> bytes:
    """Where an endpoint's routes have who would understand this token; no connection id looks like it."""
    return b"reset" + token


def route_of_reset(datagram: bytes) -> bytes:
    """The route of the token that a datagram ends in; none if it is too short to be a reset."""
    return reset_route(datagram[-TOKEN_BYTES:]) if len(datagram) >= LEAST_RESET_BYTES else b""


def reset_token(key: bytes, connection_id: bytes) -> bytes:
    """The token of a connection id that the owner of `key` gave out."""
    return hmac.digest(key, connection_id, "sha256")[:TOKEN_BYTES]


class Resets:
    """Makes resets for packets that nobody knows, so many a second at most."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._left = float(RESETS_A_SECOND)
        self._since = 0.0

    def answer(self, datagram: bytes, connection_id: bytes, now: float) -> bytes | None:
        """The reset that a short-header packet earns; None if it is too short, or too many came."""
        size = min(len(datagram) - 1, RESET_BYTES)
        if size < LEAST_RESET_BYTES:
            return None
        self._left = min(RESETS_A_SECOND, self._left + (now - self._since) * RESETS_A_SECOND)
        self._since = now
        if self._left < 1:
            return None
        self._left -= 1
        noise = os.urandom(size - TOKEN_BYTES)
        first = _FIXED_BIT | noise[0] & _RANDOM_BITS
        return bytes([first]) + noise[1:] + reset_token(self._key, connection_id)


class ResettableConnection(QuicConnection):
    """aioquic's connection, whose ids carry tokens that survive us; aioquic draws them at random."""

    _reset_key: bytes

    @property
    def reset_token(self) -> bytes:
        """What a datagram ends in when the peer knows nothing of us any more; empty if it gave none."""
        return self._peer_cid.stateless_reset_token

    def _initialize(self, peer_cid: bytes) -> None:
        if not self._is_client:  # a client's first id has none
            first = self._host_cids[0]
            first.stateless_reset_token = reset_token(self._reset_key, first.cid)
        super()._initialize(peer_cid)

    def _write_new_connection_id_frame(
        self, builder: QuicPacketBuilder, connection_id: QuicConnectionId
    ) -> None:
        connection_id.stateless_reset_token = reset_token(self._reset_key, connection_id.cid)
        super()._write_new_connection_id_frame(builder, connection_id)
