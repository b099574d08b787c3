"""A line in virtual time: the real cap and the real gate between greedy senders and a household."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from random import Random

from peer.core.line import Counters, LineSample, Own
from peer.core.upload_cap import CAP_SHARE, FAST_LINE, UploadCap
from shared.core.gate import HEADER_BYTES_V6, TURN_BYTES, Gate, Pass

LINK_HEADER = 14
SENDERS = tuple("abcdefgh")


@dataclass(slots=True)
class Case:
    """One afternoon at a line; all rates in bytes per second."""

    line_rate: float
    seconds: float
    seed: int = 0
    household: tuple[tuple[float, float], ...] = ()  # from when on it sends how much
    at_once_share: float = 0.0  # of the gate's rate that acknowledgements would take
    full_datagrams: bool = True
    lateness_seconds: float = 0.0  # of timers, at most
    sleeps: tuple[tuple[float, float], ...] = ()  # when, how long
    steps_back: tuple[tuple[float, float], ...] = ()  # the clock, when and how far
    lulls: tuple[tuple[float, float], ...] = ()  # nobody wants to send
    glitches: tuple[float, ...] = ()  # when the counters jump back
    beliefs: tuple[tuple[float, float], ...] = ()  # when the line is seen full, with how much


@dataclass(slots=True)
class Trace:
    """What left, and how far the gate's own bound was ever overrun, in bytes."""

    out: list[tuple[float, int]] = field(default_factory=list)
    overrun_bytes: float = -inf
    floor_rate: float = 0.0
    beliefs: list[tuple[float, float]] = field(default_factory=list)  # from when on, capacity


class World:
    """Runs one case. `t` is true time; the cap and the gate see `t + offset`."""

    def __init__(self, case: Case, gate_class: type[Gate[str]] = Gate) -> None:
        self.case = case
        self.rng = Random(case.seed)
        self.t = 0.0
        self.offset = 1_000.0
        self.cap = UploadCap(case.line_rate)
        self.gate = gate_class(self.cap.gate_rate(), self.cap.burst_bytes())
        self.trace = Trace(beliefs=[(0.0, case.line_rate)])
        self.own = [0, 0]
        self.counted_from = 0.0  # counters restart here
        self.pending = deque(self._at_once())
        self.waiting: deque[int] = deque()
        self._allowed = 0.0
        self._sent = 0.0
        self._least = inf
        self._burst = self.cap.burst_bytes()
        self._rate = self.cap.gate_rate()

    def run(self) -> Trace:
        """The whole case; before it begins the cap has watched for two seconds."""
        for tick in range(20, 0, -1):
            self._sample(-tick / 10)
        moments = deque(sorted(self._moments()))
        while self.t < self.case.seconds:
            if not self._in(self.case.lulls):
                for sender in SENDERS:
                    self.gate.ask(sender)
            self._arrive()
            self._give()
            while moments and moments[0][0] <= self.t:
                self._happen(*moments.popleft()[1:])
            ready = self.gate.ready_at(self.t + self.offset) - self.offset
            late = self.rng.random() * self.case.lateness_seconds
            soon = [max(ready, self.t) + 1e-9 + late]
            soon += [self.pending[0][0]] if self.pending else []
            soon += [moments[0][0]] if moments else [self.case.seconds]
            self._advance(max(self.t, min(soon)))
        return self.trace

    # -- what happens ---------------------------------------------------------------------------

    def _moments(self) -> list[tuple[float, str, float]]:
        case = self.case
        ticks = [(tick / 10, "sample", 0.0) for tick in range(int(case.seconds * 10))]
        return [
            *ticks,
            *((at, "sleep", length) for at, length in case.sleeps),
            *((at, "back", length) for at, length in case.steps_back),
            *((at, "glitch", 0.0) for at in case.glitches),
            *((at, "full", rate) for at, rate in case.beliefs),
        ]

    def _happen(self, what: str, amount: float) -> None:
        match what:
            case "sample":
                self._sample(self.t)
            case "sleep":
                self._advance(self.t + amount)
            case "back":
                self.offset -= amount
            case "glitch":
                self.counted_from = self.t
            case "full":
                self.cap.belief.seen_full(amount, self.t + self.offset)
                self.trace.beliefs.append((self.t, self.cap.belief.rate))
                self._set_gate()

    def _sample(self, at: float) -> None:
        household = self.household_bytes(self.counted_from, max(0.0, at))
        packets = self.own[1] + int(household / 1000)
        counted = int(household) + self.own[0] + packets * LINK_HEADER
        own = Own(self.own[0], self.own[1], self.own[1] * HEADER_BYTES_V6)
        self.cap.sample(LineSample(at + self.offset, own, Counters(counted, packets, LINK_HEADER)))
        self._set_gate()

    def _set_gate(self) -> None:
        self._rate, self._burst = self.cap.gate_rate(), max(self._burst, self.cap.burst_bytes())
        self.trace.floor_rate = max(self.trace.floor_rate, self.cap._floor_rate())
        self.gate.set_rate(self._rate, self.t + self.offset, self.cap.burst_bytes())

    def _advance(self, t: float) -> None:
        self._allowed += self._rate * (t - self.t)
        self.t = t

    def _at_once(self) -> list[tuple[float, int]]:
        rate = self.case.at_once_share * self.cap.gate_rate()
        at, found = 0.0, list[tuple[float, int]]()
        while rate and len(found) < 300:
            size = self.rng.choice((76, 120, TURN_BYTES))
            at += self.rng.random() * 2 * size / rate
            found.append((at, size))
        return found

    def _arrive(self) -> None:
        """As the endpoint does it: what is not admitted waits for a turn of 0 datagrams."""
        while self.pending and self.pending[0][0] <= self.t:
            size = self.pending.popleft()[1]
            if self.gate.admits(self.t + self.offset):
                self._leave(size, 1, Pass.AT_ONCE)
            else:
                self.waiting.append(size)
                self.gate.ask_at_once(f"ack {len(self.waiting) % 50}")

    def _give(self) -> None:
        while (turn := self.gate.next_turn(self.t + self.offset)) is not None:
            if turn.datagrams == 0:
                if self.waiting:
                    self._leave(self.waiting.popleft(), 1, Pass.AT_ONCE)
                continue
            size = TURN_BYTES if self.case.full_datagrams else self.rng.randint(200, TURN_BYTES)
            self._leave(size * turn.datagrams, turn.datagrams, Pass.TURN)
            if not self._in(self.case.lulls):
                self.gate.ask(turn.asker)

    def _leave(self, size: int, datagrams: int, how: Pass) -> None:
        self._least = min(self._least, self._sent - self._allowed)
        self._sent += size
        self.own[0] += size
        self.own[1] += datagrams
        self.trace.out.append((self.t, size))
        overrun = self._sent - self._allowed - self._least - self._burst
        self.trace.overrun_bytes = max(self.trace.overrun_bytes, overrun)
        self.gate.charge(size, how, self.t + self.offset)

    def _in(self, spans: tuple[tuple[float, float], ...]) -> bool:
        return any(at <= self.t < at + length for at, length in spans)

    # -- the truth ------------------------------------------------------------------------------

    def household_bytes(self, begin: float, end: float) -> float:
        """What the household sends between two moments."""
        return integral(self.case.household, begin, end)

    def available_bytes(self, begin: float, end: float) -> float:
        """What the line carries between two moments, less the household's."""
        capacity = integral(tuple(self.trace.beliefs), begin, end)
        return max(0.0, capacity - self.household_bytes(begin, end))


