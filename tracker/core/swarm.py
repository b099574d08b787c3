"""Who holds what: soft state, rebuilt from announces within one interval.

A swarm keeps its holders in buckets by (region, kind, class of spare upload). A bucket gives a
few random members in O(k), whatever its size, and takes one in or out in O(1): the last member
moves into the gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import exp2

from shared.core.dice import Dice
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.messages import Announce, Event

RESERVATION_HALF_LIFE_SECONDS = 20.0  # a redirect's load shows in the next report by then
EXPIRY_INTERVALS = 2.5  # one lost announce is forgiven, two are not

BucketKey = tuple[str, Kind, int]


@dataclass(slots=True)
class Holder:
    """One node in one swarm."""

    node: NodeId
    kind: Kind
    region: str
    held: int
    total: int
    spare: int
    expires_at: float
    place: int = -1  # index in its bucket; -1 when it cannot serve
    reserved_rate: float = 0.0
    reserved_at: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether it holds every piece."""
        return self.total > 0 and self.held >= self.total

    def reservation(self, now: float) -> float:
        """Bytes per second promised by our redirects that no report shows yet."""
        age = max(0.0, now - self.reserved_at)
        return self.reserved_rate * exp2(-age / RESERVATION_HALF_LIFE_SECONDS)

    def reserve(self, rate: float, now: float) -> None:
        """Notes that a viewer was sent here and may take `rate` bytes per second."""
        self.reserved_rate = self.reservation(now) + rate
        self.reserved_at = now


@dataclass(slots=True)
class Swarm:
    """The holders of one rendition."""

    holders: dict[NodeId, Holder] = field(default_factory=dict)
    buckets: dict[BucketKey, list[Holder]] = field(default_factory=dict)

    def place(self, holder: Holder) -> None:
        """Puts a holder that can serve into its bucket."""
        if holder.held > 0 and holder.spare > 0:
            bucket = self.buckets.setdefault((holder.region, holder.kind, holder.spare), [])
            holder.place = len(bucket)
            bucket.append(holder)

    def displace(self, holder: Holder) -> None:
        """Takes a holder out of its bucket."""
        if holder.place < 0:
            return
        key = (holder.region, holder.kind, holder.spare)
        bucket = self.buckets[key]
        last = bucket.pop()
        if last is not holder:
            bucket[holder.place] = last
            last.place = holder.place
        holder.place = -1
        if not bucket:
            del self.buckets[key]

    def draw(self, key: BucketKey, count: int, rng: Dice) -> Iterator[Holder]:
        """Up to `count` neighbours in a bucket from a random start: O(count)."""
        bucket = self.buckets.get(key, [])
        start = rng.randrange(len(bucket)) if bucket else 0
        for step in range(min(count, len(bucket))):
            yield bucket[(start + step) % len(bucket)]


class Swarms:
    """Every swarm of this tracker."""

    def __init__(self, announce_seconds: float) -> None:
        self._expiry_seconds = announce_seconds * EXPIRY_INTERVALS
        self.swarms: dict[InfoHash, Swarm] = {}
        self._of_node: dict[NodeId, set[InfoHash]] = {}

    def announce(self, message: Announce, node: NodeId, kind: Kind, region: str, now: float) -> None:
        """Takes in what a node says of one swarm."""
        if message.event is Event.STOPPED:
            self.remove(message.infohash, node)
            return
        swarm = self.swarms.setdefault(message.infohash, Swarm())
        holder = swarm.holders.get(node)
        if holder is None:
            holder = swarm.holders[node] = Holder(node, kind, region, 0, 0, 0, now)
            self._of_node.setdefault(node, set()).add(message.infohash)
        swarm.displace(holder)
        holder.held, holder.total, holder.spare = message.held, message.total, message.spare
        holder.expires_at = now + self._expiry_seconds
        swarm.place(holder)

    def remove(self, infohash: InfoHash, node: NodeId) -> None:
        """Takes a node out of one swarm."""
        swarm = self.swarms.get(infohash)
        holder = swarm.holders.pop(node, None) if swarm else None
        if swarm is None or holder is None:
            return
        swarm.displace(holder)
        self._of_node[node].discard(infohash)
        if not self._of_node[node]:
            del self._of_node[node]
        if not swarm.holders:
            del self.swarms[infohash]

    def forget(self, node: NodeId) -> None:
        """Takes a node out of every swarm."""
        for infohash in list(self._of_node.get(node, ())):
            self.remove(infohash, node)

    def of_node(self, node: NodeId) -> Iterator[tuple[InfoHash, Holder]]:
        """What a node holds."""
        for infohash in self._of_node.get(node, ()):
            yield infohash, self.swarms[infohash].holders[node]

    def has(self, infohash: InfoHash, node: NodeId) -> bool:
        """Whether a node is in a swarm."""
        return infohash in self._of_node.get(node, ())

    def count_of(self, node: NodeId) -> int:
        """In how many swarms a node is."""
        return len(self._of_node.get(node, ()))

    def expire(self, now: float) -> None:
        """Drops holders that fell silent."""
        for infohash, swarm in list(self.swarms.items()):
            for holder in [h for h in swarm.holders.values() if h.expires_at <= now]:
                self.remove(infohash, holder.node)
