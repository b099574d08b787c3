"""How many probes a node may send: enough to measure its line now and then, too few to be a nuisance."""

from __future__ import annotations

from collections import OrderedDict

from shared.core.ids import NodeId

PROBES = 16  # of one node in SPAN_SECONDS, 36 KiB each at most
SPAN_SECONDS = 600.0
MAX_NODES = 4096  # remembered; while so many are within their span, others are refused


class ProbeQuota:
    """Counts probes by node."""

    def __init__(self) -> None:
        self._spans: OrderedDict[NodeId, tuple[float, int]] = OrderedDict()  # begun at, probes; oldest first

    def take(self, node: NodeId, now: float) -> bool:
        """One more of `node` is allowed."""
        while self._spans and next(iter(self._spans.values()))[0] <= now - SPAN_SECONDS:
            self._spans.popitem(last=False)
        begun_at, count = self._spans.get(node, (now, 0))
        if count >= PROBES or (count == 0 and len(self._spans) >= MAX_NODES):
            return False
        self._spans[node] = (begun_at, count + 1)
        return True
