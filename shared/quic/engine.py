"""The seam to the QUIC engine: aioquic's connection, with what Penstock needs done differently.

* Both sides show a certificate, and only Ed25519 is taken (checked in `shared.connection`).
* Receive windows follow what the application has *consumed* (`windows`).
* Stream data waits for its turn at the gate; everything else leaves at once.
* Bulk data is sent and received in batches (`sending`, `receiving`, `recovery`).
* What a stranger can make us allocate before or beside that is bounded.

This package alone touches aioquic's private parts; `tests/test_engine_internals.py` names each of
them, so an upgrade that moves one fails there first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.connection import (
    QuicConnectionError,
    QuicConnectionState,
    QuicNetworkPath,
    QuicReceiveContext,
)
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.stream import QuicStream
from aioquic.tls import Epoch
from cryptography import x509

from shared.core.errors import Reason
from shared.core.gate import MAX_DATAGRAM_BYTES
from shared.core.path_mtu import STEPS, PathMtu
from shared.identity import Identity
from shared.quic.keys import KeyCare
from shared.quic.pacing import EnginePacer
from shared.quic.path_search import PathSearch
from shared.quic.receiving import BatchReceiver
from shared.quic.recovery import Recovery
from shared.quic.resets import ResettableConnection
from shared.quic.rope import Rope
from shared.quic.sending import Out
from shared.quic.shaking import QuickHandshake
from shared.quic.windows import ConsumedWindows
from shared.quic_settings import (
    ACK_DELAY_SECONDS,
    AT_ONCE_DATAGRAMS,
    MAX_CRYPTO_BYTES,
    MAX_GAPS,
    configure,
)

MAX_TIMEOUTS = 25  # in a row; more than a minute, as they are backed off
SOON_SECONDS = 0.0005  # a timer would come later than another pass


@dataclass(frozen=True, slots=True)
class PathFigures:
    """What the engine knows of the path."""

    rtt_seconds: float  # smoothed; 0 before the first sample
    window_bytes: int  # congestion window
    in_flight_bytes: int
    lost_datagrams: int
    datagram_bytes: int  # the largest that the path is known to carry


class QuicEngine(BatchReceiver, PathSearch, KeyCare, ConsumedWindows, QuickHandshake, ResettableConnection):
    """One QUIC connection, sans I/O: aioquic's, with batches, consumed windows and turns at the gate."""

    def __init__(
        self,
        identity: Identity,
        *,
        is_client: bool,
        idle_timeout_seconds: float,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
        mark: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """`mark` makes a random connection id one of this process's."""
        configuration = configure(identity, is_client, idle_timeout_seconds)
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._mark = mark
        self.host_cid = self._host_cids[0].cid = mark(self.host_cid)
        self._local_initial_source_connection_id = self.host_cid
        self.wants_turn = False  # after `send`: stream data waits for a turn
        self.is_brief = False  # what wants a turn is a small message, or the end of a large one
        self.has_more = False  # after `send`: others should have their turn, then we again
        self._path_mtu = PathMtu()
        self._loss = self._recovery = Recovery(
            path_mtu=self._path_mtu,
            congestion_control_algorithm=configuration.congestion_control_algorithm,
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=self._max_datagram_size,
            peer_completed_address_validation=not is_client,
            send_probe=self._send_probe,
            logger=self._logger,
        )
        control: Any = self._recovery._cc  # ours, by its name in quic_settings
        self._pacer = EnginePacer(max_datagram_size=self._max_datagram_size, congestion=control)
        self._recovery._pacer = self._pacer
        self._ack_delay = ACK_DELAY_SECONDS
        # Unidirectional streams have no use here, so none may be opened.
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 0
        self._gated = False
        self._turn = 0
        self._stream_consumed = {}
        self._reset_key = identity.reset_key

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
    def paced_until(self) -> float | None:
        """When the pacer lets data go again, if that is all it waits for."""
        return self._pacing_at

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
        return PathFigures(
            rtt_seconds=self._loss._rtt_smoothed,
            window_bytes=self._loss.congestion_window,
            in_flight_bytes=self._loss.bytes_in_flight,
            lost_datagrams=self._recovery.lost_packets,
            datagram_bytes=self._path_mtu.size,
        )

    def take_shortest_rtt(self) -> float | None:
        """The shortest round trip since the last call, less what the peer says it waited; None: no sample."""
        shortest, self._recovery.shortest_rtt = self._recovery.shortest_rtt, inf
        return shortest if shortest < inf else None

    # What the shell does

    def end(self, reason: Reason, detail: str) -> None:
        """Close with a reason of ours; the peer hears both."""
        super().close(int(reason), None, detail)

    def note_alive(self, now: float) -> None:
        """The peer was heard by another way: it is idle from now on only."""
        if self._close_event is None and not self._close_pending:
            self._close_at = now + self._idle_timeout()

    def take_apart(self) -> None:
        """It is over: let go of what refers back here, so that its memory is free at once.

        Only figures and the peer may be asked for afterwards.
        """
        self._QuicConnection__frame_handlers: dict[int, object] = {}
        self._recovery.forget_all()
        for stream in self._streams.values():
            stream.sender._buffer = bytearray()
        for name in ("tls", "_cryptos", "_cryptos_initial"):
            vars(self).pop(name, None)

    def send(self, now: float, out: Out, *, gated: bool, turn: int = 0) -> None:
        """Hand `out` the datagrams to send now.

        Gated without a turn: only what cannot wait. With a turn: up to `turn` datagrams of stream
        data as well. Afterwards `wants_turn` and `has_more` say whether data is left that could go.
        """
        self.wants_turn = self.has_more = False
        self._pacing_at = None  # aioquic sets it when a frame of its own has to wait
        if not self._network_paths:
            return
        if turn or not gated:
            self.limit_datagrams(MAX_DATAGRAM_BYTES if turn else STEPS[-1])
        self._fit_datagrams()
        self._tend_keys(now)
        self._gated, self._turn = gated, turn
        self._pacer.allowance = turn if gated else None
        can_batch = self._can_batch()
        has_sent = False
        if not (can_batch and self._is_quiet() and self._send_due_ack(now, out)):
            has_sent = self._send_singly(now, out)
            can_batch = self._can_batch()
        if can_batch and (turn > 0 or not gated):
            has_sent |= self._search_path(now, out)
            has_sent |= self._send_batches(now, out)
        self._pacer.allowance = None
        if can_batch:
            self._consider_more(now)
            self.has_more &= has_sent  # or it would never end
        if turn and not has_sent:  # nothing could use it: do not ask again before something changes
            self.wants_turn = False

    def _send_singly(self, now: float, out: Out) -> bool:
        """What aioquic has to send. Two datagrams ask whether a silent peer is there (RFC 9002, 6.2.4).

        One is lost together with its answer too often on a lossy path; each failure doubles the wait.
        """
        asks_twice = self._probe_pending and self._handshake_confirmed
        sent = self.datagrams_to_send(now)
        if asks_twice and not self._probe_pending:
            self._probe_pending = True
            sent += self.datagrams_to_send(now)
        for datagram, recipient in sent:
            out(datagram, len(datagram), recipient)
        return bool(sent)

    # aioquic's, done differently

    def close(
        self,
        error_code: int = QuicErrorCode.NO_ERROR,
        frame_type: int | None = None,
        reason_phrase: str = "",
    ) -> None:
        # Called by aioquic itself, sometimes without a frame type; that would read as a `Reason`.
        super().close(error_code, QuicFrameType.PADDING if frame_type is None else frame_type, reason_phrase)

    def handle_timer(self, now: float) -> None:
        super().handle_timer(now)
        if self._recovery.timeouts_in_a_row >= MAX_TIMEOUTS:
            # It may go on sending, and so never time out as idle.
            self.close(QuicErrorCode.NO_VIABLE_PATH, None, "nothing is acknowledged")

    def _replenish_connection_ids(self) -> None:
        known = len(self._host_cids)
        super()._replenish_connection_ids()
        for new in self._host_cids[known:]:
            new.cid = self._mark(new.cid)

    def _get_or_create_stream(self, frame_type: int, stream_id: int) -> QuicStream:
        known = len(self._streams)
        stream = super()._get_or_create_stream(frame_type, stream_id)
        for new in self._streams_queue[len(self._streams_queue) - (len(self._streams) - known) :]:
            _rope_in(new)
        return stream

    def _get_or_create_stream_for_send(self, stream_id: int) -> QuicStream:
        is_new = stream_id not in self._streams
        stream = super()._get_or_create_stream_for_send(stream_id)
        if is_new:
            _rope_in(stream)
        return stream

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
        """Build application packets, leaving out stream data that has to wait or will go in batches.

        Streams with such data are hidden from aioquic for the pass. It cannot be left to the pacer
        alone: a packet that carries a due acknowledgement skips the pacer and is filled up with data.
        """
        can_batch = self._can_batch()
        hidden: list[QuicStream] = []
        if self._gated and not self._turn:
            self._pacer.allowance = AT_ONCE_DATAGRAMS
            hidden = [stream for stream in self._streams_queue if _has_data(stream)]
        elif can_batch:
            hidden = [stream for stream in self._streams_queue if self._batchable(stream)]
        if hidden:
            self._streams_queue = [stream for stream in self._streams_queue if stream not in hidden]
        try:
            super()._write_application(builder, network_path, now)
        finally:
            self._streams_queue = hidden + self._streams_queue
            if self._gated:
                self._pacing_at = None
                if not can_batch:
                    self._consider_more(now)

    def _send_due_ack(self, now: float, out: Out) -> bool:
        """The acknowledgement, if one is due, left without aioquic's help."""
        ack_at = self._one_rtt_space.ack_at
        return ack_at is None or ack_at > now or self._send_ack(now, out)

    def _is_quiet(self) -> bool:
        """Nothing but batches and acknowledgements is to be sent: aioquic need not be asked.

        It takes longer to say no.
        """
        path = self._network_paths[0]
        if (
            len(self._network_paths) > 1
            or path.remote_challenges
            or self._ping_pending
            or self._handshake_done_pending
            or self._retire_connection_ids
            or self._streams_blocked_pending
            or self._one_rtt._update_key_requested
            or not self._crypto_streams[Epoch.ONE_RTT].sender.buffer_is_empty
            or self._connection_limit_due()
            or self._local_max_data.value != self._local_max_data.sent
            or self._streams_limit_due()
            or not all(connection_id.was_sent for connection_id in self._host_cids)
        ):
            return False
        holds_data = self._gated and not self._turn
        return not any(self._needs_aioquic(stream, holds_data) for stream in self._streams_queue)

    def _needs_aioquic(self, stream: QuicStream, holds_data: bool) -> bool:
        if stream.is_finished or stream.receiver.stop_pending or stream.sender.reset_pending:
            return True
        if self._stream_limit_due(stream):
            return True
        return not holds_data and _has_data(stream) and not self._batchable(stream)

    def _consider_more(self, now: float) -> None:
        """Data that window and pace allow asks for a turn, or for another pass; paced data for a timer."""
        room = self._loss.congestion_window - self._loss.bytes_in_flight
        if room < self._max_datagram_size or not any(map(_has_data, self._streams_queue)):
            return
        self._pacing_at = self._pacer.ready_at(now)
        if self._pacing_at is None or self._pacing_at < now + SOON_SECONDS:
            self.wants_turn = self._gated
            self.is_brief = self._gated and any(
                _has_data(stream) and not self._batchable(stream) for stream in self._streams_queue
            )
            self.has_more = not self._gated and any(map(self._could_send, self._streams_queue))

    def _could_send(self, stream: QuicStream) -> bool:
        if not _has_data(stream):
            return False
        return stream.sender.next_offset < self._flow_limit(stream) or stream.sender._pending_eof


def _has_data(stream: QuicStream) -> bool:
    sender = stream.sender
    if sender.buffer_is_empty or stream.is_blocked:
        return False
    return len(sender._pending) > 0 or sender._pending_eof


def _rope_in(stream: QuicStream) -> None:
    stream.sender._buffer = Rope()  # type: ignore[assignment]  # it has what the sender uses
