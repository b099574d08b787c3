"""Messages of nodes that wait for the central tier, each for a while, by the rendition they are about."""

from __future__ import annotations

from collections import Counter

from shared.core.ids import InfoHash, NodeId
from shared.core.messages import Announce, Locate

MAX_WAITING = 4096  # messages
MAX_QUESTIONS = 200  # renditions asked about at the same time
MAX_PER_NODE = 64
FOREVER = float("inf")


class Waiting:
    """All that wait, bounded."""

    def __init__(self) -> None:
        self.questions: dict[InfoHash, float] = {}  # until when, the oldest first
        self._messages: dict[InfoHash, dict[tuple[NodeId, int], Locate | Announce]] = {}
        self._of_node: Counter[NodeId] = Counter()

    def add(self, infohash: InfoHash, node: NodeId, message: Locate | Announce, until: float) -> bool:
        """Whether there is room for it to wait; of announces of one node the last counts."""
        known = self._messages.get(infohash)
        key = (node, message.request if isinstance(message, Locate) else 0)
        if known is not None and key in known:
            known[key] = message
            return True
        full = self._of_node.total() >= MAX_WAITING or self._of_node[node] >= MAX_PER_NODE
        if full or (known is None and len(self.questions) >= MAX_QUESTIONS):
            return False
        if known is None:
            known = self._messages[infohash] = {}
            self.questions[infohash] = until
        known[key] = message
        self._of_node[node] += 1
        return True

    def take(self, infohash: InfoHash) -> list[tuple[NodeId, Locate | Announce]]:
        """Those that wait for this rendition; they wait no more."""
        self.questions.pop(infohash, None)
        taken = [(node, message) for (node, _), message in self._messages.pop(infohash, {}).items()]
        for node, _ in taken:
            self._of_node[node] -= 1
            if not self._of_node[node]:
                del self._of_node[node]
        return taken

    def next_at(self) -> float:
        """When the first has waited long enough."""
        return next(iter(self.questions.values()), FOREVER)

    def due(self, now: float) -> list[InfoHash]:
        """Those that have waited long enough."""
        return [infohash for infohash, until in self.questions.items() if now >= until]
