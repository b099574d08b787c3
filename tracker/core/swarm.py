"""Who holds what: soft state, rebuilt from announces within one interval.

A swarm keeps its records in buckets by region, kind and class of spare upload; who has nothing to
give stands in class 0 and is never drawn. A bucket gives a window of neighbours in O(k), whatever
its size, and takes one in or out in O(1): the last one moves into the gap.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import ceil

from shared.core.dice import Dice
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.messages import Announce, Event
from tracker.core.records import GONE, KIND_NUMBERS, KINDS, TICKS, Nodes, Records

EXPIRY_INTERVALS = 2.5  # one lost announce is forgiven, two are not
CLEARED_AT_ONCE = 500  # records; a tracker that clears more at a time would keep others waiting
MAX_REGIONS = 4096  # names; nodes may say anything, so what is said after that many is "elsewhere"
ELSEWHERE = 0
FAR_REGIONS = 8  # looked at, at most, when the viewer's own has too few

_EDGE = KIND_NUMBERS[Kind.EDGE]
KIND_ORDER = (KIND_NUMBERS[Kind.PC], KIND_NUMBERS[Kind.STB])  # PCs first: they have better lines


@dataclass(frozen=True, slots=True)
class Holder:
    """A node's part in a swarm, as it stood when it was asked for."""

    node: NodeId
    kind: Kind
    region: str
    held: int
    total: int
    spare: int
    expires_at: float
    summary: int = 0

    @property
    def complete(self) -> bool:
        """Whether it holds every piece."""
        return self.total > 0 and self.held >= self.total


@dataclass(slots=True)
class Swarm:
    """The records of one rendition, by bucket."""

    number: int = 0
    infohash: InfoHash = InfoHash(b"")
    buckets: dict[int, array[int]] = field(default_factory=dict)
    # By region those of `buckets` that people are sent to, with their ranks, best first.
    givers: dict[int, list[tuple[int, array[int]]]] = field(default_factory=dict)
    edges: dict[NodeId, int] = field(default_factory=dict)  # their records; edges are few
    count: int = 0
    seeders: int = 0
    viewers: int = 0  # records of terminals
    viewers_share: float = 0.0  # the sum of what each holds, 0 to 1

    def windows(self, region: int, size: int, rng: Dice) -> Iterator[tuple[array[int], bool]]:
        """Neighbours who may have something to give, bucket by bucket, up to `size` of each from a
        random start: the best first, and whether they are in this region. Others come after it."""
        for _, bucket in self.givers.get(region, ()):
            yield (bucket if len(bucket) <= size else _window(bucket, size, rng)), True
        for other in self._far(region, rng) if len(self.givers) > (region in self.givers) else ():
            for _, bucket in self.givers[other]:
                yield (bucket if len(bucket) <= size else _window(bucket, size, rng)), False

    def _far(self, region: int, rng: Dice) -> list[int]:
        """Up to FAR_REGIONS other regions, from a random start."""
        start = int(rng.random() * len(self.givers))
        window = [*islice(self.givers, start, start + FAR_REGIONS + 1), *islice(self.givers, start)]
        return [other for other in window if other != region][:FAR_REGIONS]

    def begin_bucket(self, key: int) -> array[int]:
        """A bucket where there was none."""
        bucket, rank = array("I"), _rank(key)
        self.buckets[key] = bucket
        if rank is not None:
            insort(self.givers.setdefault(key >> 8, []), (rank, bucket), key=_first)
        return bucket

    def end_bucket(self, key: int) -> None:
        """Its last record went."""
        del self.buckets[key]
        rank = _rank(key)
        if rank is not None:
            givers = self.givers[key >> 8]
            del givers[bisect_left(givers, rank, key=_first)]
            if not givers:
                del self.givers[key >> 8]


def _first(giver: tuple[int, array[int]]) -> int:
    return giver[0]


def _rank(key: int) -> int | None:
    """The place of a bucket among those of its region, best first; None if nobody is sent there."""
    kind, spare = key >> 4 & 15, key & 15
    return KIND_ORDER.index(kind) << 4 | 15 - spare if spare and kind in KIND_ORDER else None


def _window(bucket: array[int], size: int, rng: Dice) -> array[int]:
    start = int(rng.random() * len(bucket))
    window = bucket[start : start + size]
    return window if len(window) == size else window + bucket[: size - len(window)]


