"""The gate: who may build the next datagrams, and when.

It stands *before* packets are built. A connection with stream data to send asks; once the
bucket holds a quantum, the gate gives turns, round robin, until less than one full datagram is
left. A turn is for as many datagrams as the bucket holds, shared out over those who wait. Whatever
really leaves is charged with its IP and UDP headers.

The order. First come *at once* passes: acknowledgements, handshakes, window updates, probes, closes.
They leave without asking whenever the bucket covers a full datagram, and wait for just that
otherwise, before all data. Acknowledgements that wait are one acknowledgement in the end, so a
download whose acknowledgements alone would fill a slow line is paced by this, and never broken. Then
*brief* askers, who have less than a datagram to send: requests, messages, the end of a piece. Then bulk.

Two invariants. Call `level` what the bucket holds (burst at most; negative is a debt). Of any stretch
of W seconds that ends with a level of L

    bytes out  <=  rate x W + burst - L
    bytes out  <=  PEAK x rate x W          for W of a second, and of 100 ms from SLOW_RATE on

Nothing leaves unless the bucket and the windows (ledgers of what left lately) cover it, so L >= 0. Only
an at-once pass that makes more datagrams than it asked room for (a very long handshake flight)
can make a debt, which everything after it waits out. A byte counts in a window as the time that it took
at the rate of its day: when the rate falls, nothing has to be made up for, and nothing stalls.

Why both. The bucket spreads datagrams out, and its burst decides how much time a late timer may make
up for: what does not fit into the bucket is lost to the rate. With a burst short enough for a strict
window, a busy machine loses 3 % of the rate to timers; with a longer one, a window of 100 ms goes
over by a burst. The windows hold back just that turn which would go over. Below SLOW_RATE 100 ms are
so few datagrams that only the second is kept.

The quantum. Waking for every datagram costs more than building it, so turns begin when
QUANTUM_SECONDS of the rate are there, whole datagrams, at least one. It is what our own bursts add to
the delay of others on the line: 2 ms at a full cap.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Generic, TypeVar

from shared.core.rate import RateMeter, RateWindow, TokenBucket

MAX_DATAGRAM_BYTES = 1452  # QUIC payload of the largest datagram that is sent through a closed gate
HEADER_BYTES_V4 = 28  # IPv4 20 + UDP 8
HEADER_BYTES_V6 = 48  # IPv6 40 + UDP 8
TURN_BYTES = MAX_DATAGRAM_BYTES + HEADER_BYTES_V6  # what a turn may cost at most
BURST_SECONDS = 0.012
OPEN_DATAGRAMS = 64  # a turn at an open gate
QUANTUM_SECONDS = 0.004
PEAK = 1.014  # a window over the rate: what a late timer may make up for
WINDOWS = (1.0, 0.1)  # seconds
SLOW_RATE = 500_000.0  # bytes/s; below it 100 ms are under 36 datagrams, too coarse for PEAK

Asker = TypeVar("Asker", bound=Hashable)


class Pass(Enum):
    """How a datagram came to leave."""

    TURN = "turn"  # stream data, in its turn
    AT_ONCE = "at once"  # could not wait, or the gate was open


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """What a gate did. Bytes count IP and UDP headers."""

    rate: float | None  # bytes/s allowed; None: open
    out_rate: float  # bytes/s that left lately
    turn_bytes: int
    at_once_bytes: int
    turns: int
    waiting: int  # connections that wait for a turn
    debt_bytes: float


@dataclass(frozen=True, slots=True)
class Turn(Generic[Asker]):
    """Leave to send up to so many datagrams of data; 0: only what cannot wait."""

    asker: Asker
    datagrams: int


def burst_for(rate: float) -> float:
    """The burst for a rate in bytes/s: a couple of datagrams or 12 ms, whichever is more."""
    return max(2.0 * TURN_BYTES, rate * BURST_SECONDS)


def peak_seconds(rate: float, window: float) -> float:
    """How much time at a rate (bytes/s) a window may hold, a datagram in any case; `inf`: it is not kept."""
    if window < WINDOWS[0] and rate < SLOW_RATE:
        return inf
    return max(TURN_BYTES / rate, PEAK * window)


class Gate(Generic[Asker]):
    """Gives turns to askers so that all that leaves keeps to `rate` bytes/s; None is an open gate."""

    def __init__(self, rate: float | None = None, burst_bytes: float | None = None) -> None:
        """Raises ValueError for a rate below 0, or a burst below one datagram (`TURN_BYTES`)."""
        if burst_bytes is not None and burst_bytes < TURN_BYTES:
            raise ValueError(f"a burst of {burst_bytes} bytes; one datagram takes {TURN_BYTES}")
        self._burst_bytes = burst_bytes
        self._is_open = rate is None
        self._bucket = TokenBucket(rate or 0.0, self._burst(rate or 0.0))
        self._windows = tuple(map(RateWindow, WINDOWS))
        self._at_once: OrderedDict[Asker, float] = OrderedDict()  # with the level each waits for
        self._brief: OrderedDict[Asker, None] = OrderedDict()
        self._waiting: OrderedDict[Asker, None] = OrderedDict()
        self._is_giving = False  # a quantum was there, and a datagram still is
        self._meter = RateMeter()
        self._bytes = {Pass.TURN: 0, Pass.AT_ONCE: 0}
        self._turns = 0

    @property
    def rate(self) -> float | None:
        """Bytes per second allowed, headers included; None: no bound."""
        return None if self._is_open else self._bucket.rate

    @property
    def is_open(self) -> bool:
        """Nobody needs to ask."""
        return self._is_open

    @property
    def paused(self) -> bool:
        """The rate is 0: no turns at all until it is set again."""
        return self.rate == 0

    @property
    def quantum_bytes(self) -> float:
        """What is saved up before turns are given: whole datagrams, at least one."""
        wanted = min(QUANTUM_SECONDS * self._bucket.rate, self._bucket.burst_bytes)
        return max(1, int(wanted // TURN_BYTES)) * float(TURN_BYTES)

    def set_rate(self, rate: float | None, now: float, burst_bytes: float | None = None) -> None:
        """Change the rate from `now` on, and the burst if one is given.

        Raises ValueError for a rate below 0 or not finite, and for a burst below `TURN_BYTES`.
        A gate that was open starts with an empty bucket: its last bytes knew no bound.
        """
        if burst_bytes is not None:
            if burst_bytes < TURN_BYTES:
                raise ValueError(f"a burst of {burst_bytes} bytes; one datagram takes {TURN_BYTES}")
            self._burst_bytes = burst_bytes
        if rate is not None:
            self._bucket.set_rate(rate, now, self._burst(rate))
            if self._is_open:
                self._bucket.empty(now)
        self._is_open = rate is None

    def admits(self, now: float, datagrams: int = 1) -> bool:
        """What cannot wait may leave now: so many datagrams are covered, and nobody waits for that."""
        if self._is_open or self.paused:
            return True
        return not self._at_once and self._level(now) >= self._needed(datagrams)

    def ask_at_once(self, asker: Asker, datagrams: int = 1) -> None:
        """Queue for a turn of 0 datagrams, before all data, for what was not admitted."""
        self._at_once.setdefault(asker, float(datagrams * TURN_BYTES))

    def ask(self, asker: Asker, *, brief: bool = False) -> None:
        """Queue for a turn; asking twice is asking once. `brief`: for less than a datagram."""
        if brief:
            self._waiting.pop(asker, None)
            self._brief.setdefault(asker, None)
        elif asker not in self._brief:
            self._waiting.setdefault(asker, None)

    def withdraw(self, asker: Asker) -> None:
        """Leave the queues, if in one."""
        self._at_once.pop(asker, None)
        self._brief.pop(asker, None)
        self._waiting.pop(asker, None)

    def next_turn(self, now: float) -> Turn[Asker] | None:
        """Who may now send, and how much, or None. The asker leaves the queue and may ask again.

        What it sends must be charged before the next call; sending nothing costs nothing.
        """
        if self._at_once:
            return self._next_at_once(now)
        if self._brief and self._covers_one(now):
            self._turns += 1
            return Turn(self._brief.popitem(last=False)[0], 1)
        if not self._waiting:
            return None
        datagrams = self._share(now)
        if datagrams == 0:
            return None
        self._turns += 1
        return Turn(self._waiting.popitem(last=False)[0], datagrams)

    def charge(self, count: int, how: Pass, now: float) -> None:
        """Account for datagrams of `count` bytes, headers included, that left at `now`."""
        self._bytes[how] += count
        self._meter.add(count, now)
        if not self._is_open:
            self._bucket.take(count, now)
        if self._bucket.rate and not self._is_open:
            for window in self._windows:
                window.add(count / self._bucket.rate, now)

    def ready_at(self, now: float) -> float:
        """When the next turn can be given: `inf` if nobody waits or the gate is paused."""
        if not (self._at_once or self._brief or self._waiting):
            return inf
        if self._is_open or (self._at_once and self.paused):
            return now
        if self.paused:
            return inf
        if self._at_once:
            return self._covered_at(self._needed_by_first(), now)
        if self._brief:
            return self._covered_at(TURN_BYTES, now)
        self._is_giving &= self._level(now) >= TURN_BYTES
        return self._covered_at(self._wanted(), now)

    def statistics(self, now: float) -> GateStatistics:
        """A frozen view for screens and metrics."""
        return GateStatistics(
            rate=self.rate,
            out_rate=self._meter.rate(now),
            turn_bytes=self._bytes[Pass.TURN],
            at_once_bytes=self._bytes[Pass.AT_ONCE],
            turns=self._turns,
            waiting=len(self._brief) + len(self._waiting),
            debt_bytes=0.0 if self._is_open else max(0.0, -self._bucket.available(now)),
        )

    def _next_at_once(self, now: float) -> Turn[Asker] | None:
        if not (self._is_open or self.paused or self._level(now) >= self._needed_by_first()):
            return None
        return Turn(self._at_once.popitem(last=False)[0], 0)

    def _needed_by_first(self) -> float:
        return min(next(iter(self._at_once.values())), self._most())

    def _needed(self, datagrams: int) -> float:
        return min(datagrams * TURN_BYTES, self._most())

    def _most(self) -> float:
        """Bytes that can ever be covered at once."""
        rate = self._bucket.rate
        return min(self._bucket.burst_bytes, rate * peak_seconds(rate, WINDOWS[0]))

    def _level(self, now: float) -> float:
        """Bytes that bucket and windows cover."""
        rate = self._bucket.rate
        left = min(peak_seconds(rate, window.seconds) - window.total(now) for window in self._windows)
        return min(self._bucket.available(now), rate * left)

    def _covered_at(self, count: float, now: float) -> float:
        """When so many bytes will be covered."""
        rate = self._bucket.rate
        return max(
            self._bucket.ready_at(count, now),
            *(each.ready_at(peak_seconds(rate, each.seconds) - count / rate, now) for each in self._windows),
        )

    def _covers_one(self, now: float) -> bool:
        return self._is_open or (not self.paused and self._level(now) >= TURN_BYTES)

    def _share(self, now: float) -> int:
        """Datagrams for the next asker; 0 while nobody gets a turn."""
        if self._is_open:
            return OPEN_DATAGRAMS
        if self.paused:
            return 0
        level = self._level(now)
        self._is_giving = level >= self._wanted()
        if not self._is_giving:
            return 0
        return max(1, int(level // TURN_BYTES) // len(self._waiting))

    def _wanted(self) -> float:
        """What must be there for the next turn: a quantum to begin with, then a datagram each."""
        return TURN_BYTES if self._is_giving else self.quantum_bytes

    def _burst(self, rate: float) -> float:
        return burst_for(rate) if self._burst_bytes is None else self._burst_bytes
