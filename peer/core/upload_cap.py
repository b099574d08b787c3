"""The upload cap, the only writer of the gate: strictly under 60 % of what the household leaves
of the line, over every window from outside.

    available = what the line carries (`uplink`) - what the household sends (`household`)
    rate      = 58.6 % of that

The gate lets no second, and on fast lines no 100 ms, hold more than 1.014 times its rate: 59.2 %. So that is
the promise, and how near we come to it depends on timers alone. While a queue stands before the line
we use less (`delay_guard`); and what fills the line tells what it carries (`full_line`).

Only one thing is above the promise: a trickle for what cannot be done without. When the household
fills its line itself, a film that it watches still needs its acknowledgements; see FLOOR_SHARE.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from peer.core.delay_guard import DelayGuard
from peer.core.full_line import FullLine, Traffic
from peer.core.household import Household
from peer.core.line import LineSample
from peer.core.queue_sight import QueueSight
from peer.core.uplink import Grounds, UplinkBelief
from shared.core import spare
from shared.core.gate import burst_for
from shared.core.shape import PIECE_BYTES

CAP_SHARE = 0.60  # the promise: never reached
AIMED_SHARE = 0.584  # times the gate's PEAK 59.2 %; headroom for what is counted otherwise outside
FAST_LINE = 1_250_000.0  # bytes/s, 10 Mbit/s: from here on 100 ms count, below single packets are too coarse
UNSEEN_SHARE = 0.9  # of what we would use, where the household's traffic cannot be seen
FLOOR_SHARE, FLOOR_RATE = 0.02, 4_000.0  # of the line, and bytes/s: acknowledgements and requests
QUIET_SHARE = 0.004  # of the line; a household that sends less is silent: name lookups, clocks
JUMP_SECONDS = 2.0  # between samples; longer, and the machine slept or a clock was set
SLOT_SECONDS = 0.5  # of the line: what is under way at once, so that the urgent goes next
SAVED_SHARE = 1.4  # of a train, see `peer.core.trains`: whole datagrams of any size, their headers
MOST_SAVING_SECONDS = 1.0  # rates that need longer are too slow for a train within a second's share
IDLE_SHARE = 0.1  # of the gate's rate; who sends less is idle
LEAST_SLOTS = 3  # two fill the line while a third is acknowledged


@dataclass(frozen=True, slots=True)
class CapStatistics:
    """Rates are bytes per second, headers counted."""

    uplink_rate: float  # what the line is believed to carry
    grounds: Grounds  # why
    confidence: float  # 0 to 1: how far that is believed, and so how much of it is used
    household_rate: float  # what the household sends itself
    household_seen: bool  # its traffic can be read from the interface
    available_rate: float  # what it leaves
    queue_seconds: float  # packets wait so long before the line
    guard_share: float  # of the cap that the delay guard lets us use, 0 to 1
    cap_rate: float  # what the gate lets leave now
    burst_bytes: float
    up_rate: float  # what leaves

    @property
    def use(self) -> float:
        """The share of the cap in use, 0 to 1."""
        return self.up_rate / self.cap_rate if self.cap_rate else 0.0


class UploadCap:
    """Decides the gate's rate and burst from the `uplink` setting (bytes/s; 0: unknown) and samples."""

    def __init__(self, uplink_rate: float) -> None:
        self.belief = UplinkBelief(uplink_rate)
        self.household = Household()
        self._sight = QueueSight()
        self._guard = DelayGuard()
        self._full = FullLine()
        self._last: LineSample | None = None
        self._up_rate = 0.0
        self._saved_bytes = 0.0

    # -- what the shell tells -------------------------------------------------------------------

    def sample(self, sample: LineSample) -> None:
        """The line now; some ten times a second. Afterwards the gate gets `gate_rate` and `burst_bytes`."""
        last, self._last = self._last, sample
        if last is not None and last.network != sample.network:
            self._moved()
        elif last is not None and not 0 <= sample.at - last.at <= JUMP_SECONDS:
            self._sight.moved()
            self._full.moved()
        self.belief.at(sample.at)
        self.household.sample(sample)
        self._sight.sample(sample.paths, sample.at)
        self._guard.sample(self._sight.seconds, sample.at)
        sent = max(0, sample.own.bytes - last.own.bytes) if last is not None else 0
        traffic = Traffic(
            sent,
            self.household.rate_now,
            sample.paths,
            self.gate_rate(),
            self._sight.seconds,
            self._sight.agreed,
        )
        carried = self._full.sample(traffic, sample.at)
        if carried is not None:
            self.belief.seen_full(carried, sample.at)

    def renamed(self, network: str) -> None:
        """The network is the same; more of its name became known."""
        if self._last is not None:
            self._last = replace(self._last, network=network)

    def used(self, up_rate: float) -> None:
        """What leaves the socket at present, bytes per second; for `spare_class` and screens."""
        self._up_rate = up_rate

    # -- what the gate gets ---------------------------------------------------------------------

    def gate_rate(self) -> float:
        """Bytes per second, headers included, that may leave."""
        allowed = self._cap_rate() * self._guard.share
        return max(self._floor_rate(), min(allowed, self._full.limit_rate))

    def burst_bytes(self) -> float:
        """What may leave at once, so much a late timer can make up for."""
        burst = burst_for(self.gate_rate())
        return max(burst, self._saved_bytes)

    # -- measuring the line ---------------------------------------------------------------------

    def save_up(self, train_bytes: int) -> None:
        """The gate's bucket may hold such a train (0: none); its windows bound what leaves all the same."""
        self._saved_bytes = SAVED_SHARE * train_bytes

    def saving_seconds(self) -> float:
        """How long it takes to save up for a train."""
        return min(MOST_SAVING_SECONDS, self._saved_bytes / self.gate_rate())

    def is_idle(self, train_bytes: int) -> bool:
        """So long a train can be saved up for, and neither we nor the household send much: it would tell the
        line, not what is left of it."""
        is_quiet = self._household_rate() == 0.0 and self._up_rate < IDLE_SHARE * self.gate_rate()
        return is_quiet and MOST_SAVING_SECONDS * self.gate_rate() >= SAVED_SHARE * train_bytes

    def _cap_rate(self) -> float:
        return AIMED_SHARE * self._available()

    def _available(self) -> float:
        usable = self.belief.rate * self.belief.confidence
        if not self.household.is_seen and self._last is not None:
            usable *= UNSEEN_SHARE
        return max(0.0, usable - self._household_rate())

    def _household_rate(self) -> float:
        rate = self.household.rate
        return rate if rate > QUIET_SHARE * self.belief.rate else 0.0

    def _floor_rate(self) -> float:
        return min(max(FLOOR_RATE, FLOOR_SHARE * self.belief.rate), CAP_SHARE * self.belief.rate)

    def _moved(self) -> None:
        self.belief.moved()
        self.household.moved()
        self._sight.moved()
        self._full.moved()

    # -- what others ask ------------------------------------------------------------------------

    def slots(self, most: int) -> int:
        """How many pieces to send at the same time, `most` at most. Many at once would all
        be late together; few, and the order of deadlines decides."""
        return min(most, max(LEAST_SLOTS, round(self.gate_rate() * SLOT_SECONDS / PIECE_BYTES)))

    def spare_class(self, guests: int = 0) -> int:
        """The class of what one guest more would get: what is left, or its part beside the `guests` who
        are served. A full uplink is full of what they want later; what somebody needs now comes first."""
        rate = self.gate_rate()
        return spare.class_of(max(0.0, rate - self._up_rate, rate / (1 + guests) if guests else 0.0))

    def statistics(self) -> CapStatistics:
        """A snapshot for screens."""
        return CapStatistics(
            uplink_rate=self.belief.rate,
            grounds=self.belief.grounds,
            confidence=self.belief.confidence,
            household_rate=self._household_rate(),
            household_seen=self.household.is_seen,
            available_rate=self._available(),
            queue_seconds=self._sight.seconds,
            guard_share=self._guard.share,
            cap_rate=self.gate_rate(),
            burst_bytes=self.burst_bytes(),
            up_rate=self._up_rate,
        )
