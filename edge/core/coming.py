"""Guests of a title that is on its way here: who joins and who asks for a piece waits for it.

The tracker sends a viewer to the edge that is ordered to fetch, so the edge promises what it does
not hold yet: guests are told that all of it is here. A request for a missing piece waits, and is
a wish: the piece is fetched before others, the earliest deadline first. Waits end before a
peer takes silence for failure; then the answer is what it would be anyway.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from shared.core.bitfield import Bitfield
from shared.core.bulk import PieceRequest
from shared.core.errors import Reason
from shared.core.guests import MAX_GUESTS
from shared.core.ids import InfoHash, NodeId
from shared.core.messages import Join
from shared.core.seeding import QUEUE_PER_GUEST, Seeding

WAIT_SECONDS = 3.0  # a peer snubs after four
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Wish:
    """A guest waits for this piece until `deadline`."""

    infohash: InfoHash
    piece: int
    deadline: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    node: NodeId
    request: PieceRequest
    size: int
    until: float


class Coming:
    """Stands before a `Seeding` for the titles that are being fetched."""

    def __init__(self, seeding: Seeding) -> None:
        self._seeding = seeding
        self._joins: dict[InfoHash, dict[NodeId, tuple[Join, float]]] = {}  # its keys: what is expected
        self._requests: dict[int, _Waiting] = {}
        self.wishes: deque[Wish] = deque()

    # -- titles ---------------------------------------------------------------------------------

    @property
    def titles(self) -> list[InfoHash]:
        """What is expected."""
        return list(self._joins)

    def expect(self, infohash: InfoHash) -> None:
        """This title is being fetched."""
        self._joins.setdefault(infohash, {})
        holding = self._seeding.holdings.get(infohash)
        if holding is not None:
            holding.promised = True

    def hold(self, infohash: InfoHash, held: Bitfield, now: float) -> None:
        """Its manifest is here: who waits to join may."""
        self._seeding.hold(infohash, held, now)
        if infohash in self._joins:
            self._seeding.holdings[infohash].promised = True
            self._let_in(infohash, now)

    def gained(self, infohash: InfoHash, piece: int, now: float) -> None:
        """A piece is here: who waits for it gets it."""
        self._seeding.gained(infohash, piece, now)
        place = (infohash, piece)
        served = [n for n, w in self._requests.items() if (w.request.infohash, w.request.piece) == place]
        self._release(served, now)

    def ended(self, infohash: InfoHash, now: float) -> None:
        """It is whole, or will not become so: nobody waits for it any more."""
        if infohash not in self._joins:
            return
        self._let_in(infohash, now)
        del self._joins[infohash]
        self._seeding.unpromise(infohash, now)
        self._release([n for n, w in self._requests.items() if w.request.infohash == infohash], now)

    # -- guests -----------------------------------------------------------------------------------

    def join(self, message: Join, sender: NodeId, now: float) -> None:
        """A node shows its ticket; while there is no manifest it waits for its answer."""
        waiting = self._joins.get(message.infohash)
        unknown = message.infohash not in self._seeding.holdings
        if waiting is None or not unknown or (len(waiting) >= MAX_GUESTS and sender not in waiting):
            self._seeding.join(message, sender, now)
        else:
            waiting[sender] = (message, now + WAIT_SECONDS)

    def disconnected(self, node: NodeId) -> None:
        """A connection is gone, and what waited for it."""
        for waiting in self._joins.values():
            waiting.pop(node, None)
        for number in [n for n, w in self._requests.items() if w.node == node]:
            del self._requests[number]
        self._seeding.disconnected(node)

    def requested(self, number: int, request: PieceRequest, node: NodeId, size: int, now: float) -> None:
        """A piece request arrived; Serve or Decline follows, perhaps when the piece is here."""
        if not self._may_wait(request, node):
            self._seeding.requested(number, request, node, size, now)
            return
        if sum(waiting.node == node for waiting in self._requests.values()) >= QUEUE_PER_GUEST:
            self._seeding.decline(number, Reason.BUSY)
            return
        self._requests[number] = _Waiting(node, request, size, now + WAIT_SECONDS)
        self.wishes.append(Wish(request.infohash, request.piece, now + request.slack_ms / 1000))

    def _may_wait(self, request: PieceRequest, node: NodeId) -> bool:
        holding = self._seeding.holdings.get(request.infohash)
        if holding is None or request.infohash not in self._joins or request.piece in holding.held:
            return False
        return node in holding.guests

    def served(self, number: int) -> None:
        """A request ended, or its asker gave it up while it waited."""
        if self._requests.pop(number, None) is None:
            self._seeding.served(number)

    # -- time -----------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        joins = (until for waiting in self._joins.values() for _, until in waiting.values())
        return min(*(w.until for w in self._requests.values()), *joins, FOREVER, FOREVER)

    def handle_timer(self, now: float) -> None:
        """Who waited long enough is answered."""
        for waiting in self._joins.values():
            for node in [node for node, (_, until) in waiting.items() if now >= until]:
                self._seeding.join(waiting.pop(node)[0], node, now)
        self._release([n for n, w in self._requests.items() if now >= w.until], now)

    def _let_in(self, infohash: InfoHash, now: float) -> None:
        waiting, self._joins[infohash] = self._joins[infohash], {}
        for node, (message, _) in waiting.items():
            self._seeding.join(message, node, now)

    def _release(self, numbers: list[int], now: float) -> None:
        for number in numbers:
            waiting = self._requests.pop(number)
            self._seeding.requested(number, waiting.request, waiting.node, waiting.size, now)
