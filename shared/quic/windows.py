"""Flow control by consumption: a window opens as the application takes bytes off, never before.

aioquic doubles its windows when bytes *arrive*, so a reader that sleeps would be sent without
bound. Here a stranger may make us hold STREAM_WINDOW_BYTES per stream and CONNECTION_WINDOW_BYTES
in all. Each window grows by what was consumed, up to its maximum, so a reader that keeps up gets
as much under way as a long path needs. New limits are told when a quarter of the window is used up.
"""

from __future__ import annotations

from aioquic.quic.connection import (
    CONNECTION_LIMIT_FRAME_CAPACITY,
    MAX_STREAM_DATA_FRAME_CAPACITY,
    QuicConnection,
)
from aioquic.quic.packet import QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from shared.quic_settings import (
    CONNECTION_WINDOW_BYTES,
    MAX_CONNECTION_WINDOW_BYTES,
    MAX_STREAM_WINDOW_BYTES,
    STREAM_WINDOW_BYTES,
)


class ConsumedWindows(QuicConnection):
    """aioquic's connection with windows that follow the reader."""

    _consumed = 0
    _stream_consumed: dict[int, int]

    def consume(self, stream_id: int, count: int) -> bool:
        """The application took `count` bytes off a stream; True if the peer should hear of it now."""
        self._consumed += count
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._stream_consumed[stream_id] = self._stream_consumed.get(stream_id, 0) + count
            if self._stream_limit_due(stream):
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

    def _connection_limit_due(self) -> bool:
        window = self._connection_window()
        return self._consumed + window - self._local_max_data.sent >= window // 4

    def _connection_window(self) -> int:
        return min(MAX_CONNECTION_WINDOW_BYTES, CONNECTION_WINDOW_BYTES + self._consumed)

    def _streams_limit_due(self) -> bool:
        # As aioquic: a new stream limit is told once it is worth more than what is left.
        limit = self._local_max_streams_bidi
        return limit.value != limit.sent and limit.sent - limit.used < limit.value - limit.sent

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        max_data = self._local_max_data
        if self._connection_limit_due():
            max_data.value = max(max_data.value, self._consumed + self._connection_window())
        told = [max_data]
        if self._streams_limit_due():
            told.append(self._local_max_streams_bidi)
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

    def _consumed_and_window(self, stream: QuicStream) -> tuple[int, int]:
        consumed = self._stream_consumed.get(stream_number(stream), 0)
        return consumed, min(MAX_STREAM_WINDOW_BYTES, STREAM_WINDOW_BYTES + consumed)

    def _stream_limit_due(self, stream: QuicStream) -> bool:
        if stream.receiver.is_finished:
            return False
        consumed, window = self._consumed_and_window(stream)
        return consumed + window - stream.max_stream_data_local_sent >= window // 4

    def _write_stream_limits(
        self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream
    ) -> None:
        if not self._stream_limit_due(stream):
            return
        stream.max_stream_data_local = max(
            stream.max_stream_data_local, sum(self._consumed_and_window(stream))
        )
        frame = builder.start_frame(
            QuicFrameType.MAX_STREAM_DATA,
            capacity=MAX_STREAM_DATA_FRAME_CAPACITY,
            handler=self._on_max_stream_data_delivery,
            handler_args=(stream,),
        )
        frame.push_uint_var(stream_number(stream))
        frame.push_uint_var(stream.max_stream_data_local)
        stream.max_stream_data_local_sent = stream.max_stream_data_local


def stream_number(stream: QuicStream) -> int:
    """The id of a stream."""
    assert stream.stream_id is not None  # only handshake streams have none
    return stream.stream_id
