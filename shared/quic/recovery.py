"""Loss recovery over batches: aioquic's rules (RFC 9002), kept per batch instead of per packet.

A batch is a run of packets that left together, so most of what recovery does for a packet is
the same for all of them: they were sent at one time, they carry consecutive bytes of one stream,
they are acknowledged together unless something was lost. A batch stands for its packets in
`sent_packets` until an acknowledgement or a loss takes a part of it; then it is cut.

Congestion control sees batches too, and parts of batches: `on_packet_sent`, `on_packet_acked`,
`on_packets_lost` and `on_packets_expired` are called as aioquic calls them, with an object that
has a packet's attributes, `sent_bytes` being the sum and `count` the number of packets. What an
algorithm writes on the object when it is sent is found on each part when that is acknowledged or lost.
Losses are reported packet by packet: how many there were tells something about the path.

An acknowledgement of a packet that was never sent costs the peer the connection (RFC 9000
section 13.1); aioquic would take every packet under way for lost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from copy import copy
from math import inf
from typing import Any

from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import (
    K_PACKET_THRESHOLD,
    K_PERSISTENT_CONGESTION_THRESHOLD,
    K_TIME_THRESHOLD,
    QuicPacketRecovery,
    QuicPacketSpace,
)
from aioquic.quic.stream import QuicStreamSender
from aioquic.tls import Epoch

from shared.core.path_mtu import LEAST_BYTES, PathMtu
from shared.quic.path_probe import PathProbe

_LEAST_RTT = 0.001  # seconds; as aioquic
MAX_BACKOFF_SECONDS = 3.0  # between two probes for a silent peer
MAX_KEPT_ACKS = 128


class Batch(QuicSentPacket):
    """Packets `packet_number` .. `last` with the stream bytes `start` .. `stop`.

    Each is `packet_bytes` long and carries `chunk` bytes; only the last one may be shorter.
    """

    def __init__(
        self,
        *,
        sender: QuicStreamSender,
        packet_number: int,
        count: int,
        packet_bytes: int,
        sent_bytes: int,
        chunk: int,
        start: int,
        stop: int,
        fin: bool,
        sent_time: float,
    ) -> None:
        super().__init__(
            epoch=Epoch.ONE_RTT,
            in_flight=True,
            is_ack_eliciting=True,
            is_crypto_packet=False,
            packet_number=packet_number,
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=sent_time,
            sent_bytes=sent_bytes,
        )
        self.count = count
        self.key = packet_number  # in `sent_packets`; never above `packet_number`
        self._sender = sender
        self.packet_bytes = packet_bytes
        self._chunk = chunk
        self._start = start
        self._stop = stop
        self._fin = fin
        self._tell()

    def cut(self, count: int) -> Batch:
        """Take the first `count` packets out, as a batch of their own; at least one must stay."""
        front = copy(self)
        front.count = count
        front.sent_bytes = count * self.packet_bytes
        front._stop = self._start + count * self._chunk
        front._fin = False
        front._tell()
        self.count -= count
        self.packet_number += count
        self.sent_bytes -= front.sent_bytes
        self._start = front._stop
        self._tell()
        return front

    def _tell(self) -> None:
        self.delivery_handlers = [(self._sender.on_data_delivery, (self._start, self._stop, self._fin))]


class Recovery(QuicPacketRecovery):
    """aioquic's loss recovery, for packets and batches alike."""

    highest_sent = -1  # over all packet number spaces, which share one count
    lost_packets = 0
    timeouts_in_a_row = 0  # since something was last acknowledged
    shortest_rtt = inf  # since somebody took it

    def __init__(self, *, path_mtu: PathMtu, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._path_mtu = path_mtu
        self._acks: deque[tuple[QuicPacketSpace, QuicSentPacket]] = deque()  # that were sent lately

    def forget_all(self) -> None:
        """Nothing will be sent or heard any more."""
        self._send_probe = lambda: None
        self._acks.clear()
        for space in self.spaces:
            space.sent_packets.clear()

    def on_packet_sent(self, *, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        """A packet or a batch leaves."""
        super().on_packet_sent(packet=packet, space=space)
        if not packet.in_flight:
            self._keep_few_acks(packet, space)
        count = count_of(packet)
        space.ack_eliciting_in_flight += count - 1
        self.highest_sent = packet.packet_number + count - 1

    def _keep_few_acks(self, packet: QuicSentPacket, space: QuicPacketSpace) -> None:
        """Nothing but an acknowledgement need not be acknowledged: a peer decides how many would be kept."""
        self._acks.append((space, packet))
        if len(self._acks) > MAX_KEPT_ACKS:
            space, oldest = self._acks.popleft()
            if space.sent_packets.get(oldest.packet_number) is oldest:
                del space.sent_packets[oldest.packet_number]

    def on_ack_received(
        self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        """Raises QuicConnectionError for an acknowledgement of what was never sent."""
        largest = ack_rangeset.bounds().stop - 1
        if largest > self.highest_sent:
            raise QuicConnectionError(
                QuicErrorCode.PROTOCOL_VIOLATION, QuicFrameType.ACK, "a packet that was never sent"
            )
        space.largest_acked_packet = max(space.largest_acked_packet, largest)
        acked = _take_acked(space, ack_rangeset)
        if not acked:
            return
        for packet in acked:
            if packet.is_ack_eliciting:
                space.ack_eliciting_in_flight -= count_of(packet)
            if packet.in_flight:
                self._cc.on_packet_acked(packet=packet, now=now)
            for handler, arguments in packet.delivery_handlers:
                handler(QuicDeliveryState.ACKED, *arguments)
        self.timeouts_in_a_row = 0
        if self._path_mtu.size > LEAST_BYTES:
            self._note_large_acked(acked)
        newest = acked[-1]
        is_sample = any(packet.is_ack_eliciting for packet in acked)
        if is_sample and newest.packet_number + count_of(newest) - 1 == largest:
            assert newest.sent_time is not None  # it was sent
            self._sample_rtt(now - newest.sent_time, ack_delay, now)
        self._detect_loss(now=now, space=space)
        if self.peer_completed_address_validation:
            self._pto_count = 0

    def on_loss_detection_timeout(self, *, now: float) -> None:
        """As aioquic, but the time between two probes does not grow without bound.

        Doubled each time, seven losses in a row would outlast the idle time-out: at 30 % loss that
        was one connection in ten. A probe every three seconds burdens no path.
        """
        before = self._pto_count
        super().on_loss_detection_timeout(now=now)
        if self._pto_count > before:
            self.timeouts_in_a_row += 1
            self._path_mtu.timed_out(self.timeouts_in_a_row)
            if self.get_probe_timeout() * 2**self._pto_count > MAX_BACKOFF_SECONDS:
                self._pto_count = before

    def _note_large_acked(self, acked: list[QuicSentPacket]) -> None:
        for packet in reversed(acked):
            if _datagram_bytes(packet) > LEAST_BYTES:
                self._path_mtu.large_acked(packet.packet_number + count_of(packet) - 1)
                return

    def reschedule_data(self, *, now: float, speed_up_handshake: bool = False) -> None:
        """As aioquic: the oldest packet is sent again. One packet, not the batch it left with."""
        for space in self.spaces:
            oldest = next(iter(space.sent_packets.values()), None)
            if isinstance(oldest, Batch) and oldest.count > 1:
                front = oldest.cut(1)
                space.sent_packets[front.key] = front
                _insert(space, [oldest])
        super().reschedule_data(now=now, speed_up_handshake=speed_up_handshake)

    def _sample_rtt(self, latest: float, ack_delay: float, now: float) -> None:
        # RFC 9002 section 5, with the steps in aioquic's order.
        ack_delay = min(ack_delay, self.max_ack_delay)
        self._rtt_latest = max(latest, _LEAST_RTT)
        self._rtt_min = min(self._rtt_min, self._rtt_latest)
        if self._rtt_latest > self._rtt_min + ack_delay:
            self._rtt_latest -= ack_delay
        self.shortest_rtt = min(self.shortest_rtt, self._rtt_latest)
        if not self._rtt_initialized:
            self._rtt_first_sample_time = now
            self._rtt_initialized = True
            self._rtt_variance = latest / 2
            self._rtt_smoothed = latest
        else:
            self._rtt_variance += (abs(self._rtt_min - self._rtt_latest) - self._rtt_variance) / 4
            self._rtt_smoothed += (self._rtt_latest - self._rtt_smoothed) / 8
        self._cc.on_rtt_measurement(now=now, rtt=latest)
        self._pacer.update_rate(congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed)

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        rtt = max(self._rtt_latest, self._rtt_smoothed) if self._rtt_initialized else self._rtt_initial
        delay = K_TIME_THRESHOLD * rtt
        largest = space.largest_acked_packet
        lost: list[QuicSentPacket] = []
        space.loss_time = None
        for packet in space.sent_packets.values():
            if packet.packet_number > largest:
                break
            assert packet.sent_time is not None  # it was sent
            is_late = packet.sent_time <= now - delay
            last_lost = largest if is_late else largest - K_PACKET_THRESHOLD
            count = min(count_of(packet), last_lost - packet.packet_number + 1)
            if count == count_of(packet):
                lost.append(packet)
                continue
            if count > 0:
                assert isinstance(packet, Batch)  # others are one packet
                lost.append(packet.cut(count))
            if packet.packet_number <= largest:
                loss_time = packet.sent_time + delay
                space.loss_time = min(loss_time, space.loss_time or inf)
        for packet in lost:
            if space.sent_packets.get(_key(packet)) is packet:
                del space.sent_packets[_key(packet)]
        self._on_packets_lost(
            now=now,
            packets=lost,
            persistent_congestion=self._in_persistent_congestion(packets=lost),
            space=space,
        )

    def _in_persistent_congestion(self, *, packets: list[QuicSentPacket]) -> bool:
        if not self._rtt_initialized:
            return False
        duration = self.get_probe_timeout() * K_PERSISTENT_CONGESTION_THRESHOLD
        following, started = -1, inf
        for packet in packets:
            # A gap in the numbers ends a period: something in between may have been acknowledged.
            if packet.packet_number != following:
                started = inf
            following = packet.packet_number + count_of(packet)
            assert packet.sent_time is not None  # it was sent
            if isinstance(packet, PathProbe):
                continue
            if packet.is_ack_eliciting and packet.sent_time > self._rtt_first_sample_time:
                started = min(started, packet.sent_time)
                if packet.sent_time - started > duration:
                    return True
        return False

    def _on_packets_lost(
        self,
        *,
        congestion_event: bool = True,
        now: float,
        packets: Iterable[QuicSentPacket],
        persistent_congestion: bool = False,
        space: QuicPacketSpace,
    ) -> None:
        in_flight = []
        for packet in packets:
            if space.sent_packets.get(_key(packet)) is packet:
                del space.sent_packets[_key(packet)]
            if packet.in_flight:
                in_flight.append(packet)
            if packet.is_ack_eliciting:
                space.ack_eliciting_in_flight -= count_of(packet)
            for handler, arguments in packet.delivery_handlers:
                handler(QuicDeliveryState.LOST, *arguments)
        if not in_flight:
            return
        probes = [packet for packet in in_flight if isinstance(packet, PathProbe)]
        expired = probes if congestion_event else in_flight
        if expired:
            self._cc.on_packets_expired(packets=expired)
        if len(expired) == len(in_flight):
            return
        if probes:
            in_flight = [packet for packet in in_flight if not isinstance(packet, PathProbe)]
        large = [packet for packet in in_flight if _datagram_bytes(packet) > LEAST_BYTES]
        if large:
            self._path_mtu.large_lost(large[-1].packet_number + count_of(large[-1]) - 1)
        self.lost_packets += sum(map(count_of, in_flight))
        self._cc.on_packets_lost(now=now, packets=list(_one_by_one(in_flight)))
        if persistent_congestion:
            self._cc.on_persistent_congestion()
        self._pacer.update_rate(congestion_window=self._cc.congestion_window, smoothed_rtt=self._rtt_smoothed)


def count_of(packet: QuicSentPacket) -> int:
    """Packets that an entry of `sent_packets` stands for."""
    return packet.count if isinstance(packet, Batch) else 1


def _datagram_bytes(packet: QuicSentPacket) -> int:
    return packet.packet_bytes if isinstance(packet, Batch) else packet.sent_bytes


def _one_by_one(packets: list[QuicSentPacket]) -> Iterator[QuicSentPacket]:
    """Every single packet: a loss says something about the path by how many were lost."""
    for packet in packets:
        rest = copy(packet)
        while isinstance(rest, Batch) and rest.count > 1:
            yield rest.cut(1)
        yield rest


def _key(packet: QuicSentPacket) -> int:
    return packet.key if isinstance(packet, Batch) else packet.packet_number


def _insert(space: QuicPacketSpace, batches: list[Batch]) -> None:
    """Put batches where their numbers belong: entries are in the order of their numbers."""
    for batch in batches:
        batch.key = batch.packet_number
    entries = sorted([*space.sent_packets.values(), *batches], key=lambda packet: packet.packet_number)
    space.sent_packets = {_key(packet): packet for packet in entries}


def _take_acked(space: QuicPacketSpace, ranges: RangeSet) -> list[QuicSentPacket]:
    """Take the packets in the ranges out of `sent_packets`; they come in order."""
    sent = space.sent_packets
    keys = list(sent)
    acked: list[QuicSentPacket] = []
    loose: list[Batch] = []  # what is left behind a cut; only the last can meet a further range
    for part in ranges:
        if loose and loose[-1].packet_number + loose[-1].count > part.start:
            _carve(loose.pop(), part, acked, loose)
        # Keys are at most a batch's first number, so the batch that holds part.start is the one before.
        at = max(0, bisect_right(keys, part.start) - 1)
        while at < len(keys) and keys[at] < part.stop:
            packet = sent.get(keys[at])
            at += 1
            if packet is None or packet.packet_number + count_of(packet) <= part.start:
                continue
            if packet.packet_number >= part.stop:
                continue
            left: list[Batch] = []
            if isinstance(packet, Batch):
                _carve(packet, part, acked, left)
            else:
                acked.append(packet)
            key = keys[at - 1]
            if left:  # the first may keep the key, whichever side of the cut it is
                sent[key] = left[0]
                left[0].key = key
                loose += left[1:]
            else:
                del sent[key]
    if loose:
        _insert(space, loose)
    return acked


def _carve(batch: Batch, part: range, acked: list[QuicSentPacket], left: list[Batch]) -> None:
    """Cut a batch at the ends of a range: inside goes to `acked`, what is before and after to `left`."""
    if batch.packet_number < part.start:
        left.append(batch.cut(part.start - batch.packet_number))
    if batch.packet_number + batch.count > part.stop:
        acked.append(batch.cut(part.stop - batch.packet_number))
        left.append(batch)
    else:
        acked.append(batch)
