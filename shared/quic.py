"""The seam to the QUIC engine: aioquic's connection, with what Penstock needs done differently.

* Both sides show a certificate, and only Ed25519 is taken (checked in `shared.connection`).
* Receive windows follow what the application has *consumed*. aioquic's own windows double on
  receipt, so a slow reader would hold an unbounded amount.
* Stream data waits for its turn at the gate; everything else leaves at once.
* What a stranger can make us allocate before or beside that is bounded.

This file alone touches aioquic's private parts; `tests/test_connection.py` names each of them, so
an upgrade that moves one fails there first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionState,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream
from cryptography import x509

from shared.core.errors import Reason
from shared.core.gate import MAX_DATAGRAM_BYTES
from shared.identity import Identity
from shared.quic_settings import (
    ACK_DELAY_SECONDS,
    AT_ONCE_DATAGRAMS,
    CONNECTION_WINDOW_BYTES,
    MAX_CONNECTION_WINDOW_BYTES,
    MAX_CRYPTO_BYTES,
    MAX_GAPS,
    MAX_STREAM_WINDOW_BYTES,
    STREAM_WINDOW_BYTES,
    CountingReno,
    TurnPacer,
    configure,
)


@dataclass(frozen=True, slots=True)
class PathFigures:
    """What the engine knows of the path."""

    rtt_seconds: float  # smoothed; 0 before the first sample
    window_bytes: int  # congestion window
    in_flight_bytes: int
    lost_datagrams: int


class QuicEngine(QuicConnection):
    """One QUIC connection, sans I/O: aioquic's, with consumed-based windows and turns at the gate."""

    def __init__(
        self,
        identity: Identity,
        *,
        is_client: bool,
        idle_timeout_seconds: float,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configure(identity, is_client, idle_timeout_seconds),
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self.wants_turn = False  # after `datagrams`: stream data waits for a turn
        self._pacer = TurnPacer(max_datagram_size=MAX_DATAGRAM_BYTES)
        self._loss._pacer = self._pacer
        self._ack_delay = ACK_DELAY_SECONDS
        # Unidirectional streams have no use here, so none may be opened.
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 0
        self._gated = False
        self._has_turn = False
        self._consumed = 0
        self._stream_consumed: dict[int, int] = {}

    # What the shell asks

    @property
    def ending(self) -> ConnectionTerminated | None:
        """Why the connection is closing or closed, known as soon as either side decides it."""
        return self._close_event

    @property
    def stream_count(self) -> int:
        """Streams still known."""
        return len(self._streams)

    @property
    def is_stillborn(self) -> bool:
        """Nothing that was received could be decrypted yet."""
        return self._state is QuicConnectionState.FIRSTFLIGHT

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """What the peer showed and, by its signature, holds the key of."""
        return self.tls._peer_certificate

    @property
    def waiting_streams(self) -> int:
        """Streams of ours that wait for the peer to allow more."""
        return len(self._streams_blocked_bidi)

    def has_stream(self, stream_id: int) -> bool:
        """The stream is still known: not both sides of it are finished and acknowledged."""
        return stream_id in self._streams

    def unsent_bytes(self, stream_id: int) -> int:
        """Bytes written that never left; what was lost and waits again is not counted."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.sender._buffer_stop - stream.sender.highest_offset

    def is_acknowledged(self, stream_id: int) -> bool:
        """The peer has all we wrote to the stream, up to its end."""
        stream = self._streams.get(stream_id)
        return stream is None or stream.sender.is_finished

    def figures(self) -> PathFigures:
        """Path statistics."""
        congestion = self._loss._cc
        return PathFigures(
            rtt_seconds=self._loss._rtt_smoothed,
            window_bytes=congestion.congestion_window,
            in_flight_bytes=congestion.bytes_in_flight,
            lost_datagrams=congestion.lost_datagrams if isinstance(congestion, CountingReno) else 0,
        )

    # What the shell does

    def end(self, reason: Reason, detail: str) -> None:
        """Close with a reason of ours; the peer hears both."""
        super().close(int(reason), None, detail)

    def consume(self, stream_id: int, count: int) -> bool:
        """The application took `count` bytes off a stream; True if the peer should hear of it now."""
        self._consumed += count
        if stream_id in self._streams:
            self._stream_consumed[stream_id] = self._stream_consumed.get(stream_id, 0) + count
            if self._stream_limit_due(self._streams[stream_id]):
                return True
        return self._connection_limit_due()

    def consume_rest(self, stream_id: int) -> bool:
        """Whatever the stream received and nobody will read counts as taken."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return False
        rest = stream.receiver.highest_offset - self._stream_consumed.get(stream_id, 0)
        return self.consume(stream_id, max(0, rest))

    def forget(self, stream_id: int) -> None:
        """Drop the books of a stream that is no longer known."""
        self._stream_consumed.pop(stream_id, None)

    def datagrams(self, now: float, *, gated: bool, turn: bool = False) -> list[tuple[bytes, Any]]:
        """Datagrams to send now, with their destinations.

        Gated without a turn: only what cannot wait. With a turn: at most one application datagram
        as well. Afterwards `wants_turn` says whether stream data is left that could be sent.
        """
        self.wants_turn = False
        if not self._network_paths:
            return []
        self._gated, self._has_turn = gated, turn
        sent = self.datagrams_to_send(now)
        if turn and not sent:  # nothing could use it: do not ask again before something changes
            self.wants_turn = False
        return sent

    # aioquic's, done differently

    def close(
        self,
        error_code: int = QuicErrorCode.NO_ERROR,
        frame_type: int | None = None,
        reason_phrase: str = "",
    ) -> None:
        # Called by aioquic itself, sometimes without a frame type; that would read as a `Reason`.
        super().close(error_code, QuicFrameType.PADDING if frame_type is None else frame_type, reason_phrase)

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        if not self._is_client:
            self.tls._request_client_certificate = True

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        if buf.pull_uint_var() + buf.pull_uint_var() > MAX_CRYPTO_BYTES:
            raise QuicConnectionError(
                QuicErrorCode.CRYPTO_BUFFER_EXCEEDED, frame_type, "too many handshake bytes"
            )
        buf.seek(start)
        super()._handle_crypto_frame(context, frame_type, buf)

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        start = buf.tell()
        stream_id = buf.pull_uint_var()
        buf.seek(start)
        super()._handle_stream_frame(context, frame_type, buf)
        stream = self._streams.get(stream_id)
        if stream is not None and len(stream.receiver._ranges) > MAX_GAPS:
            # Every further piece would cost a walk along all of them.
            raise QuicConnectionError(
                QuicErrorCode.FLOW_CONTROL_ERROR, frame_type, "too many holes in a stream"
            )

    def _write_application(
        self, builder: QuicPacketBuilder, network_path: QuicNetworkPath, now: float
    ) -> None:
        """Build application packets, leaving out stream data unless the gate is open or gave a turn.

        Streams with data are hidden from aioquic for the pass. It cannot be left to the pacer
        alone: a packet that carries a due acknowledgement skips the pacer and is filled up with data.
        """
        if not self._gated:
            self._pacer.allowance = None
            super()._write_application(builder, network_path, now)
            return
        self._pacer.allowance = 1 if self._has_turn else AT_ONCE_DATAGRAMS
        hidden: list[QuicStream] = []
        if not self._has_turn:
            hidden = [stream for stream in self._streams_queue if _has_data(stream)]
            self._streams_queue = [stream for stream in self._streams_queue if not _has_data(stream)]
        try:
            super()._write_application(builder, network_path, now)
        finally:
            self._streams_queue = hidden + self._streams_queue
            self._pacer.allowance = None
            self._pacing_at = None
            self._consider_asking(now)

    def _consider_asking(self, now: float) -> None:
        """Ask for a turn only if a full datagram could use it: data, window and pace permitting."""
        room = self._loss.congestion_window - self._loss.bytes_in_flight
        if room < self._max_datagram_size or not any(map(_has_data, self._streams_queue)):
            return
        self._pacing_at = self._pacer.next_send_time(now)
        self.wants_turn = self._pacing_at is None

    def _connection_limit_due(self) -> bool:
        window = self._connection_window()
        return self._consumed + window - self._local_max_data.sent >= window // 4

    def _connection_window(self) -> int:
        return min(MAX_CONNECTION_WINDOW_BYTES, CONNECTION_WINDOW_BYTES + self._consumed)

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        max_data, max_streams = self._local_max_data, self._local_max_streams_bidi
        if self._connection_limit_due():
            max_data.value = max(max_data.value, self._consumed + self._connection_window())
        # As aioquic: a new stream limit is told once it is worth more than what is left.
        told = [max_data]
        if max_streams.sent - max_streams.used < max_streams.value - max_streams.sent:
            told.append(max_streams)
        for limit in told:
            if limit.value == limit.sent:
                continue
            frame = builder.start_frame(
                limit.frame_type,
                capacity=CONNECTION_LIMIT_FRAME_CAPACITY,
                handler=self._on_connection_limit_delivery,
                handler_args=(limit,),
            )
            frame.push_uint_var(limit.value)
            limit.sent = limit.value

    def _stream_window(self, stream: QuicStream) -> int:
        consumed = self._stream_consumed.get(_id(stream), 0)
        return consumed + min(MAX_STREAM_WINDOW_BYTES, STREAM_WINDOW_BYTES + consumed)

    def _stream_limit_due(self, stream: QuicStream) -> bool:
        if stream.receiver.is_finished:
            return False
        return self._stream_window(stream) - stream.max_stream_data_local_sent >= STREAM_WINDOW_BYTES // 4

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        if not self._stream_limit_due(stream):
            return
        stream.max_stream_data_local = max(stream.max_stream_data_local, self._stream_window(stream))
        frame = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        frame.push_uint_var(_id(stream))
        frame.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local


def _has_data(stream: QuicStream) -> bool:
    sender = stream.sender
    if sender.buffer_is_empty or stream.is_blocked:
        return False
    return len(sender._pending) > 0 or sender._pending_eof


def _id(stream: QuicStream) -> int:
    assert stream.stream_id is not None  # only handshake streams have none
    return stream.stream_id
