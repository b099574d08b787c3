"""Measures the line by trains of bytes to an edge, as `peer.core.trains` plans them."""

from __future__ import annotations

from collections.abc import Callable

import trio

from peer.core.peer import Peer
from peer.core.trains import TRAIN_BYTES, Trains
from peer.line_watch import LineWatch
from shared import clock
from shared.connection import Connection
from shared.core.bulk import MAX_PROBE_BYTES, PROBED_BYTES, Probed, ProbeRequest, decode_probed
from shared.core.errors import Reason, Refused, RemoteError
from shared.core.ids import NodeId
from shared.node import Node

LOOK_SECONDS = 0.5
ANSWER_SECONDS = 5.0
_TRAIN = ProbeRequest(TRAIN_BYTES).encode() + bytes(TRAIN_BYTES)
assert TRAIN_BYTES <= MAX_PROBE_BYTES


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
            cap.save_up(True)
            try:
                self._watch.read()
                await trio.sleep(cap.saving_seconds())
                if self._is_time():
                    await self._probe(edge)
            finally:
                cap.save_up(False)
                self._watch.read()

    def _is_time(self) -> bool:
        if not (self._may_upload() and self._core.cap.is_idle()):
            return False
        return self._trains.due(self._watch.network, clock.now())

    async def _probe(self, edge: NodeId) -> None:
        self._trains.left(clock.now())
        sent, network = self._watch.sent_bytes(), self._watch.network
        try:
            with trio.fail_after(ANSWER_SECONDS):
                probed = await _ask(self._node.connection(edge))
        except (RemoteError, trio.TooSlowError):
            self._trains.failed(clock.now())
            return
        wire_share = (self._watch.sent_bytes() - sent) / TRAIN_BYTES
        if network != self._watch.network:
            return
        rate = self._trains.told(probed.counted_bytes, probed.microseconds, wire_share, clock.now())
        if rate is not None:
            self._core.cap.belief.measured(rate)


async def _ask(connection: Connection) -> Probed:
    """One train and its answer. Raises Refused, ProtocolError, ConnectionLost."""
    with connection.open_stream() as stream:
        await stream.send_all(_TRAIN)
        stream.send_eof()
        reason = (await stream.receive_exactly(1))[0]
        if reason:
            raise Refused(Reason.BUSY, "the edge measures nothing now")
        return decode_probed(await stream.receive_exactly(PROBED_BYTES), TRAIN_BYTES)
