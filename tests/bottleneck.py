"""A network of one bottleneck in virtual time, and flows that meet there; same seed, same trace.

Packets wait in a first-in first-out queue of bounded bytes, leave it at the line's rate, and may be lost at
random. Every other delay of a flow is one figure, its base round trip. A flow is driven through aioquic's
hook for congestion control, so ours, aioquic's Reno and Cubic, and the model of a Cubic TCP below are
driven alike: packets are acknowledged in batches, and lost when three later ones have arrived.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Any

from aioquic.quic.congestion import cubic, reno  # noqa: F401  # they register themselves
from aioquic.quic.congestion.base import QuicCongestionControl, create_congestion_control

from shared.congestion import BbrCongestionControl

DATAGRAM_BYTES = 1350
MIN_TIMEOUT_SECONDS = 0.2
STOCK_BURST_BYTES = 16 * DATAGRAM_BYTES  # of aioquic's pacer


class Packet:
    """What the hook sees of a sent packet, and where it is."""

    __slots__ = ("arrives_at", "departure", "fate", "number", "sent_bytes", "sent_time")

    def __init__(self, number: int, sent_time: float) -> None:
        self.number = number
        self.sent_time = sent_time
        self.sent_bytes = DATAGRAM_BYTES
        self.arrives_at = 0.0  # its acknowledgement
        self.fate: bool | None = None  # acknowledged, or dropped, which the sender does not know yet


class CubicTcp(QuicCongestionControl):
    """Cubic as in RFC 9438 with the slow start exit of HyStart++: what a TCP download does. Not paced."""

    C = 0.4
    BETA = 0.7
    ALPHA = 3 * (1 - BETA) / (1 + BETA)

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._mss = max_datagram_size
        self._window = 10.0  # in segments, as the RFC counts
        self._w_max = self._w_est = self._k = 0.0
        self._epoch_at: float | None = None
        self._recovery_at = -1.0
        self._rtt = self._min_rtt = 1.0
        self._slow_start = True

    def on_packet_sent(self, *, packet: Any) -> None:
        self.bytes_in_flight += packet.sent_bytes

    def on_packets_expired(self, *, packets: Iterable[Any]) -> None:
        self.bytes_in_flight -= sum(packet.sent_bytes for packet in packets)

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        self._rtt = rtt
        self._min_rtt = min(self._min_rtt, rtt)
        if self._slow_start and rtt > self._min_rtt + max(0.004, self._min_rtt / 8):
            self._slow_start = False

    def on_packet_acked(self, *, now: float, packet: Any) -> None:
        self.bytes_in_flight -= packet.sent_bytes
        if packet.sent_time <= self._recovery_at:
            return
        if self._slow_start:
            self._window += 1
        else:
            self._grow(now)
        self.congestion_window = int(self._window * self._mss)

    def _grow(self, now: float) -> None:
        if self._epoch_at is None:
            self._epoch_at, self._w_est = now, self._window
            self._w_max = max(self._w_max, self._window)
            self._k = ((self._w_max - self._window) / self.C) ** (1 / 3)
        self._w_est += (self.ALPHA if self._w_est < self._w_max else 1.0) / self._window
        seconds = now - self._epoch_at
        target = self.C * (seconds + self._rtt - self._k) ** 3 + self._w_max
        target = min(max(target, self._window), 1.5 * self._window)
        self._window = max(self._window + (target - self._window) / self._window, self._w_est)

    def on_packets_lost(self, *, now: float, packets: Iterable[Any]) -> None:
        newest = -1.0
        for packet in packets:
            self.bytes_in_flight -= packet.sent_bytes
            newest = max(newest, packet.sent_time)
        if newest <= self._recovery_at:
            return
        self._recovery_at, self._epoch_at, self._slow_start = now, None, False
        shrinking = self._window < self._w_max
        self._w_max = self._window * (1 + self.BETA) / 2 if shrinking else self._window
        self._window = max(2.0, self._window * self.BETA)
        self.congestion_window = int(self._window * self._mss)

    def on_persistent_congestion(self) -> None:
        self._window, self._slow_start, self._epoch_at = 2.0, True, None


class Kind(Enum):
    """Who controls a flow."""

    BBR = "bbr"
    STOCK_RENO = "reno"  # aioquic's
    STOCK_CUBIC = "cubic"  # aioquic's
    TCP = "tcp"  # a download by TCP with Cubic


@dataclass(slots=True)
class Flow:
    """One sender, its receiver, and what became of its packets."""

    control: QuicCongestionControl
    base_rtt: float
    paced: bool = True  # else it sends whenever the window lets it, as a TCP does
    ack_delay: float = 0.001
    begins_at: float = 0.0
    app_rate: float | None = None  # bytes/s that there are to send; None: always more
    pace_share: float = 1.0  # how much of the pace it is allowed its timers reach
    number: int = 0
    sent_bytes: int = 0
    delivered_bytes: int = 0
    dropped: int = 0
    lost_at_random: int = 0
    srtt: float = 0.0
    rtts: list[tuple[float, float]] = field(default_factory=list)  # when, seconds
    delivered: list[tuple[float, int]] = field(default_factory=list)  # when, bytes so far
    drops: list[tuple[float, int, int]] = field(default_factory=list)  # when, dropped and sent so far
    outstanding: deque[Packet] = field(default_factory=deque)
    arriving: deque[Packet] = field(default_factory=deque)
    may_send_at: float = 0.0
    wakes_at: float = -1.0
    acks_at: float = -1.0
    heard_at: float = 0.0
    app_credit: float = 0.0
    app_at: float = 0.0

    def pace(self) -> tuple[float, float]:
        """Bytes/s and bytes in one go."""
        rate = getattr(self.control, "pacing_rate", None)
        if rate is not None:
            return rate * self.pace_share, min(max(0.001 * rate, 2 * DATAGRAM_BYTES), 65536.0)
        return self.control.congestion_window / max(self.srtt or self.base_rtt, 1e-6), STOCK_BURST_BYTES


class Bottleneck:
    """The line, its queue, and the flows through it. Rates in bytes/s."""

    def __init__(self, rate: float, queue_bytes: float, loss: float = 0.0, seed: int = 1) -> None:
        self.now = 0.0
        self.rate = rate
        self.queue_bytes = queue_bytes
        self.loss = loss
        self.flows: list[Flow] = []
        self._rng = random.Random(seed)
        self._free_at = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def add(self, flow: Flow) -> Flow:
        """A flow that begins at its time."""
        self.flows.append(flow)
        self.at(flow.begins_at, lambda: self._begin(flow))
        return flow

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do something at a time."""
        heapq.heappush(self._events, (when, next(self._order), act))

    def set_rate(self, rate: float) -> None:
        """The line's rate changes, for what waits in its queue as well."""
        stretch, shift = self.rate / rate, self.now
        self.rate = rate
        self._free_at = shift + max(0.0, self._free_at - shift) * stretch
        for flow in self.flows:
            for packet in flow.arriving:
                left_at = packet.arrives_at - flow.base_rtt
                if left_at > shift:
                    packet.arrives_at = shift + (left_at - shift) * stretch + flow.base_rtt
            flow.acks_at = -1.0
            self._expect_ack(flow)

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = until

    def _begin(self, flow: Flow) -> None:
        flow.app_at = flow.heard_at = flow.may_send_at = self.now
        self._watch(flow)
        self._pump(flow)

    def _pump(self, flow: Flow, probe: bool = False) -> None:
        """Send what window, pace and application allow; arrange to wake up when the pace allows more."""
        now, control = self.now, flow.control
        rate, quantum = flow.pace()
        if flow.app_rate is not None:
            flow.app_credit = min(flow.app_credit + flow.app_rate * (now - flow.app_at), 64 * 1024)
            flow.app_at = now
        burst = 0
        while probe or control.congestion_window - control.bytes_in_flight >= DATAGRAM_BYTES:
            if flow.app_rate is not None and flow.app_credit < DATAGRAM_BYTES:
                self._wake(flow, now + (DATAGRAM_BYTES - flow.app_credit) / flow.app_rate + 1e-6)
                return
            if flow.paced and not probe and (flow.may_send_at > now or burst >= quantum):
                self._wake(flow, max(flow.may_send_at, now))
                return
            probe = False
            flow.may_send_at = max(flow.may_send_at, now - quantum / rate) + DATAGRAM_BYTES / rate
            flow.app_credit -= DATAGRAM_BYTES
            burst += DATAGRAM_BYTES
            self._send(flow)

    def _wake(self, flow: Flow, when: float) -> None:
        if self.now < flow.wakes_at <= when:
            return
        flow.wakes_at = when

        def wake() -> None:
            if flow.wakes_at == when:
                flow.wakes_at = -1.0
                self._pump(flow)

        self.at(when, wake)

    def _send(self, flow: Flow) -> None:
        now = self.now
        flow.number += 1
        packet = Packet(flow.number, now)
        flow.control.on_packet_sent(packet=packet)  # type: ignore[arg-type]  # all that the hook reads
        flow.outstanding.append(packet)
        flow.sent_bytes += DATAGRAM_BYTES
        waiting = max(0.0, self._free_at - now) * self.rate
        if waiting > self.queue_bytes:
            packet.fate = False
            flow.dropped += 1
            return
        self._free_at = max(self._free_at, now) + DATAGRAM_BYTES / self.rate
        if self.loss and self._rng.random() < self.loss:
            packet.fate = False
            flow.lost_at_random += 1
            return
        packet.arrives_at = self._free_at + flow.base_rtt
        flow.arriving.append(packet)
        if len(flow.arriving) == 1:
            self._expect_ack(flow)

    def _expect_ack(self, flow: Flow) -> None:
        if not flow.arriving:
            return
        when = max(self.now, flow.arriving[0].arrives_at + flow.ack_delay)
        flow.acks_at = when

        def arrive() -> None:
            if flow.acks_at == when:
                self._acknowledge(flow)

        self.at(when, arrive)

    def _acknowledge(self, flow: Flow) -> None:
        now, control = self.now, flow.control
        newest: Packet | None = None
        while flow.arriving and flow.arriving[0].arrives_at <= now:
            newest = flow.arriving.popleft()
            newest.fate = True
            control.on_packet_acked(now=now, packet=newest)  # type: ignore[arg-type]
            flow.delivered_bytes += newest.sent_bytes
        if newest is not None:
            rtt = now - newest.sent_time
            flow.srtt = rtt if not flow.srtt else flow.srtt + (rtt - flow.srtt) / 8
            flow.heard_at = now
            flow.rtts.append((now, rtt))
            flow.delivered.append((now, flow.delivered_bytes))
            flow.drops.append((now, flow.dropped, flow.number))
            control.on_rtt_measurement(now=now, rtt=rtt)
            self._find_lost(flow, newest.number - 3)
        self._expect_ack(flow)
        self._pump(flow)

    def _find_lost(self, flow: Flow, up_to: int) -> None:
        lost = []
        while flow.outstanding and (flow.outstanding[0].fate or flow.outstanding[0].number <= up_to):
            packet = flow.outstanding.popleft()
            if not packet.fate:
                lost.append(packet)
        if lost:
            flow.control.on_packets_lost(now=self.now, packets=lost)  # type: ignore[arg-type]

    def _watch(self, flow: Flow) -> None:
        """The probe timeout: the oldest packet counts as gone, and one more is sent past the window."""
        timeout = max(MIN_TIMEOUT_SECONDS, 2 * flow.srtt)
        if flow.outstanding and self.now - flow.heard_at >= timeout:
            if not flow.outstanding[0].fate:
                flow.control.on_packets_expired(packets=[flow.outstanding.popleft()])  # type: ignore[list-item]
            self._pump(flow, probe=True)
        self.at(self.now + timeout / 2, lambda: self._watch(flow))