def integral(steps: tuple[tuple[float, float], ...], begin: float, end: float) -> float:
    """Of a function that has a value from each moment on, 0 before the first."""
    ends = [*(at for at, _ in steps[1:]), inf]
    spans = zip(steps, ends, strict=bool(steps))
    return sum(rate * max(0.0, min(end, until) - max(begin, at)) for (at, rate), until in spans)


def windows_of(line_rate: float) -> tuple[float, ...]:
    """The windows that count, in seconds."""
    return (0.1, 1.0, 10.0) if line_rate >= FAST_LINE else (1.0, 10.0)


def worst_share(world: World, trace: Trace, window: float, settle_seconds: float = 2.0) -> float:
    """The fullest window's share of what may leave in it: 1 is CAP_SHARE of the available uplink.

    Windows are left out that begin before a change of line or household is `settle_seconds` old.
    """
    changes = [at for at, _ in (*world.case.household, *trace.beliefs[1:])]
    if not changes:
        fullest = max(inside for _, inside in fullness(trace, window))
        return fullest / (CAP_SHARE * world.case.line_rate * window)
    worst = 0.0
    for at, inside in fullness(trace, window):
        begin = at - window
        if begin < 0 or any(begin < change + settle_seconds and at > change for change in changes):
            continue
        floor = trace.floor_rate * window + 2 * TURN_BYTES
        worst = max(worst, inside / max(floor, CAP_SHARE * world.available_bytes(begin, at)))
    return worst


def fullness(trace: Trace, window: float) -> Iterator[tuple[float, int]]:
    """The bytes in each window that ends with something that left; and when."""
    out, inside, start = trace.out, 0, 0
    for at, size in out:
        inside += size
        while out[start][0] <= at - window:
            inside -= out[start][1]
            start += 1
        yield at, inside
