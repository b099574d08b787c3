"""Receiving in batches: a buffer of datagrams from one sender, past aioquic's packet parser.

What a sender sends in a row arrives in a row: one buffer (UDP_GRO) with packets of one length,
numbered consecutively, with consecutive bytes of one stream. So the header protection of all of
them is taken off with one call of AES, the stream bytes are joined and handed on as one event,
and acknowledgements, idle timer and windows are looked at once.

Each packet is still decrypted and authenticated on its own. A packet that is not a plain 1-RTT
packet of the active path (long header, other number length, key update, reserved bits, failed
authentication) is left to aioquic, and so are the frames of one that holds anything but
exactly one STREAM frame.
"""

from __future__ import annotations

from typing import Any

from aioquic.quic.connection import (
    END_STATES,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicStreamFrame
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketSpace
from aioquic.quic.stream import FinalSizeError
from aioquic.tls import Epoch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.quic.press import HEADER_BYTES, SAMPLE_AT, SAMPLE_BYTES, TAG_BYTES, xor
from shared.quic_settings import CONNECTION_ID_BYTES, MAX_GAPS

_LEAST_BYTES = SAMPLE_AT + SAMPLE_BYTES
RECEIVE_BYTES = 1 << 16  # the most that comes at once
_FIRST_BYTE = 0x41  # short header with a two-byte packet number, key phase 0
_LOW_BITS = bytes(mask & 0x1F for mask in range(256))
_NO_SPIN = bytes(byte & ~0x20 for byte in range(256))
_SPIN_BIT = 0x20


class _Stretch:
    """Consecutive bytes of one stream, gathered from consecutive packets."""

    __slots__ = ("chunks", "header", "header_bytes", "start", "stop", "stream_id")

    def __init__(self) -> None:
        self.stream_id = -1
        self.start = self.stop = 0
        self.chunks: list[bytes] = []
        self.header_bytes = 0  # of the frame that would come next,
        self.header = -1  # and that frame header as a number


class BatchReceiver(QuicConnection):
    """The receiving half of the fast path."""

    def receive_batch(self, data: memoryview, segment_bytes: int, addr: Any, now: float) -> list[bytes]:
        """Take datagrams of `segment_bytes` each (the last may be shorter) that came in a row.

        Returns those that were left alone, for `receive_datagram` or for another connection.
        """
        if segment_bytes < _LEAST_BYTES or not self._can_receive_batch(addr):
            return _split(data, segment_bytes)
        rest = len(data) % segment_bytes
        left = [bytes(data[len(data) - rest :])] if 0 < rest < _LEAST_BYTES else []
        if left:
            data = data[: len(data) - rest]
        return self._open_all(data, segment_bytes, now) + left

    def _can_receive_batch(self, addr: Any) -> bool:
        if self._state is not QuicConnectionState.CONNECTED or not self._handshake_confirmed:
            return False
        context = self._cryptos[Epoch.ONE_RTT].recv
        path = self._network_paths[0]
        return (
            context.aead is not None
            and isinstance(context.aead._aead, AESGCM)
            and not self._cryptos[Epoch.ZERO_RTT].recv.is_valid()
            and path.addr == addr
            and path.is_validated
            and not self._close_pending
        )

    def _open_all(self, data: memoryview, step: int, now: float) -> list[bytes]:
        recv = self._cryptos[Epoch.ONE_RTT].recv
        assert recv.aead is not None
        assert recv.hp is not None
        count = -(-len(data) // step)
        samples = [data[at : at + SAMPLE_BYTES] for at in range(SAMPLE_AT, len(data), step)]
        masks = recv.hp._encryptor.update(b"".join(samples))
        firsts = xor(data[0::step].tobytes(), masks[0::16].translate(_LOW_BITS))
        high = xor(data[HEADER_BYTES - 2 :: step].tobytes(), masks[1::16])
        low = xor(data[HEADER_BYTES - 1 :: step].tobytes(), masks[2::16])
        usual = _FIRST_BYTE | recv.key_phase << 2
        is_usual = firsts.translate(_NO_SPIN) == bytes([usual]) * count
        decrypt, iv = recv.aead._aead.decrypt, recv.aead._iv
        space, connection_id = self._spaces[Epoch.ONE_RTT], self.host_cid
        taking = _Taking(self, space, now)
        left: list[bytes] = []
        for at, first, number_high, number_low in zip(
            range(0, len(data), step), firsts, high, low, strict=True
        ):
            if not is_usual and first & ~_SPIN_BIT != usual:
                left.append(bytes(data[at : at + step]))
                continue
            number = taking.number_of(number_high << 8 | number_low)
            header = b"%c%b%c%c" % (first, connection_id, number_high, number_low)
            nonce = (iv ^ number).to_bytes(12, "big")
            try:
                plain = decrypt(nonce, data[at + HEADER_BYTES : at + step], header)
            except InvalidTag:  # not ours, or forged
                left.append(bytes(data[at : at + step]))
                continue
            if not taking.take(number, first, plain):
                break
        taking.finish()
        return left

    def _take_stream_bytes(self, stream_id: int, offset: int, data: bytes, fin: bool) -> None:
        """As QuicConnection._handle_stream_frame, for a stream that is known."""
        kind = int(QuicFrameType.STREAM_BASE)
        stream = self._streams[stream_id]
        stop = offset + len(data)
        newly = max(0, stop - stream.receiver.highest_offset)
        if stop > stream.max_stream_data_local:
            raise QuicConnectionError(QuicErrorCode.FLOW_CONTROL_ERROR, kind, "Over stream data limit")
        if self._local_max_data.used + newly > self._local_max_data.value:
            raise QuicConnectionError(QuicErrorCode.FLOW_CONTROL_ERROR, kind, "Over connection data limit")
        try:
            event = stream.receiver.handle_frame(QuicStreamFrame(data=data, offset=offset, fin=fin))
        except FinalSizeError as error:
            raise QuicConnectionError(QuicErrorCode.FINAL_SIZE_ERROR, kind, str(error)) from error
        if event is not None:
            self._events.append(event)
        self._local_max_data.used += newly
        if len(stream.receiver._ranges) > MAX_GAPS:
            # Every further piece would cost a walk along all of them.
            raise QuicConnectionError(QuicErrorCode.FLOW_CONTROL_ERROR, kind, "too many holes in a stream")


class _Taking:
    """The packets of one buffer, while they are taken in."""

    def __init__(self, connection: BatchReceiver, space: QuicPacketSpace, now: float) -> None:
        self._connection = connection
        self._space = space
        self._now = now
        self._first = self._following = -1  # a run of numbers taken and not yet recorded
        self._expected = space.expected_packet_number
        self._is_eliciting = False
        self._has_taken = False
        self._newest = -1, 0  # number and first byte of the highest number taken
        self._stretch = _Stretch()

    def number_of(self, truncated: int) -> int:
        """The whole packet number (RFC 9000 appendix A.3)."""
        expected = self._expected
        number = expected & ~0xFFFF | truncated
        if number <= expected - 0x8000:
            return number + 0x10000
        if number > expected + 0x8000 and number >= 0x10000:
            return number - 0x10000
        return number

    def take(self, number: int, first_byte: int, plain: bytes) -> bool:
        """One authentic packet; False when the connection is closing."""
        if number != self._following:
            self._record()
            if number <= self._space.largest_received_packet and number in self._space.received_packets:
                return True  # a duplicate
            self._first = number
        try:
            self._take_payload(plain)
        except QuicConnectionError as error:
            self._close(error)
        if self._connection._state in END_STATES or self._connection._close_pending:
            self._first = self._following = -1
            return False
        self._following = number + 1
        self._has_taken = True
        if number >= self._expected:
            self._expected = number + 1
        if number > self._newest[0]:
            self._newest = number, first_byte
        return True

    def finish(self) -> None:
        """Hand on what was gathered and keep the books that are kept once per buffer."""
        connection, space = self._connection, self._space
        self._record()
        try:
            self._deliver()
        except QuicConnectionError as error:
            self._close(error)
        if not self._has_taken or connection._state in END_STATES or connection._close_pending:
            return
        space.expected_packet_number = max(space.expected_packet_number, self._expected)
        number, first_byte = self._newest
        if number > connection._spin_highest_pn:
            spin = bool(first_byte & _SPIN_BIT)
            connection._spin_bit = not spin if connection._is_client else spin
            connection._spin_highest_pn = number
        connection._close_at = self._now + connection._idle_timeout()
        connection._ack_eliciting_sent_since_receipt = False
        if self._is_eliciting and space.ack_at is None:
            space.ack_at = self._now + connection._ack_delay

    def _take_payload(self, plain: bytes) -> None:
        stretch = self._stretch
        size = stretch.header_bytes
        if int.from_bytes(plain[:size], "big") == stretch.header:
            # The usual case: the frame header that follows from the one before.
            stretch.chunks.append(plain[size:])
            grown = len(plain) - size
            stretch.stop += grown
            stretch.header += grown
            return
        frame = _lone_stream_frame(plain)
        if frame is None or frame[0] not in self._connection._streams:
            self._deliver()
            self._take_other_payload(plain)
            return
        stream_id, offset, size, fin, limit = frame
        if stream_id != stretch.stream_id or offset != stretch.stop:
            self._deliver()
            stretch.stream_id, stretch.start = stream_id, offset
        self._is_eliciting = True
        stretch.chunks.append(plain[size:])
        stretch.stop = offset + len(plain) - size
        stretch.header_bytes = size
        stretch.header = int.from_bytes(plain[:size], "big") + len(plain) - size
        if fin:
            self._deliver(fin=True)
        elif stretch.stop + RECEIVE_BYTES >= limit:
            stretch.header = -1  # the next header may have another form

    def _take_other_payload(self, plain: bytes) -> None:
        connection = self._connection
        context = QuicReceiveContext(
            epoch=Epoch.ONE_RTT,
            host_cid=connection.host_cid,
            network_path=connection._network_paths[0],
            quic_logger_frames=None,
            time=self._now,
            version=None,
        )
        is_eliciting, _ = connection._payload_received(context, plain)
        self._is_eliciting |= is_eliciting

    def _deliver(self, fin: bool = False) -> None:
        stretch = self._stretch
        if stretch.chunks:
            data = stretch.chunks[0] if len(stretch.chunks) == 1 else b"".join(stretch.chunks)
            stretch.chunks = []
            stream_id, start = stretch.stream_id, stretch.start
            stretch.stream_id = stretch.header = -1
            self._connection._take_stream_bytes(stream_id, start, data, fin)

    def _record(self) -> None:
        """Note the run of numbers as received."""
        start, stop = self._first, self._following
        self._first = self._following = -1
        if start < 0:
            return
        space = self._space
        if stop > space.largest_received_packet + 1:
            space.largest_received_packet = stop - 1
            space.largest_received_time = self._now
        space.ack_queue.add(start, stop)
        while len(space.ack_queue) > MAX_ACK_RANGES:
            space.ack_queue.shift()
        window = space.received_packets
        lower = stop - window._size
        window._received.update(range(max(start, lower), stop))
        if lower > window._lower:
            window._lower = lower
            if len(window._received) > 2 * window._size:
                window._received = {number for number in window._received if number >= lower}

    def _close(self, error: QuicConnectionError) -> None:
        self._connection.close(error.error_code, error.frame_type, error.reason_phrase)


def _lone_stream_frame(plain: bytes) -> tuple[int, int, int, bool, int] | None:
    """Stream, offset, header length, FIN of a payload that is one STREAM frame with data; or None.

    Last, below which offset the next frame's header is this one's plus the length of its data.
    """
    if len(plain) < 2:
        return None
    kind = plain[0]
    if kind & 0xF8 != 0x08 or plain[1] >= 0x80:  # longer stream ids are rare
        return None
    at, stream_id = 2, plain[1]
    if stream_id >= 0x40:
        stream_id, at = int.from_bytes(plain[1:3], "big") & 0x3FFF, 3
    offset = limit = 0
    if kind & 4:
        offset, at, limit = _varint(plain, at)
    if kind & 2:
        length, at, limit = *_varint(plain, at)[:2], 0
        if at + length != len(plain):
            return None
    if at >= len(plain):
        return None
    return stream_id, offset, at, bool(kind & 1), limit


def _varint(plain: bytes, at: int) -> tuple[int, int, int]:
    """A variable-length integer, where it ends (past the end if it is cut short), and its type's limit."""
    if at >= len(plain):
        return 0, at + 1, 0
    size = 1 << (plain[at] >> 6)
    limit = 1 << (8 * size - 2)
    return int.from_bytes(plain[at : at + size], "big") & (limit - 1), at + size, limit


def _split(data: memoryview, segment_bytes: int) -> list[bytes]:
    return [bytes(data[at : at + segment_bytes]) for at in range(0, len(data), max(1, segment_bytes))]


assert HEADER_BYTES + TAG_BYTES < _LEAST_BYTES, "what can be sampled can be opened"
assert CONNECTION_ID_BYTES + 1 + 2 == HEADER_BYTES
