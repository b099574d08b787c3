"""The care of 1-RTT keys: when to change them, what still arrives under the old ones, and forgeries.

A change of keys moves both directions, and one bit on the wire says which keys a packet has. So a
side that changes twice before the other has followed once is never understood again: nothing opens, and
the connection stalls. aioquic leaves it to its caller to avoid that. Here a change is asked for only when
the peer has acknowledged a packet under the present keys, whoever began those, and three probe time-outs
have passed (RFC 9001 sections 6.1 and 6.5): then the two are at most
one change apart, which the bit can tell.

aioquic also drops the old keys at once, and with them whatever was on its way: on a long fast path
that is megabytes, taken for congestion. Here they are kept for three probe time-outs.
"""

from __future__ import annotations

from math import inf
from typing import Any

from aioquic._crypto import AEAD, CryptoError
from aioquic.quic.crypto import CryptoContext, CryptoPair, KeyUnavailableError, next_key_phase
from aioquic.quic.packet import QuicErrorCode, decode_packet_number
from aioquic.tls import CipherSuite, Epoch

from shared.quic.sending import BatchSender
from shared.quic_settings import FORGED_PACKETS_AES, FORGED_PACKETS_CHACHA20, PACKETS_PER_KEY


class KeptKeys(CryptoPair):
    """aioquic's pair of keys, with those before and after, and a count of packets that none opened."""

    def __init__(self) -> None:
        super().__init__()
        self.forged = 0
        self._before: AEAD | None = None
        self._after: CryptoContext | None = None

    def forget_before(self) -> None:
        """What is still under the keys before is too late."""
        self._before = None

    def decrypt_packet(
        self, packet: bytes, encrypted_offset: int, expected_packet_number: int
    ) -> tuple[bytes, bytes, int]:
        """As aioquic. Raises CryptoError."""
        recv = self.recv
        if recv.aead is None or recv.hp is None:
            raise KeyUnavailableError("Decryption key is not available")
        try:
            header, truncated = recv.hp.remove(packet, encrypted_offset)
            number = decode_packet_number(truncated, 8 * ((header[0] & 3) + 1), expected_packet_number)
            return header, self._open(packet[len(header) :], header, number), number
        except CryptoError:
            self.forged += 1
            raise

    def _open(self, sealed: bytes, header: bytes, number: int) -> bytes:
        recv = self.recv
        assert recv.aead is not None  # looked at above
        if header[0] >> 2 & 1 == recv.key_phase:
            return recv.aead.decrypt(sealed, header, number)
        if self._before is not None:
            try:
                return self._before.decrypt(sealed, header, number)
            except CryptoError:
                pass  # or it is under the next ones
        if self._after is None:  # made once: they cost more than what a forger pays for asking
            self._after = next_key_phase(recv)
        assert self._after.aead is not None  # set up by aioquic
        plain = self._after.aead.decrypt(sealed, header, number)
        self._update_key("remote_update")
        return plain

    def _update_key(self, trigger: str) -> None:
        self._before, self._after = self.recv.aead, None
        super()._update_key(trigger)


class KeyCare(BatchSender):
    """Changes 1-RTT keys in time and not too often; ends a connection that is fed forgeries without end."""

    _sealing: Any = None  # the present sending key
    _sealing_since = 0  # the number of the first packet under it, or a little later
    _changed_at = inf

    def receive_datagram(self, data: bytes, addr: Any, now: float) -> None:
        """As aioquic."""
        super().receive_datagram(data, addr, now)
        if self._is_forged_to_the_limit():
            self.close(QuicErrorCode.AEAD_LIMIT_REACHED, None, "too many forged packets")

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._cryptos[Epoch.ONE_RTT] = KeptKeys()

    def _is_forged_to_the_limit(self) -> bool:
        if not self._handshake_confirmed:
            return False
        keys = self._one_rtt
        assert isinstance(keys, KeptKeys)
        is_chacha = keys.recv.cipher_suite is CipherSuite.CHACHA20_POLY1305_SHA256
        return keys.forged >= (FORGED_PACKETS_CHACHA20 if is_chacha else FORGED_PACKETS_AES)

    def _tend_keys(self, now: float) -> None:
        """Once a pass: notice a change of keys, forget the old ones, ask for new ones."""
        if not self._handshake_confirmed:
            return
        keys = self._one_rtt
        if keys.send.aead is not self._sealing:
            self._sealing = keys.send.aead
            self._sealing_since = self._packet_number
            self._changed_at = now
            return
        if now < self._changed_at + 3 * self._loss.get_probe_timeout():
            return
        assert isinstance(keys, KeptKeys)
        keys.forget_before()
        acknowledged = self._one_rtt_space.largest_acked_packet
        is_used_up = self._packet_number - self._sealing_since >= PACKETS_PER_KEY
        if is_used_up and acknowledged >= self._sealing_since and not keys._update_key_requested:
            self.request_key_update()
            self.send_ping(0)  # carries the change
