"""Measures the line by trains of bytes to an edge, as `peer.core.trains` plans them."""

from __future__ import annotations

from collections.abc import Callable

import trio

from peer.core.peer import Peer
from peer.core.trains import LENGTHS, Trains
from peer.line_watch import LineWatch
from shared import clock
from shared.connection import Connection
from shared.core.bulk import MAX_PROBE_BYTES, PROBED_BYTES, Probed, ProbeRequest, decode_probed
from shared.core.errors import Reason, Refused, RemoteError
from shared.core.gate import HEADER_BYTES_V4
from shared.core.ids import NodeId
from shared.node import Node

LOOK_SECONDS = 0.5
ANSWER_SECONDS = 5.0
FRAMING_BYTES = 34  # of a datagram of a train: the header, the frame's, the seal
assert max(LENGTHS) <= MAX_PROBE_BYTES


class Probing:
    """Sends trains while uploads are consented to and the line is idle."""

    def __init__(
        self, core: Peer, node: Node, watch: LineWatch, trains: Trains, may_upload: Callable[[], bool]
    ) -> None:
        self._core, self._node, self._watch = core, node, watch
        self._trains = trains
        self._may_upload = may_upload

    async def run(self) -> None:
        """Task: for ever."""
        cap = self._core.cap
        while True:
            await trio.sleep(LOOK_SECONDS)
            edge = self._core.an_edge()
            if edge is None or not self._is_time():
                continue
            cap.save_up(self._trains.next_bytes)
            try:
                self._watch.read()
                await trio.sleep(cap.saving_seconds())
                if self._is_time():
                    await self._probe(edge)
            finally:
                cap.save_up(0)
                self._watch.read()

    def _is_time(self) -> bool:
        if not (self._may_upload() and self._core.cap.is_idle(self._trains.next_bytes)):
            return False
        return self._trains.due(self._watch.network, clock.now())

    async def _probe(self, edge: NodeId) -> None:
        self._trains.left(clock.now())
        length, network = self._trains.next_bytes, self._watch.network
        try:
            connection = self._node.connection(edge)
            path = connection.statistics()
            with trio.fail_after(ANSWER_SECONDS):
                probed = await _ask(connection, length)
        except (RemoteError, trio.TooSlowError):
            self._trains.failed(clock.now())
            return
        if network != self._watch.network:
            return
        if path.window_bytes - path.in_flight_bytes < length + length // 20:
            self._trains.failed(clock.now())  # congestion control cut it in two: it told a round trip
            return
        wire_share = (path.datagram_bytes + HEADER_BYTES_V4) / (path.datagram_bytes - FRAMING_BYTES)
        rate = self._trains.told(probed.counted_bytes, probed.microseconds, wire_share, clock.now())
        if rate is not None:
            self._core.cap.belief.measured(rate)


async def _ask(connection: Connection, length: int) -> Probed:
    """One train and its answer. Raises Refused, ProtocolError, ConnectionLost."""
    with connection.open_stream() as stream:
        await stream.send_all(ProbeRequest(length).encode() + bytes(length))
        stream.send_eof()
        reason = (await stream.receive_exactly(1))[0]
        if reason:
            raise Refused(Reason.BUSY, "the edge measures nothing now")
        return decode_probed(await stream.receive_exactly(PROBED_BYTES), length)
