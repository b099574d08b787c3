"""What a sender believes about its path: small estimators, each with one thing to say.

Long-term beliefs live for one or two probing cycles (seconds): the highest rate delivered, the shortest
round trip. Short-term ones live for a round trip or until the next probe: what was delivered while
packets were being lost. Source: draft-ietf-ccwg-bbr, "Updating Network Path Model Parameters".
"""

from __future__ import annotations

from math import inf

from shared.core.bbr_rate import RateSample

# At most this much is given up per round trip with losses: Cubic's factor, so as to yield no faster.
BETA = 0.7

# Losses of up to 2 % are the radio's and not a full queue's, and so are two datagrams of a small window as
# long as nobody else is on the line.
LOSS_SHARE = 0.02
FEW_LOSSES = 2
STANDING_RTT = 1.1  # shortest round trip of a round, relative to the path's own ...
STANDING_SECONDS = 0.001  # ... by more than a timer's error ...
DELAYED_SECONDS = 0.008  # ... and longer than it takes in a house when acknowledgements are saved up

MIN_RTT_SECONDS = 10.0  # how long the shortest round trip is believed
PROBE_RTT_SECONDS = 5.0  # how long until it should have been seen again; all BBR flows share this figure
AGGREGATION_ROUNDS = 5  # the largest burst of acknowledgements of this round trip count or the one before

GROWTH = 1.25  # a pipe is full when three round trips brought less than a quarter more
FLAT_ROUNDS = 3

# A path whose rate fell: for three round trips, under two fifths of the believed rate arrived though a queue
# stood. Above two fifths the ordinary cycle is soon enough, and a newcomer on the same line, who takes
# half, must not look like a fall.
FALLEN_SHARE = 0.4
FALLEN_ROUNDS = 3
FALLEN_SECONDS = 0.1  # at least: a busy machine may stand still for a few short round trips
FALLEN_QUEUE = 1.5  # shortest round trip of a round, relative to the path's own


def queue_stands(rtt_seconds: float, min_rtt: float) -> bool:
    """Even the shortest round trip of a round, `rtt_seconds`, waited in a queue."""
    return inf > rtt_seconds > max(STANDING_RTT * min_rtt + STANDING_SECONDS, DELAYED_SECONDS)


def is_too_lossy(lost_bytes: int, in_flight_bytes: int, few_bytes: int) -> bool:
    """So much of what was in flight was lost that it was too much in flight; `few_bytes` never are."""
    return lost_bytes > max(LOSS_SHARE * in_flight_bytes, few_bytes)


class Rounds:
    """Counts round trips by packets: one ends when something sent after its start is acknowledged.

    `rate`, `rtt_seconds` and `app_limited` tell of the one that ended last: its highest rate, its shortest
    round trip, and whether any of its samples did not show the path's rate.
    """

    def __init__(self) -> None:
        self.count = 0
        self.since_probe = 0
        self.started = False  # with the latest sample
        self.rate = 0.0
        self.rtt_seconds = inf
        self.app_limited = False
        self._ends_at_bytes = 0
        self._rate = 0.0  # of the one under way
        self._rtt_seconds = inf
        self._app_limited = False

    def advance(self, sample: RateSample, delivered_bytes: int) -> None:
        """Take a sample; `delivered_bytes` is the connection's total, with it."""
        self.started = sample.newest.delivered_bytes >= self._ends_at_bytes
        if self.started:
            self.restart(delivered_bytes)
            self.count += 1
            self.since_probe += 1
            self.rate, self.rtt_seconds, self.app_limited = self._rate, self._rtt_seconds, self._app_limited
            self._rate, self._rtt_seconds, self._app_limited = 0.0, inf, False
        self._rate = max(self._rate, sample.rate)
        self._rtt_seconds = min(self._rtt_seconds, sample.rtt_seconds or inf)
        self._app_limited = self._app_limited or sample.app_limited

    def restart(self, delivered_bytes: int) -> None:
        """A new round trip begins here, without ending one."""
        self._ends_at_bytes = delivered_bytes


class Bandwidth:
    """The highest rate delivered in this probing cycle and the one before."""

    def __init__(self) -> None:
        self._before = 0.0
        self._now = 0.0

    @property
    def rate(self) -> float:
        """Bytes/s; 0 before the first sample."""
        return max(self._before, self._now)

    def note(self, sample: RateSample) -> None:
        """A sample that does not show the path's rate still shows that the path is no slower."""
        if not sample.app_limited or sample.rate >= self.rate:
            self._now = max(self._now, sample.rate)

    def next_cycle(self) -> None:
        """Forget the cycle before the last, unless the last one taught nothing."""
        if self._now:
            self._before, self._now = self._now, 0.0

    def fall_to(self, rate: float) -> None:
        """Both cycles are out of date."""
        self._before, self._now = 0.0, rate


class Fall:
    """Notices that the path became much slower than believed, long before a cycle would tell."""

    def __init__(self) -> None:
        self._rounds = 0
        self._since = 0.0
        self._seen = inf

    def judge(self, now: float, round_trip: Rounds, believed_rate: float, min_rtt: float) -> float | None:
        """After each round trip: the rate that the path carries now, bytes/s, if it fell."""
        fell = 0 < round_trip.rate < FALLEN_SHARE * believed_rate and not round_trip.app_limited
        if not fell or round_trip.rtt_seconds <= FALLEN_QUEUE * min_rtt:
            self._rounds, self._seen = 0, inf
            return None
        if not self._rounds:
            self._since = now
        self._rounds += 1
        self._seen = min(self._seen, round_trip.rate)  # the first one may have begun before the fall
        if self._rounds < FALLEN_ROUNDS or now < self._since + FALLEN_SECONDS:
            return None
        seen, self._rounds, self._seen = self._seen, 0, inf
        return seen