def make_flow(kind: Kind, base_rtt: float, seed: int = 1, **traits: Any) -> Flow:
    """A flow of a kind; `traits` are fields of Flow. Ours saves acknowledgements up, as its endpoint does."""
    control: QuicCongestionControl
    if kind is Kind.BBR:
        control = BbrCongestionControl(max_datagram_size=DATAGRAM_BYTES, rng=random.Random(seed))
    elif kind is Kind.TCP:
        control = CubicTcp(max_datagram_size=DATAGRAM_BYTES)
    else:
        control = create_congestion_control(kind.value, max_datagram_size=DATAGRAM_BYTES)
    traits = {"ack_delay": 0.001 if kind is Kind.TCP else 0.005, **traits}
    return Flow(control, base_rtt, paced=kind is not Kind.TCP, **traits)


def goodput(flow: Flow, since: float, until: float) -> float:
    """Bytes/s delivered in a stretch of time."""
    return (_at(flow.delivered, until) - _at(flow.delivered, since)) / (until - since)


def mean_rtt(flow: Flow, since: float, until: float) -> float:
    """Seconds, over the acknowledgements of a stretch of time."""
    rtts = [rtt for when, rtt in flow.rtts if since <= when < until]
    return sum(rtts) / len(rtts)


def drop_share(flow: Flow, since: float = 0.0) -> float:
    """Of the packets sent after `since`, how many the queue had no room for."""
    before = next(((d, n) for when, d, n in flow.drops if when >= since), (0, 0))
    return (flow.dropped - before[0]) / max(1, flow.number - before[1])


def _at(counts: list[tuple[float, int]], when: float) -> int:
    place = bisect_right(counts, when, key=lambda entry: entry[0])
    return counts[place - 1][1] if place else 0
