"""BBR, version 3: how much to send, and how fast, from a model of the path instead of from losses alone.

The model is two numbers: the rate at which the path delivers and its shortest round trip. Their product is
what fits into the path without standing in a queue. The machine keeps both up to date by small experiments,
for neither can be seen while the other is measured; `bbr_phases` has its table, `bbr_path` and `bbr_probe`
what it learns, `bbr_rate` how a rate is measured, and `docs/congestion.md` says why and at what cost.

Source: draft-ietf-ccwg-bbr (2026), whose names stand in brackets. Ours are the reaction to a path that
became much slower (`bbr_path.Fall`), the manners on a crowded line (`bbr_probe`), and a path next door.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from shared.core.bbr_path import (
    AGGREGATION_ROUNDS,
    Aggregation,
    Bandwidth,
    Fall,
    FullPipe,
    Rounds,
    RttFloor,
    ShortTerm,
    is_too_lossy,
)
from shared.core.bbr_phases import CYCLE, TACTICS, BbrStatistics, Phase
from shared.core.bbr_probe import Feedback, Probe
from shared.core.bbr_rate import DeliveryMeter, Departure, RateSample
from shared.core.dice import Dice

MIN_WINDOW_DATAGRAMS = 4  # two under way and two being acknowledged
INITIAL_WINDOW_DATAGRAMS = 10  # RFC 9002
PACING_MARGIN = 0.99  # a hair below the path, so that what queued drains
MAX_RATE = 1e11  # bytes/s; beyond any path, and finite
FIRST_RTT_SECONDS = 0.001  # assumed for the first flight's pace
QUANTUM_SECONDS = 0.001
MAX_QUANTUM_BYTES = 64 * 1024  # a burst that any window holds, so as not to cut it short
# Within a machine or a switch a pace cannot be kept: the round trip is over before a timer comes up, and
# what the timer missed is too much to make up for. There the window alone decides, and it holds enough
# for either end to be away for a time slice.
SHORT_RTT_SECONDS = 0.002
FAST_RATE = MAX_QUANTUM_BYTES / QUANTUM_SECONDS
SLICE_SECONDS = 0.005
STARTUP_LOSS_RANGES = 6  # separate losses in a round trip: one burst is no sign of a full queue
DRAIN_ROUNDS = 3
LOW_SECONDS = 0.2  # at half the volume, so that flows with other round trips do it at the same time


class Bbr:
    """One connection's controller, without I/O: told what left, arrived and was lost, it sets two figures.

    `window_bytes`  at most this much in flight [C.cwnd]; never under four datagrams
    `pacing_rate`   bytes/s at which to let packets leave; positive and finite

    How large the bursts are in which the pace is kept is for the pacer to say. `now` is in seconds on any
    clock that never goes back.
    """

    def __init__(self, datagram_bytes: int, rng: Dice) -> None:
        self._initial_window_bytes = INITIAL_WINDOW_DATAGRAMS * datagram_bytes
        self._now = 0.0
        self._phase = Phase.STARTUP
        self._meter = DeliveryMeter(datagram_bytes)
        self._rounds = Rounds()
        self._bandwidth = Bandwidth()
        self._rtt = RttFloor()
        self._aggregation = Aggregation()
        self._pipe = FullPipe()
        self._short = ShortTerm()
        self._fall = Fall()
        self._probe = Probe(datagram_bytes, rng)
        self._drain_round = 0
        self._saved_window_bytes = 0  # [prior_cwnd]
        self._low_until: float | None = None  # [probe_rtt_done_stamp]
        self._low_round_done = False
        self._after_idle = False  # [idle_restart]
        self.window_bytes = self._initial_window_bytes
        self.set_datagram_bytes(datagram_bytes)
        self.pacing_rate = self._first_rate(FIRST_RTT_SECONDS)

    def set_datagram_bytes(self, count: int) -> None:
        """Datagrams are of this size from now on."""
        self._datagram_bytes = count
        self._min_window_bytes = MIN_WINDOW_DATAGRAMS * count
        self._meter.set_datagram_bytes(count)
        self._probe.set_datagram_bytes(count)
        self.window_bytes = max(self.window_bytes, self._min_window_bytes)

    @property
    def in_flight_bytes(self) -> int:
        """Sent and neither acknowledged nor given up."""
        return self._meter.in_flight_bytes

    def statistics(self) -> BbrStatistics:
        """What it believes and allows now."""
        return BbrStatistics(
            phase=self._phase,
            window_bytes=self.window_bytes,
            in_flight_bytes=self._meter.in_flight_bytes,
            pacing_rate=self.pacing_rate,
            bandwidth=self._bandwidth.rate,
            min_rtt_seconds=self._rtt.seconds,
            bound_bytes=self._probe.bound_bytes,
            short_rate=self._short.rate,
            short_bytes=self._short.volume_bytes,
            crowded=self._probe.crowded,
            app_limited=self._meter.app_limited,
            rounds=self._rounds.count,
            delivered_bytes=self._meter.delivered_bytes,
            lost_bytes=self._meter.lost_bytes,
        )

    # What happens to packets

    def sent(self, now: float, size: int) -> Departure:
        """`size` bytes leave; keep the departure until their fate is known."""
        self._now = now
        if self._meter.in_flight_bytes <= 0 and self._meter.app_limited:
            self._restart_after_idle()
        return self._meter.departed(now, size, self.window_bytes, self.pacing_rate)

    def acknowledged(self, now: float, size: int, newest: Departure) -> None:
        """One batch of acknowledgements for `size` bytes in all; `newest` was the last of them to leave."""
        self._now = now
        floor = self._rtt.seconds if self._rtt.seconds < inf else 0.0
        sample = self._meter.acknowledged(now, size, newest, floor)
        self._learn(sample)
        self._advance(sample)
        self._look_after_rtt(sample)
        self._short.finish(sample)
        self._set_controls(sample.acked_bytes)

    def lost(self, now: float, losses: Iterable[tuple[int, Departure]]) -> None:
        """Pairs of size in bytes and departure that will not arrive."""
        self._now = now
        for size, departure in sorted(losses, key=lambda loss: loss[1].number):
            self._meter.lost(size)
            self._take_loss(size, departure)
        self._set_controls(0)

    def expired(self, size: int) -> None:
        """`size` bytes left the books without having been lost."""
        self._meter.expired(size)
        self._meter.look_for_room(self._now, self.window_bytes)

    def collapsed(self) -> None:
        """Nothing came through for several probe timeouts: begin again small, and grow by what arrives."""
        self._saved_window_bytes = self.window_bytes
        self.window_bytes = max(self._min_window_bytes, self._meter.in_flight_bytes + self._datagram_bytes)
        self._meter.look_for_room(self._now, self.window_bytes)

    # The model

    def _learn(self, sample: RateSample) -> None:
        if self._rtt.seconds == inf and sample.rtt_seconds > 0:
            self.pacing_rate = self._first_rate(sample.rtt_seconds)
        delivered = self._meter.delivered_bytes
        self._rounds.advance(sample, delivered)
        if self._rounds.started:
            self._meter.next_round()
        self._short.note(sample, delivered)
        self._bandwidth.note(sample)
        if self._short.round_ended and not TACTICS[self._phase].probes:
            few = self._probe.few_bytes
            self._short.tighten(self._bandwidth.rate, self.window_bytes, self._rtt.seconds, few)
        keep = AGGREGATION_ROUNDS if self._pipe.ever else 1
        self._aggregation.note(sample, self._rounds.started, self._rate, self.window_bytes, keep)
        self._pipe.note(sample, self._rounds.started)

    @property
    def _rate(self) -> float:
        return min(self._bandwidth.rate, self._short.rate)

    def _fitting(self, gain: float, rate: float | None = None) -> float:
        """Bytes that fit into the path, times `gain` [BDPMultiple]."""
        if self._rtt.seconds == inf or not self._bandwidth.rate:
            return gain * self._initial_window_bytes
        rate = self._rate if rate is None else rate
        return (
            gain * rate * (max(self._rtt.seconds, SLICE_SECONDS) if self._is_next_door else self._rtt.seconds)
        )

    @property
    def _is_next_door(self) -> bool:
        return self._rtt.seconds < SHORT_RTT_SECONDS and self._rate > FAST_RATE

    def _with_quantum(self, volume: float) -> float:
        volume = max(
            volume, min(self.pacing_rate * QUANTUM_SECONDS, MAX_QUANTUM_BYTES), self._min_window_bytes
        )
        return volume + 2 * self._datagram_bytes if self._phase is Phase.UP else volume

    def _target_bytes(self) -> float:
        return min(self._fitting(1.0), self.window_bytes)

    def _take_loss(self, size: int, departure: Departure) -> None:
        self._short.note_loss(departure.number, size, self._meter.delivered_bytes)
        if not self._probe.judges:
            return
        lost = self._meter.lost_bytes - departure.lost_bytes
        volume = self._probe.judge_loss(size, lost, departure.in_flight_bytes)
        if volume is None:
            return
        self._probe.lower(volume, self._target_bytes(), departure.app_limited)
        if self._phase is Phase.UP:
            self._go_down()

    # The machine

    def _advance(self, sample: RateSample) -> None:
        if self._phase is Phase.STARTUP:
            self._leave_startup_if_lossy(sample)
            if self._pipe.ever:
                self._drain()
        if self._phase is Phase.DRAIN and self._has_drained_startup():
            self._go_down()
        at_bound = self._meter.window_limited and self.window_bytes >= self._probe.bound_bytes
        if self._pipe.ever and not self._take_feedback(sample, at_bound) and self._phase in CYCLE:
            self._advance_cycle(sample, at_bound)

    def _advance_cycle(self, sample: RateSample, at_bound: bool) -> None:
        if self._rounds.started:
            fallen = self._fall.judge(self._now, self._rounds, self._bandwidth.rate, self._rtt.seconds)
            if fallen is not None:
                self._follow_fall(fallen)
                return
        if self._phase in (Phase.DOWN, Phase.CRUISE):
            if self._probe.is_due(self._now, self._target_bytes(), self._rounds):
                self._refill()
            elif self._phase is Phase.DOWN and self._has_drained_probe():
                self._phase = Phase.CRUISE
        elif self._phase is Phase.REFILL and self._rounds.started:
            self._go_up(sample)
        elif self._phase is Phase.UP and self._is_time_to_go_down(sample, at_bound):
            self._probe.went_too_high = False
            self._go_down()

    def _leave_startup_if_lossy(self, sample: RateSample) -> None:
        if not self._short.round_ended or self._short.loss_ranges < STARTUP_LOSS_RANGES:
            return
        if is_too_lossy(sample.lost_bytes, sample.newest.in_flight_bytes, self._probe.few_bytes):
            self._pipe.ever = True
            self._probe.bound_bytes = int(max(self._fitting(1.0), self._short.latest_volume))

    def _has_drained_startup(self) -> bool:
        fits = self._meter.in_flight_bytes <= self._with_quantum(self._fitting(1.0))
        return fits or self._rounds.count > self._drain_round + DRAIN_ROUNDS

    def _has_drained_probe(self) -> bool:
        in_flight = self._meter.in_flight_bytes
        room = max(self._probe.with_headroom(), self._min_window_bytes)
        return in_flight <= min(room, self._with_quantum(self._fitting(1.0, self._bandwidth.rate)))

    def _is_time_to_go_down(self, sample: RateSample, at_bound: bool) -> bool:
        in_flight = self._meter.in_flight_bytes + sample.acked_bytes  # before this batch arrived
        if self._probe.went_too_high and in_flight + self._datagram_bytes > self._probe.bound_bytes:
            self._probe.was_cautious = True
            return True
        if at_bound:
            self._pipe.watch(sample.rate)  # the bound is in the way, not the path
            return False
        return self._pipe.now

    def _take_feedback(self, sample: RateSample, at_bound: bool) -> bool:
        """Follow the answers to a probe [AdaptLongTermModel]; True if that decided the next phase."""
        probe = self._probe
        if probe.feedback is Feedback.STARTING and self._rounds.started:
            probe.feedback = Feedback.PROBING
        if probe.feedback is Feedback.STOPPING and self._rounds.started:
            probe.judges = False
            probe.feedback = Feedback.NONE
            if self._phase in CYCLE and not sample.app_limited:
                self._bandwidth.next_cycle()
            if self._phase in CYCLE and probe.was_cautious and not probe.went_too_high:
                self._refill()
                return True
        in_flight = sample.newest.in_flight_bytes
        if probe.bound_bytes == inf or is_too_lossy(sample.lost_bytes, in_flight, probe.few_bytes):
            return False
        probe.bound_bytes = max(probe.bound_bytes, in_flight)
        if self._phase is Phase.UP and at_bound:
            probe.grow(sample.acked_bytes, self.window_bytes, self._rounds.started)
        return False

    def _drain(self) -> None:
        self._phase = Phase.DRAIN
        self._drain_round = self._rounds.count

    def _follow_fall(self, rate: float) -> None:
        """The path became much slower: believe it at once, and empty the queue that the old belief made."""
        self._bandwidth.fall_to(rate)
        self._short.lift()
        self._drain()

    def _go_down(self) -> None:
        self._short.forget_round()
        self._probe.end(self._now, self.window_bytes, self._rounds)
        self._rounds.restart(self._meter.delivered_bytes)
        self._phase = Phase.DOWN

    def _refill(self) -> None:
        self._short.lift()
        self._probe.refill(self._rounds, self._rtt.seconds)
        self._rounds.restart(self._meter.delivered_bytes)
        self._phase = Phase.REFILL

    def _go_up(self, sample: RateSample) -> None:
        self._probe.rise(self.window_bytes)
        self._rounds.restart(self._meter.delivered_bytes)
        self._pipe.watch(sample.rate)
        self._phase = Phase.UP

    # The shortest round trip

    def _look_after_rtt(self, sample: RateSample) -> None:
        self._rtt.note(sample.rtt_seconds, self._now)
        if self._rtt.is_due and self._phase is not Phase.PROBE_RTT and not self._after_idle:
            self._saved_window_bytes = self.window_bytes
            self._phase = Phase.PROBE_RTT
            self._low_until = None
            self._probe.feedback = Feedback.STOPPING
            self._rounds.restart(self._meter.delivered_bytes)
        if self._phase is Phase.PROBE_RTT:
            self._hold_low()
        self._after_idle = False

    def _hold_low(self) -> None:
        self._meter.note_app_limited()  # the rate is low on purpose
        if self._low_until is None:
            if self._meter.in_flight_bytes <= self._low_window():
                self._low_until = self._now + LOW_SECONDS
                self._low_round_done = False
                self._rounds.restart(self._meter.delivered_bytes)
            return
        self._low_round_done = self._low_round_done or self._rounds.started
        if self._low_round_done:
            self._rise_if_held()

    def _rise_if_held(self) -> None:
        if self._low_until is None or self._now <= self._low_until:
            return
        self._rtt.looked(self._now)
        self.window_bytes = max(self.window_bytes, self._saved_window_bytes)
        self._short.lift()
        if self._pipe.ever:
            self._go_down()
            self._phase = Phase.CRUISE  # there is no queue to drain
        else:
            self._phase = Phase.STARTUP

    def _low_window(self) -> float:
        return max(self._fitting(TACTICS[Phase.PROBE_RTT].window), self._min_window_bytes)

    def _restart_after_idle(self) -> None:
        self._after_idle = True
        self._aggregation.restart(self._now)
        if self._phase in CYCLE:
            self._set_pace(1.0)
        elif self._phase is Phase.PROBE_RTT:
            self._rise_if_held()

    def _first_rate(self, rtt_seconds: float) -> float:
        rate = TACTICS[Phase.STARTUP].pace * self._initial_window_bytes / rtt_seconds
        return max(min(rate, MAX_RATE), float(self._datagram_bytes))

    def _set_controls(self, acked_bytes: int) -> None:
        self._set_pace(TACTICS[self._phase].pace)
        self._set_window(acked_bytes)
        self._meter.look_for_room(self._now, self.window_bytes)

    def _set_pace(self, gain: float) -> None:
        rate = min(gain * PACING_MARGIN * self._rate, MAX_RATE)
        if self._is_next_door:
            rate = max(rate, self.window_bytes / QUANTUM_SECONDS)
        if rate > 0 and (self._pipe.ever or rate > self.pacing_rate):
            self.pacing_rate = max(rate, float(self._datagram_bytes))

    def _set_window(self, acked_bytes: int) -> None:
        most = self._fitting(TACTICS[self._phase].window) + self._aggregation.extra_bytes
        most = self._with_quantum(most)
        window = float(self.window_bytes)
        if self._pipe.ever:
            window = min(window + acked_bytes, most)
        elif window < most or self._meter.delivered_bytes < self._initial_window_bytes:
            window += acked_bytes
        if self._phase is Phase.PROBE_RTT:
            window = min(window, self._low_window())
        self.window_bytes = int(max(min(window, self._cap()), self._min_window_bytes))

    def _cap(self) -> float:
        if self._phase in (Phase.CRUISE, Phase.PROBE_RTT):
            return min(self._probe.with_headroom(), self._short.volume_bytes)
        if self._phase in CYCLE:
            return min(self._probe.bound_bytes, self._short.volume_bytes)
        return self._short.volume_bytes
