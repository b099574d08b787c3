"""The long-term bound: how much in flight the path bears without losing more than 2 %, and when to ask.

A probe fills the path (REFILL), then sends faster than it delivers (UP). If over 2 % of what was in flight
is lost, the volume at which that happened becomes the bound; if not, the bound grows, by one datagram in
the first round trip, two in the second, four in the third. After a probe that went too high the next one
stops where that one lost (a *cautious* one), and only if that was well is there a full one at once.

Who shares a line with flows that go by losses, such as Cubic, needs two more rules. A line is *crowded*
when a queue stood although we only cruised. On a crowded line a probe that went too high costs us 15 % of
the bound, for the same loss made Cubic give up 30 % and a bound that only remembers where losses were would
creep up for ever; and the next probe waits as long as a Cubic flow of our size takes to grow back.

Source: draft-ietf-ccwg-bbr, "ProbeBW"; the rules for a crowded line are ours, RFC 9438 gives the time.
"""

from __future__ import annotations

from enum import Enum
from math import inf

from shared.core.bbr_path import BETA, FEW_LOSSES, LOSS_SHARE, Rounds, is_too_lossy, queue_stands
from shared.core.dice import Dice

HEADROOM = 0.15  # of the bound, left to others while cruising
MAX_DOUBLINGS = 30

WAIT_SECONDS = 2.0  # to 3, by dice: long enough for a Reno flow at 30 ms to reach 25 Mbit/s
RENO_ROUNDS = 63  # or as many as packets fit, if fewer: a Reno flow would have grown by that much

CROWDED_CUT = 0.85
CUBIC_REGROWTH = 0.3 / 0.4  # seconds^3 per packet of window: RFC 9438's (1 - beta) / C
RENO_REGROWTH = 0.3 / 0.53  # round trips per packet: its (1 - beta) / alpha, sooner on short paths


class Feedback(Enum):
    """What the acknowledgements that come in now are the answer to."""

    NONE = "none"
    REFILLING = "refilling"
    STARTING = "starting"  # a probe is under way, its answers are not
    PROBING = "probing"
    STOPPING = "stopping"  # the last answers to a probe that ended


class Probe:
    """The bound, what probes taught about it, and when the next one is due."""

    def __init__(self, datagram_bytes: int, rng: Dice) -> None:
        self.bound_bytes: float = inf  # whole once known [inflight_longterm]
        self.feedback = Feedback.NONE
        self.judges = False  # losses now are answers to a probe [is_bw_probe_sample]
        self.went_too_high = False  # the last one [prev_probe_too_high]
        self.was_cautious = False  # the last one [prev_probe_precautionary]
        self.crowded = False
        self._datagram_bytes = datagram_bytes
        self._rng = rng
        self._doublings = 0  # [bw_probe_up_rounds]
        self._step_bytes = inf  # acknowledged per datagram that the bound grows [probe_up_acked_per_inc]
        self._towards_step = 0
        self._began_at = 0.0
        self._wait_seconds = 0.0

    def set_datagram_bytes(self, count: int) -> None:
        """Datagrams are of this size from now on."""
        self._datagram_bytes = count

    @property
    def few_bytes(self) -> int:
        """Losses that prove nothing."""
        return 0 if self.crowded else FEW_LOSSES * self._datagram_bytes

    def with_headroom(self) -> float:
        """Bytes in flight that leave others room below the bound."""
        if self.bound_bytes == inf:
            return inf
        return self.bound_bytes - max(self._datagram_bytes, HEADROOM * self.bound_bytes)

    # Going through a cycle

    def end(self, now: float, window_bytes: int, round_trip: Rounds) -> None:
        """Going down: the last answers are still to come; choose when to probe again."""
        self.feedback = Feedback.STOPPING
        self._step_bytes = inf
        self._began_at = now
        round_trip.since_probe = self._rng.randrange(2)
        self._wait_seconds = WAIT_SECONDS + self._rng.random()
        if self._yields:
            packets = window_bytes / self._datagram_bytes
            by_reno = RENO_REGROWTH * packets * min(round_trip.rtt_seconds, 1.0)
            self._wait_seconds = min((CUBIC_REGROWTH * packets) ** (1 / 3), by_reno)

    def is_due(self, now: float, target_bytes: float, round_trip: Rounds) -> bool:
        """Time to probe again; `target_bytes` is what would be in flight without a queue."""
        if now > self._began_at + self._wait_seconds:
            return True
        rounds = min(target_bytes / self._datagram_bytes, RENO_ROUNDS)
        return not self._yields and round_trip.since_probe >= rounds

    def refill(self, round_trip: Rounds, min_rtt: float) -> None:
        """About to probe, or to probe once more after a cautious one."""
        if not self.was_cautious:  # else the queue is that one's
            self.crowded = queue_stands(round_trip.rtt_seconds, min_rtt)
        self.was_cautious = False
        self._doublings = self._towards_step = 0
        self.feedback = Feedback.REFILLING

    def rise(self, window_bytes: int) -> None:
        """The path is full; losses from now on are answers."""
        self.judges = True
        self.feedback = Feedback.STARTING
        self._double(window_bytes)

    # Learning

    def judge_loss(self, size: int, lost_bytes: int, in_flight_bytes: int) -> float | None:
        """The volume at which losses passed the threshold, if they did with this packet.

        `lost_bytes` were lost since it left, itself included; `in_flight_bytes` were in flight with it.
        It may have been a whole burst, of which a part still fitted.
        """
        if not is_too_lossy(lost_bytes, in_flight_bytes, self.few_bytes):
            return None
        before = in_flight_bytes - size
        fitted = (LOSS_SHARE * before - (lost_bytes - size)) / (1 - LOSS_SHARE)
        return before + fitted

    def lower(self, volume: float, target_bytes: float, app_limited: bool) -> None:
        """The probe put too much in flight, `volume` being where it lost; one answer per probe."""
        self.went_too_high = True
        self.judges = False
        if not app_limited:
            kept = CROWDED_CUT * volume if self.crowded else volume
            self.bound_bytes = int(max(kept, BETA * target_bytes))

    def grow(self, acked_bytes: int, window_bytes: int, round_started: bool) -> None:
        """The bound was reached, and held: raise it, twice as fast as a round trip ago."""
        self._towards_step += acked_bytes
        if self._towards_step >= self._step_bytes:
            steps = int(self._towards_step // self._step_bytes)
            self._towards_step -= int(steps * self._step_bytes)
            self.bound_bytes += steps * self._datagram_bytes
        if round_started:
            self._double(window_bytes)

    @property
    def _yields(self) -> bool:
        """Somebody who goes by losses is on the line: there is a queue that is not ours, and it lost."""
        return self.crowded and self.bound_bytes < inf

    def _double(self, window_bytes: int) -> None:
        growth = 1 << self._doublings
        self._doublings = min(self._doublings + 1, MAX_DOUBLINGS)
        self._step_bytes = max(window_bytes / growth, self._datagram_bytes)
