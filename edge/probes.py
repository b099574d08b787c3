"""Answers probes: reads a train of bytes, throws it away, and says how fast it came."""

from __future__ import annotations

import trio

from edge.core.probe_quota import ProbeQuota
from shared import clock
from shared.core.bulk import Probed, ProbeRequest
from shared.core.errors import ProtocolError, Reason
from shared.core.ids import NodeId
from shared.core.lull import Lull
from shared.serving import ANSWER_OK, decline
from shared.stream import Stream

PROBE_SECONDS = 5.0
# Datagrams that are taken together, a millisecond's worth, would make the end of a train a millisecond late.
# So long a train of 11,000 bytes takes on half a megabit per second.
AT_ONCE_SECONDS = 0.2


class Probes:
    """The probes of all nodes at one endpoint."""

    def __init__(self) -> None:
        self._quota = ProbeQuota()

    async def answer(self, node: NodeId, stream: Stream, request: ProbeRequest, lull: Lull) -> None:
        """Answers one probe. Raises ProtocolError if it is cut short or dawdles, and as streams do."""
        if not self._quota.take(node, clock.now()):
            await decline(stream, Reason.BUSY)
            return
        lull.look_at_once(clock.now() + AT_ONCE_SECONDS)
        with trio.move_on_after(PROBE_SECONDS) as timeout:
            probed = await _count(stream, request.length)
        if timeout.cancelled_caught:
            raise ProtocolError(Reason.TIMEOUT, "a probe that does not end")
        await stream.send_all(ANSWER_OK + probed.encode())
        stream.send_eof()
        await stream.wait_acknowledged()


async def _count(stream: Stream, length: int) -> Probed:
    """What came after the first half: shapers let the beginning of a burst pass faster than the line."""
    uncounted = left = length
    began_at = ended_at = trio.current_time()
    while left:
        some = await stream.receive_some(left)
        if not some:
            raise ProtocolError(Reason.MALFORMED, f"a probe cut short: {length - left} of {length} bytes")
        ended_at = trio.current_time()
        left -= len(some)
        if uncounted == length and left <= length // 2:
            uncounted, began_at = length - left, ended_at
    return Probed(length - uncounted, round(1e6 * (ended_at - began_at)))
