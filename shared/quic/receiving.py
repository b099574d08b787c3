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

from collections.abc import Iterator
from math import inf
from typing import Any

from aioquic.quic.connection import (
    QuicConnectionError,
    QuicConnectionState,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicStreamFrame
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import MAX_ACK_RANGES, QuicPacketSpace
from aioquic.quic.stream import FinalSizeError
from aioquic.tls import Epoch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import CipherContext
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.quic.press import HEADER_BYTES, SAMPLE_AT, SAMPLE_BYTES, TAG_BYTES, xor
from shared.quic.sending import BatchSender
from shared.quic_settings import (
    CONNECTION_ID_BYTES,
    MAX_GAPS,
    MAX_UNACKNOWLEDGED,
    SETTLED_ACK_DELAY_SECONDS,
    SETTLED_PACKETS,
)
from shared.sockets import split

_LEAST_BYTES = SAMPLE_AT + SAMPLE_BYTES
RECEIVE_BYTES = 1 << 17  # the most that comes at once
_FIRST_BYTE = 0x41  # short header with a two-byte packet number, key phase 0
_LOW_BITS = bytes(mask & 0x1F for mask in range(256))
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


class _Headers:
    """The headers of all packets in a buffer, with their protection (RFC 9001 section 5.4) taken off."""

    def __init__(
        self, data: memoryview, step: int, mask: CipherContext, usual: int, connection_id: bytes
    ) -> None:
        samples = [data[at : at + SAMPLE_BYTES] for at in range(SAMPLE_AT, len(data), step)]
        masks = mask.update(b"".join(samples))
        self._firsts = xor(data[0::step].tobytes(), masks[0::16].translate(_LOW_BITS))
        high = xor(data[HEADER_BYTES - 2 :: step].tobytes(), masks[1::16])
        low = xor(data[HEADER_BYTES - 1 :: step].tobytes(), masks[2::16])
        headers = bytearray((bytes([usual]) + connection_id + bytes(2)) * len(samples))
        headers[0::HEADER_BYTES] = self._firsts
        headers[HEADER_BYTES - 2 :: HEADER_BYTES] = high
        headers[HEADER_BYTES - 1 :: HEADER_BYTES] = low
        self._headers = bytes(headers)
        self._numbers = [above << 8 | below for above, below in zip(high, low, strict=True)]
        self._starts = range(0, len(data), step)

    def __iter__(self) -> Iterator[tuple[int, int, bytes, int]]:
        """Per packet: where it starts, its first byte, its header as authenticated, its truncated number."""
        headers = self._headers
        whole = [headers[at : at + HEADER_BYTES] for at in range(0, len(headers), HEADER_BYTES)]
        return zip(self._starts, self._firsts, whole, self._numbers, strict=True)


class BatchReceiver(BatchSender):
    """The receiving half of the fast path."""

    _eliciting_at = -inf  # when packets that want an acknowledgement came last

    def receive_batch(self, data: memoryview, segment_bytes: int, addr: Any, now: float) -> list[bytes]:
        """Take datagrams of `segment_bytes` each (the last may be shorter) that came in a row.

        Returns those that were left alone, for `receive_datagram` or for another connection.
        """
        if segment_bytes < _LEAST_BYTES or not self._can_receive_batch(addr):
            return split(data, segment_bytes)
        rest = len(data) % segment_bytes
        left = [bytes(data[len(data) - rest :])] if 0 < rest < _LEAST_BYTES else []
        if left:
            data = data[: len(data) - rest]
        return self._open_all(data, segment_bytes, now) + left

    def _note_eliciting(self, packets: int, at_once: bool, now: float) -> None:
        """Packets that want to be acknowledged came in one buffer; an end of a stream does so at once.

        Whoever serves a stream waits for that before it takes on the next. An acknowledgement also leaves
        at once if it would be due before more is likely to come: that saves waking up for it alone.
        """
        space = self._one_rtt_space
        if space.largest_received_packet > SETTLED_PACKETS:
            self._ack_delay = SETTLED_ACK_DELAY_SECONDS
        self._unacknowledged += packets
        gap = now - self._eliciting_at
        self._eliciting_at = now
        if space.ack_at is not None and now + gap > space.ack_at:
            at_once = True
        if at_once or self._unacknowledged >= MAX_UNACKNOWLEDGED:
            space.ack_at = now
        elif space.ack_at is None:
            space.ack_at = now + self._ack_delay

    def _write_ack_frame(self, builder: QuicPacketBuilder, space: QuicPacketSpace, now: float) -> None:
        self._unacknowledged = 0
        super()._write_ack_frame(builder, space, now)

    def _can_receive_batch(self, addr: Any) -> bool:
        if self._state is not QuicConnectionState.CONNECTED or not self._handshake_confirmed:
            return False
        aead, path = self._one_rtt.recv.aead, self._network_paths[0]
        return (
            aead is not None
            and isinstance(aead._aead, AESGCM)
            and path.addr == addr
            and path.is_validated
            and not self._close_pending
        )

    def _open_all(self, data: memoryview, step: int, now: float) -> list[bytes]:
        recv = self._one_rtt.recv
        assert recv.aead is not None
        assert recv.hp is not None
        usual = _FIRST_BYTE | recv.key_phase << 2
        headers = _Headers(data, step, recv.hp._encryptor, usual, self.host_cid)
        decrypt, iv = recv.aead._aead.decrypt, recv.aead._iv
        taking = _Taking(self, self._one_rtt_space, now)
        left: list[bytes] = []
        first = usual
        following, frame, size, chunks = taking.position()
        for at, first, header, truncated in headers:
            if first & ~_SPIN_BIT != usual:
                left.append(bytes(data[at : at + step]))
                continue
            is_next = following >= 0 and following & 0xFFFF == truncated
            number = following if is_next else taking.number_of(truncated)
            sealed = data[at + HEADER_BYTES : at + step]
            try:
                plain = decrypt((iv ^ number).to_bytes(12, "big"), sealed, header)
            except InvalidTag:  # not ours, or forged
                left.append(bytes(data[at : at + step]))
                continue
            if is_next and int.from_bytes(plain[:size], "big") == frame:
                # The usual case: the next number, and the frame header that follows from the one before.
                chunks.append(plain[size:])
                frame += len(plain) - size
                following += 1
                continue
            taking.catch_up(following, frame, first)
            if not taking.take(number, first, plain):
                break
            following, frame, size, chunks = taking.position()
        taking.catch_up(following, frame, first)
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
        self._is_eliciting = self._has_ended_stream = False
        self._count = 0  # packets taken
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

    def position(self) -> tuple[int, int, int, list[bytes]]:
        """What would be the usual next packet: its number, its frame header (as a number, and its length).

        And where its data goes. A number of -1 is no packet's: then nothing is usual.
        """
        stretch = self._stretch
        following = self._following if self._following > self._space.largest_received_packet else -1
        return following, stretch.header, stretch.header_bytes, stretch.chunks

    def catch_up(self, following: int, frame: int, first_byte: int) -> None:
        """Usual packets were taken, up to this position."""
        if following > self._following:
            self._count += following - self._following
            self._following = self._expected = following
            self._stretch.stop += frame - self._stretch.header
            self._stretch.header = frame
            self._newest = following - 1, first_byte

    def take(self, number: int, first_byte: int, plain: bytes) -> bool:
        """One authentic packet; False when the connection is closing."""
        connection, space = self._connection, self._space
        if number != self._following:
            self._record()
        if number <= space.largest_received_packet and number in space.received_packets:
            return True  # a duplicate
        if number != self._following:
            self._first = number
        try:
            self._take_payload(plain)
        except QuicConnectionError as error:
            self._close(error)
        if connection._state is not QuicConnectionState.CONNECTED or connection._close_pending:
            self._first = self._following = -1
            return False
        self._following = number + 1
        self._count += 1
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
        if not self._count or connection._close_pending:
            return
        if connection._state is not QuicConnectionState.CONNECTED:
            return
        space.expected_packet_number = max(space.expected_packet_number, self._expected)
        number, first_byte = self._newest
        if number > connection._spin_highest_pn:
            spin = bool(first_byte & _SPIN_BIT)
            connection._spin_bit = not spin if connection._is_client else spin
            connection._spin_highest_pn = number
        connection._close_at = self._now + connection._idle_timeout()
        connection._ack_eliciting_sent_since_receipt = False
        if self._is_eliciting:
            connection._note_eliciting(self._count, self._has_ended_stream, self._now)

    def _take_payload(self, plain: bytes) -> None:
        stretch = self._stretch
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
            self._has_ended_stream = True
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


assert HEADER_BYTES + TAG_BYTES < _LEAST_BYTES, "what can be sampled can be opened"
assert CONNECTION_ID_BYTES + 1 + 2 == HEADER_BYTES