class Swarms:
    """Every swarm of this tracker."""

    def __init__(self, announce_seconds: float) -> None:
        self._expiry_ticks = ceil(announce_seconds * EXPIRY_INTERVALS * TICKS) + 1
        self._start_at: float | None = None
        self.nodes = Nodes()
        self.records = Records()
        self.swarms: dict[InfoHash, Swarm] = {}
        self.region_names = [""]
        self._region_numbers = {"": ELSEWHERE}
        self._by_number: list[Swarm | None] = []
        self._free_numbers: list[int] = []

    # -- announces ------------------------------------------------------------------------------

    def announce(self, message: Announce, node: NodeId, kind: Kind, region: str, now: float) -> None:
        """Takes in what a node says of one swarm."""
        if message.event is Event.STOPPED:
            self.remove(message.infohash, node)
            return
        swarm = self.swarms.get(message.infohash) or self._begin(message.infohash)
        row = self.nodes.find(node) or self.nodes.add(node, kind, self.region_number(region))
        record = self.records.find(row, swarm.number)
        if record:
            self._count(swarm, record, -1)
        else:
            record = self.records.add(self.nodes, row, swarm.number)
            self._place(swarm, record, self._key(record))
        before = self._key(record)
        held, records = message.held, self.records
        records.held[record], records.total[record] = held, message.total
        records.summary[record] = message.summary
        records.spare[record] = message.spare if held else 0
        records.expires[record] = self.tick(now) + self._expiry_ticks
        after = self._key(record)
        if after != before:
            self._displace(swarm, record, before)
            self._place(swarm, record, after)
        self._count(swarm, record, 1)

    def remove(self, infohash: InfoHash, node: NodeId) -> None:
        """Takes a node out of one swarm."""
        swarm = self.swarms.get(infohash)
        row = self.nodes.find(node)
        record = self.records.find(row, swarm.number) if swarm and row else 0
        if record:
            self._drop(record)

    def forget(self, node: NodeId) -> None:
        """Takes a node out of every swarm; from now on nobody is sent to it."""
        row = self.nodes.find(node)
        if not row:
            return
        if self.nodes.records[row] > CLEARED_AT_ONCE:
            self.nodes.hide(row)
            for record in self._records_of(row):
                self.records.expires[record] = 0  # `expire` clears them, some at a time
            return
        for record in list(self._records_of(row)):
            self._drop(record)

    def expire(self, now: float) -> bool:
        """Drops some of the records that fell silent; whether there may be more."""
        due = self.records.due(self.tick(now), CLEARED_AT_ONCE)
        for record in due:
            self._drop(record)
        return len(due) == CLEARED_AT_ONCE

    def move(self, node: NodeId, region: str) -> None:
        """The node turned out to be in another region."""
        row, number = self.nodes.find(node), self.region_number(region)
        if not row or self.nodes.region[row] == number:
            return
        records = list(self._records_of(row))
        for record in records:
            self._displace(self._swarm_of(record), record, self._key(record))
        self.nodes.region[row] = number
        for record in records:
            self._place(self._swarm_of(record), record, self._key(record))

    # -- questions ------------------------------------------------------------------------------

    def of_node(self, node: NodeId) -> Iterator[tuple[InfoHash, Holder]]:
        """What a node holds."""
        row = self.nodes.find(node)
        for record in self._records_of(row):
            yield self._swarm_of(record).infohash, self.holder(record)

    def find(self, infohash: InfoHash, node: NodeId) -> Holder | None:
        """A node's part in a swarm."""
        swarm, row = self.swarms.get(infohash), self.nodes.find(node)
        record = self.records.find(row, swarm.number) if swarm and row else 0
        return self.holder(record) if record else None

    def has(self, infohash: InfoHash, node: NodeId) -> bool:
        """Whether a node is in a swarm."""
        return self.find(infohash, node) is not None

    def count_of(self, node: NodeId) -> int:
        """In how many swarms a node is."""
        row = self.nodes.find(node)
        return self.nodes.records[row] if row else 0

    def members(self, swarm: Swarm) -> Iterator[Holder]:
        """Everybody in a swarm, bucket by bucket."""
        for bucket in swarm.buckets.values():
            for record in bucket:
                yield self.holder(record)

    def holds(self, swarm: Swarm, edge: NodeId) -> bool:
        """Whether an edge holds all of a swarm."""
        record = swarm.edges.get(edge, 0)
        gone = self.nodes.kind[self.records.node[record]] & GONE
        return not gone and 0 < self.records.total[record] <= self.records.held[record]

    def edges_with(self, swarm: Swarm) -> frozenset[NodeId]:
        """The edges that hold all of a swarm."""
        return frozenset(edge for edge in swarm.edges if self.holds(swarm, edge))

    def holder(self, record: int) -> Holder:
        """A record in words."""
        records, row = self.records, self.records.node[record]
        kind = KINDS[self.nodes.kind[row] & ~GONE]
        assert kind is not None, "a record is of a node"
        return Holder(
            node=self.nodes.id(row),
            kind=kind,
            region=self.region_names[self.nodes.region[row]],
            held=records.held[record],
            total=records.total[record],
            spare=records.spare[record],
            expires_at=(self._start_at or 0.0) + records.expires[record] / TICKS,
            summary=records.summary[record],
        )

    def region_number(self, name: str) -> int:
        """The number of a region's name; ELSEWHERE once there are too many names."""
        number = self._region_numbers.get(name)
        if number is None:
            if len(self.region_names) >= MAX_REGIONS:
                return ELSEWHERE
            number = self._region_numbers[name] = len(self.region_names)
            self.region_names.append(name)
        return number

    def tick(self, now: float) -> int:
        """The clock in whole ticks since the first announce."""
        if self._start_at is None:
            self._start_at = now - 1.0
        return max(1, int((now - self._start_at) * TICKS))

    @property
    def bytes(self) -> int:
        """What records, their nodes, indexes and buckets occupy."""
        buckets = sum(4 * len(bucket) for swarm in self.swarms.values() for bucket in swarm.buckets.values())
        return buckets + sum(part.bytes + part.index.bytes for part in (self.nodes, self.records))

    # -- bookkeeping ----------------------------------------------------------------------------

    def _begin(self, infohash: InfoHash) -> Swarm:
        number = self._free_numbers.pop() if self._free_numbers else len(self._by_number)
        if number == len(self._by_number):
            self._by_number.append(None)
        swarm = self._by_number[number] = self.swarms[infohash] = Swarm(number, infohash)
        return swarm

    def _swarm_of(self, record: int) -> Swarm:
        swarm = self._by_number[self.records.swarm[record]]
        assert swarm is not None, "a record is of a swarm"
        return swarm

    def _records_of(self, row: int) -> Iterator[int]:
        record = self.nodes.first[row]
        while record:
            following = self.records.after[record]
            yield record
            record = following

    def _drop(self, record: int) -> None:
        swarm, row = self._swarm_of(record), self.records.node[record]
        self._count(swarm, record, -1)
        self._displace(swarm, record, self._key(record))
        self.records.drop(self.nodes, record)
        if not self.nodes.records[row]:
            if not self.nodes.kind[row] & GONE:
                self.nodes.hide(row)
            self.nodes.give_back(row)
        if not swarm.count:
            del self.swarms[swarm.infohash]
            self._by_number[swarm.number] = None
            self._free_numbers.append(swarm.number)

    def _key(self, record: int) -> int:
        row = self.records.node[record]
        kind = self.nodes.kind[row] & ~GONE
        # Edges are chosen from a list of their own: their buckets need no regions.
        region = ELSEWHERE if kind == _EDGE else self.nodes.region[row]
        return region << 8 | kind << 4 | self.records.spare[record]

    def _place(self, swarm: Swarm, record: int, key: int) -> None:
        bucket = swarm.buckets.get(key)
        if bucket is None:
            bucket = swarm.begin_bucket(key)
        self.records.place[record] = len(bucket)
        bucket.append(record)

    def _displace(self, swarm: Swarm, record: int, key: int) -> None:
        bucket, place = swarm.buckets[key], self.records.place[record]
        last = bucket.pop()
        if last != record:
            bucket[place] = last
            self.records.place[last] = place
        if not bucket:
            swarm.end_bucket(key)

    def _count(self, swarm: Swarm, record: int, sign: int) -> None:
        records = self.records
        held, total = records.held[record], records.total[record]
        swarm.count += sign
        swarm.seeders += sign * (0 < total <= held)
        kind = self.nodes.kind[records.node[record]] & ~GONE
        if kind != _EDGE:
            swarm.viewers += sign
            swarm.viewers_share += sign * (min(1.0, held / total) if total else 0.0)
            return
        node = self.nodes.id(records.node[record])
        if sign > 0:
            swarm.edges[node] = record
        elif swarm.edges.get(node) == record:  # else it came back before all of it was cleared away
            del swarm.edges[node]
