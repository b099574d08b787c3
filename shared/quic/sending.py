"""Sending in batches: 1-RTT packets full of stream data, past aioquic's packet builder.

aioquic builds one packet at a time from a dozen possible kinds of frames. Bulk traffic is one
kind: packets of one length, each with the next bytes of one stream. Those are made here, in
groups (see `press`), whenever a stream has at least a packet full of bytes to send. Everything
else is left to aioquic: handshakes, control frames, acknowledgements, small messages, probes,
ciphers other than AES, paths that are not validated, the first packet after a key update.

Flow control, congestion control, pacing and the order of streams are aioquic's; see `recovery`
for what is kept of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.quic.pacing import EnginePacer
from shared.quic.path_probe import PathProbe
from shared.quic.press import Press, Seal, varint
from shared.quic.recovery import Batch, Recovery
from shared.quic.rope import Rope
from shared.quic.windows import stream_number
from shared.quic_settings import CONNECTION_ID_BYTES

Out = Callable[[bytes | memoryview, int, Any], None]
"""Takes datagrams: the bytes, the length of each but the last, the address. The bytes are lent."""

MAX_ACK_RANGES_HERE = 32  # in a packet of its own; aioquic fits as many as it can
PASS_DATAGRAMS = 256  # of one connection before others have their turn
_UNAMBIGUOUS_NUMBERS = 1 << 15  # half the range of a two-byte packet number
_FIRST_BYTE = 0x41  # short header with a two-byte packet number
_press = lru_cache(maxsize=4)(Press)  # one per packet length; a print is sent before the next is made


class BatchSender(QuicConnection):
    """The sending half of the fast path."""

    _pacer: EnginePacer
    _recovery: Recovery
    _unacknowledged = 0  # packets received since the last acknowledgement, about

    # An enum's hash is a Python function: looking these up in their dicts took a tenth of a pass.

    @cached_property
    def _one_rtt(self) -> CryptoPair:
        """Only asked once the handshake is confirmed; it stays the same from then on."""
        return self._cryptos[Epoch.ONE_RTT]

    @cached_property
    def _one_rtt_space(self) -> QuicPacketSpace:
        """As `_one_rtt`."""
        return self._spaces[Epoch.ONE_RTT]

    def _can_batch(self) -> bool:
        """Nothing about the connection is unusual at present."""
        if self._state is not QuicConnectionState.CONNECTED or not self._handshake_confirmed:
            return False
        crypto = self._one_rtt
        return (
            crypto.send.aead is not None
            and isinstance(crypto.send.aead._aead, AESGCM)
            and not self._close_pending
            and not self._probe_pending
            and self._network_paths[0].is_validated
            and len(self._peer_cid.cid) == CONNECTION_ID_BYTES
        )

    def _batchable(self, stream: QuicStream) -> bool:
        """The stream could fill a packet now, as far as it is concerned."""
        sender = stream.sender
        if sender.buffer_is_empty or stream.is_blocked or not len(sender._pending):
            return False
        first = sender._pending[0]
        stop = min(first.stop, self._flow_limit(stream))
        return stop - first.start >= _press(self._max_datagram_size).chunk_bytes(
            stream_number(stream), first.start
        )

    def _flow_limit(self, stream: QuicStream) -> int:
        return min(
            stream.sender.highest_offset + self._remote_max_data - self._remote_max_data_used,
            stream.max_stream_data_remote,
        )

    def _room(self, now: float) -> int:
        """Full datagrams that window, pace and packet numbers allow now."""
        window = self._loss.congestion_window - self._loss.bytes_in_flight
        numbers = self._one_rtt_space.largest_acked_packet + _UNAMBIGUOUS_NUMBERS
        return min(
            window // self._max_datagram_size, self._pacer.datagrams(now), numbers - self._packet_number
        )

    def _send_batches(self, now: float, out: Out) -> bool:
        """Send what can go in batches, stream by stream, up to PASS_DATAGRAMS; whether any went."""
        left = min(PASS_DATAGRAMS, self._room(now))
        has_sent = False
        # After a request for new keys a packet of aioquic's has to come first: it changes them.
        while left > 0 and not self._one_rtt._update_key_requested:
            stream = next(filter(self._batchable, self._streams_queue), None)
            if stream is None:
                break
            sent = self._send_group(stream, left, now, out)
            left = min(left - sent, self._room(now))
            has_sent = True
            # The stream goes behind the others, as aioquic does it.
            self._streams_queue.remove(stream)
            self._streams_queue.append(stream)
        return has_sent

    def _send_group(self, stream: QuicStream, most: int, now: float, out: Out) -> int:
        press, sender, number = _press(self._max_datagram_size), stream.sender, self._packet_number
        pending = sender._pending[0]
        start, stop = pending.start, min(pending.stop, self._flow_limit(stream))
        chunk = press.chunk_bytes(stream_number(stream), start)
        most = min(most, press.datagrams, 0x10000 - (number & 0xFFFF))
        if stop < pending.stop or stop - start > most * chunk:
            stop = start + min(most, (stop - start) // chunk) * chunk
        fin = sender._buffer_fin == stop
        rope: Any = sender._buffer
        assert isinstance(rope, Rope)  # see QuicEngine
        printed = press.print(self._seal(), number, rope, stream_number(stream), start, stop, fin)
        count = -(-(stop - start) // chunk)
        self._note_sent(stream, start, stop, fin)
        self._packet_number += count
        batch = Batch(
            sender=sender,
            packet_number=number,
            count=count,
            packet_bytes=press.packet_bytes,
            sent_bytes=len(printed),
            chunk=chunk,
            start=start,
            stop=stop,
            fin=fin,
            sent_time=now,
        )
        self._note_batch(batch, now)
        out(printed, press.packet_bytes, self._network_paths[0].addr)
        return count

    def _send_ack(self, now: float, out: Out) -> bool:
        """Send the due acknowledgement in a packet of its own; False if aioquic had better do it.

        As QuicConnection._write_ack_frame, which also asks for an acknowledgement of this one now and then.
        """
        space, number = self._one_rtt_space, self._packet_number
        ranges = list(space.ack_queue)
        is_asking_turn = len(ranges) > 1 and number % 8 == 0
        if not ranges or len(ranges) > MAX_ACK_RANGES_HERE or is_asking_turn:
            return False
        if self._one_rtt._update_key_requested or space.largest_received_time is None:
            return False
        delay = int((now - space.largest_received_time) * 1_000_000) >> self._local_ack_delay_exponent
        newest = ranges.pop()
        fields = [QuicFrameType.ACK, newest.stop - 1, delay, len(ranges), newest.stop - 1 - newest.start]
        above = newest.start
        for part in reversed(ranges):
            fields += [above - part.stop - 1, part.stop - 1 - part.start]
            above = part.start
        payload = b"".join(map(varint, fields))
        printed = self._print(payload)
        packet = QuicSentPacket(
            epoch=Epoch.ONE_RTT,
            in_flight=False,
            is_ack_eliciting=False,
            is_crypto_packet=False,
            packet_number=number,
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=now,
            sent_bytes=len(printed),
            delivery_handlers=[(self._on_ack_delivery, (space, space.largest_received_packet))],
        )
        self._packet_number += 1
        self._loss.on_packet_sent(packet=packet, space=space)
        self._network_paths[0].bytes_sent += len(printed)
        space.ack_at = None
        self._unacknowledged = 0
        out(printed, len(printed), self._network_paths[0].addr)
        return True

    def _print(self, payload: bytes) -> memoryview:
        """The next packet, with these frames. Valid until the next one is made."""
        return _press(self._max_datagram_size).print_one(self._seal(), self._packet_number, payload)

    def _note_sent(self, stream: QuicStream, start: int, stop: int, fin: bool) -> None:
        """What QuicStreamSender.get_frame keeps, for a stretch."""
        sender = stream.sender
        sender._pending.subtract(start, stop)
        if stop > sender.highest_offset:
            self._remote_max_data_used += stop - sender.highest_offset
            sender.highest_offset = stop
        if fin:
            sender._pending_eof = False
        if not len(sender._pending) and not sender._pending_eof:
            sender.buffer_is_empty = True

    def _note_batch(self, batch: Batch | PathProbe, now: float) -> None:
        """What QuicConnection._flush_builder keeps, for a batch."""
        self._loss.on_packet_sent(packet=batch, space=self._one_rtt_space)
        self._pacer.spend(batch.count, batch.sent_bytes, now)
        self._network_paths[0].bytes_sent += batch.sent_bytes
        if not self._ack_eliciting_sent_since_receipt:
            self._close_at = now + self._idle_timeout()
            self._ack_eliciting_sent_since_receipt = True

    def _seal(self) -> Seal:
        crypto = self._one_rtt
        aead, protection = crypto.send.aead, crypto.send.hp
        assert aead is not None
        assert protection is not None
        first_byte = _FIRST_BYTE | self._spin_bit << 5 | crypto.key_phase << 2
        return Seal(aead._aead.encrypt_into, aead._iv, protection._encryptor, self._peer_cid.cid, first_byte)