class RttFloor:
    """The shortest round trip, and whether it is time to look for it again."""

    def __init__(self) -> None:
        self.seconds = inf
        self.is_due = False
        self._seen_at = 0.0
        self._lately = inf
        self._lately_at = 0.0

    def note(self, rtt_seconds: float, now: float) -> None:
        """Take a round trip of `rtt_seconds`; 0 is none."""
        self.is_due = now > self._lately_at + PROBE_RTT_SECONDS and self._lately < inf
        if rtt_seconds > 0 and (rtt_seconds <= self._lately or self.is_due):
            self._lately, self._lately_at = rtt_seconds, now
        if self._lately < self.seconds or now > self._seen_at + MIN_RTT_SECONDS:
            self.seconds, self._seen_at = self._lately, self._lately_at

    def looked(self, now: float) -> None:
        """The queue was let drain; the next time is a full interval away."""
        self._lately_at = now


class Aggregation:
    """How far acknowledgements run ahead of the path's rate when they come in bursts (wifi, GRO, delays)."""

    def __init__(self) -> None:
        self._since = 0.0
        self._acked_bytes = 0.0
        self._recent = [0.0, 0.0]
        self._rounds = 0

    @property
    def extra_bytes(self) -> float:
        """What the window needs on top, so as not to stall between bursts."""
        return max(self._recent)

    def note(
        self, sample: RateSample, round_started: bool, rate: float, window_bytes: int, keep: int
    ) -> None:
        """`rate` is the expected one; a measure is kept for `keep` to twice `keep` round trips."""
        if round_started:
            self._rounds += 1
            if self._rounds >= keep:
                self._rounds, self._recent = 0, [0.0, self._recent[0]]
        expected = rate * max(0.0, sample.now - self._since)
        if self._acked_bytes <= expected:
            self.restart(sample.now)
            expected = 0.0
        self._acked_bytes += sample.acked_bytes
        extra = min(self._acked_bytes - expected, float(window_bytes))
        self._recent[0] = max(self._recent[0], extra)

    def restart(self, now: float) -> None:
        """Nothing was expected until now."""
        self._since, self._acked_bytes = now, 0.0


class FullPipe:
    """Tells from a rate that no longer grows, though more and more is sent, that the path is full."""

    def __init__(self) -> None:
        self.ever = False
        self.now = False
        self._baseline = 0.0
        self._flat_rounds = 0

    def watch(self, baseline: float = 0.0) -> None:
        """Look again, for growth beyond `baseline` bytes/s."""
        self.now, self._baseline, self._flat_rounds = False, baseline, 0

    def note(self, sample: RateSample, round_started: bool) -> None:
        """Judge once per round trip, and only by samples that show the path's rate."""
        if self.now or not round_started or sample.app_limited:
            return
        if sample.rate >= GROWTH * self._baseline:
            self.watch(sample.rate)
            return
        self._flat_rounds += 1
        if self._flat_rounds >= FLAT_ROUNDS:
            self.now = self.ever = True


class ShortTerm:
    """Bounds on rate and volume learnt from losses since the last probe, and the round they come from."""

    def __init__(self) -> None:
        self.rate = inf
        self.volume_bytes = inf
        self.round_ended = False  # with the latest sample: a round trip of the kind that losses start
        self.loss_ranges = 0  # separate stretches lost in this round trip
        self._latest_rate = 0.0
        self.latest_volume = 0
        self._lost_bytes = 0
        self._rtt_seconds = inf  # shortest
        self._ends_at_bytes = 0
        self._last_lost = -1

    def note(self, sample: RateSample, delivered_bytes: int) -> None:
        """Near the start of a sample's handling."""
        self._latest_rate = max(self._latest_rate, sample.rate)
        self.latest_volume = max(self.latest_volume, sample.delivered_bytes)
        self._rtt_seconds = min(self._rtt_seconds, sample.rtt_seconds or inf)
        self.round_ended = sample.newest.delivered_bytes >= self._ends_at_bytes
        if self.round_ended:
            self._ends_at_bytes = delivered_bytes

    def note_loss(self, number: int, size: int, delivered_bytes: int) -> None:
        """`size` bytes of that departure are lost; the first loss starts a round trip of its own."""
        if not self._lost_bytes:
            self._ends_at_bytes = delivered_bytes
        self._lost_bytes += size
        if number not in (self._last_lost, self._last_lost + 1):
            self.loss_ranges += 1
        self._last_lost = number

    def tighten(self, rate: float, window_bytes: int, min_rtt: float, few_bytes: int) -> None:
        """Follow what was delivered in a round trip with losses, but give up at most 1 - BETA of it."""
        if not self._lost_bytes:
            return
        sent = self.latest_volume + self._lost_bytes
        too_lossy = is_too_lossy(self._lost_bytes, sent, few_bytes)
        if not too_lossy and not queue_stands(self._rtt_seconds, min_rtt):
            return
        self.rate = max(self._latest_rate, BETA * min(self.rate, rate))
        self.volume_bytes = max(self.latest_volume, BETA * min(self.volume_bytes, window_bytes))

    def finish(self, sample: RateSample) -> None:
        """Near the end of a sample's handling: begin a new round trip if one ended."""
        if self.round_ended:
            self._forget()
            self.loss_ranges = 0
            self._latest_rate, self.latest_volume = sample.rate, sample.delivered_bytes

    def forget_round(self) -> None:
        """What was delivered lately, or lost, says nothing about what comes."""
        self._forget()
        self._latest_rate, self.latest_volume = 0.0, 0

    def _forget(self) -> None:
        self._lost_bytes, self._rtt_seconds = 0, inf

    def lift(self) -> None:
        """No bounds any more: a probe finds them anew."""
        self.rate = self.volume_bytes = inf
