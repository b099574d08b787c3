from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace
from aioquic.quic.stream import QuicStreamSender
from aioquic.tls import Epoch
from hypothesis import example, given
from hypothesis import strategies as st

from shared.core.path_mtu import PathMtu
from shared.quic.press import HEADER_BYTES, Press, Seal, varint
from shared.quic.receiving import _lone_stream_frame
from shared.quic.recovery import MAX_BACKOFF_SECONDS, Batch, Recovery, count_of
from shared.quic.rope import Rope

ID = b"12345678"


@given(
    steps=st.lists(st.one_of(st.binary(max_size=40), st.integers(0, 60)), max_size=40), cut=st.integers(0, 9)
)
def test_a_rope_holds_what_a_bytearray_would(steps: list[bytes | int], cut: int) -> None:
    """Appended to, shortened in front and read anywhere, a rope and a bytearray hold the same."""
    rope, plain, deleted = Rope(), bytearray(), 0
    for step in steps:
        if isinstance(step, bytes):
            rope += memoryview(step) if cut % 2 else step
            plain += step
        else:
            count = min(step, len(plain))
            del rope[:count]
            del plain[:count]
            deleted += count
        assert len(rope) == len(plain)
        start = min(cut, len(plain))
        assert rope[start : len(plain)] == plain[start:]
        target = bytearray(len(plain) - start)
        rope.copy_into(memoryview(target), deleted + start)
        assert target == plain[start:]
    assert len(rope._chunks) <= 1 + sum(isinstance(step, bytes) for step in steps)


@given(
    number=st.integers(0, 60_000),
    stream_id=st.sampled_from([0, 1, 63, 64, 9000, 1 << 20]),
    start=st.sampled_from([0, 5, 70_000, (1 << 30) - 66_000, (1 << 30) - 1000, 1 << 30, 1 << 40]),
    full=st.integers(0, 12),
    tail=st.integers(0, 1300),
    fin=st.booleans(),
)
def test_what_is_printed_is_what_aioquic_reads(
    number: int, stream_id: int, start: int, full: int, tail: int, fin: bool
) -> None:
    """aioquic opens every packet of a group, and finds in them the stream's bytes, in order, once."""
    press, pair = Press(1350), CryptoPair()
    pair.setup_initial(cid=ID, is_client=True, version=1)
    reader = CryptoPair()
    reader.setup_initial(cid=ID, is_client=False, version=1)
    size = full * press.chunk_bytes(stream_id, start) + tail or 1
    written = random.Random(size).randbytes(size)
    rope = Rope()
    rope += written
    rope._starts, rope._first, rope._stop = [start], start, start + size
    aead, protection = pair.send.aead, pair.send.hp
    assert aead is not None
    assert protection is not None
    seal = Seal(aead._aead.encrypt_into, aead._iv, protection._encryptor, ID, 0x41)
    printed = bytes(press.print(seal, number, rope, stream_id, start, start + size, fin))
    datagrams = [printed[at : at + 1350] for at in range(0, len(printed), 1350)]
    assert len(datagrams) == full + (tail > 0) or size == 1
    at = start
    for index, datagram in enumerate(datagrams):
        header, payload, seen = reader.decrypt_packet(datagram, HEADER_BYTES - 2, number + index)
        assert (seen, header[0], header[1:9]) == (number + index, 0x41, ID)
        frame = Buffer(data=payload)
        kind = frame.pull_uint_var()
        assert (frame.pull_uint_var(), frame.pull_uint_var()) == (stream_id, at)
        data = frame.pull_bytes(frame.capacity - frame.tell())
        assert data == written[at - start : at - start + len(data)]
        at += len(data)
        assert kind == 0x0C | (fin and index == len(datagrams) - 1)
    assert at == start + size


@given(payload=st.one_of(st.binary(max_size=30), st.binary(max_size=20).map(lambda rest: b"\x0e\x04" + rest)))
def test_a_lone_stream_frame(payload: bytes) -> None:
    """Whatever is taken for one STREAM frame, aioquic's buffer reads the same fields from it, to the end."""
    found = _lone_stream_frame(payload)
    if found is None:
        return
    stream_id, offset, header_bytes, fin, limit = found
    buffer = Buffer(data=payload)
    kind = buffer.pull_uint_var()
    assert kind & 0xF8 == 8
    assert fin == bool(kind & 1)
    assert buffer.pull_uint_var() == stream_id
    assert (buffer.pull_uint_var() if kind & 4 else 0) == offset
    length = buffer.pull_uint_var() if kind & 2 else len(payload) - buffer.tell()
    assert buffer.tell() == header_bytes
    assert header_bytes + length == len(payload)
    if offset + length < limit:  # the next header is this one's plus the length of its data
        following = int.from_bytes(payload[:header_bytes], "big") + length
        again = _lone_stream_frame(following.to_bytes(header_bytes, "big") + b"x")
        assert again is not None
        assert again[:2] == (stream_id, offset + length)


@pytest.mark.parametrize("number", [0, 63, 64, 16383, 16384, (1 << 30) - 1, 1 << 30, (1 << 62) - 1])
def test_varints(number: int) -> None:
    assert Buffer(data=varint(number)).pull_uint_var() == number


class Ledger(QuicCongestionControl):
    """Notes what it is told; a sum does not depend on how it is divided into calls."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.acked: dict[float | None, int] = {}  # bytes by when they were sent
        self.events: list[tuple[Any, ...]] = []

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        self.bytes_in_flight += packet.sent_bytes

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        self.bytes_in_flight -= packet.sent_bytes
        self.acked[packet.sent_time] = self.acked.get(packet.sent_time, 0) + packet.sent_bytes

    def on_packets_expired(self, *, packets: Any) -> None:
        self._note("expired", packets)

    def on_packets_lost(self, *, now: float, packets: Any) -> None:
        self._note("lost", packets)

    def on_persistent_congestion(self) -> None:
        self.events.append(("persistent",))

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        self.events.append(("rtt", rtt))

    def _note(self, what: str, packets: Any) -> None:
        noted = list(packets)
        gone = sum(packet.sent_bytes for packet in noted)
        self.bytes_in_flight -= gone
        self.events.append((what, gone, len(noted), noted[0].packet_number, noted[-1].sent_time))


register_congestion_control("ledger", Ledger)


@dataclass
class Course:
    """One loss recovery and what it reported."""

    recovery: QuicPacketRecovery
    space: QuicPacketSpace
    acked: set[int] = field(default_factory=set)  # stream bytes
    lost: set[int] = field(default_factory=set)

    def on_delivery(self, state: QuicDeliveryState, start: int, stop: int, fin: bool) -> None:
        (self.acked if state is QuicDeliveryState.ACKED else self.lost).update(range(start, stop))

    def figures(self) -> tuple[Any, ...]:
        recovery, space = self.recovery, self.space
        return (
            recovery.bytes_in_flight,
            space.ack_eliciting_in_flight,
            space.largest_acked_packet,
            space.loss_time,
            recovery._rtt_smoothed,
            recovery._rtt_variance,
            recovery.get_loss_detection_time(amplification_limited=False),
            sum(map(count_of, space.sent_packets.values())),
        )


def course(kind: Callable[..., QuicPacketRecovery]) -> Course:
    space = QuicPacketSpace(is_application_data=True)
    recovery = kind(
        congestion_control_algorithm="ledger",
        initial_rtt=0.1,
        max_datagram_size=1350,
        peer_completed_address_validation=True,
        send_probe=lambda: None,
    )
    recovery.spaces, recovery.handshake_confirmed = [space], True
    return Course(recovery, space)


class Sender(QuicStreamSender):
    """Reports deliveries instead of keeping them."""

    def __init__(self, report: Any) -> None:
        super().__init__(0, True)
        self.on_data_delivery = report  # type: ignore[method-assign]


def send(batched: Course, single: Course, number: int, count: int, tail: bool, now: float) -> None:
    """The same packets, of ten bytes each (the last perhaps of four), as a batch and one by one."""
    start, stop = number * 10, (number + count) * 10 - (6 if tail else 0)
    batch = Batch(
        sender=Sender(batched.on_delivery), packet_number=number, count=count, packet_bytes=1350,
        sent_bytes=count * 1350 - (6 if tail else 0), chunk=10, start=start, stop=stop, fin=False,
        sent_time=now,
    )  # fmt: skip
    batched.recovery.on_packet_sent(packet=batch, space=batched.space)
    for one in range(number, number + count):
        end = min(one * 10 + 10, stop)
        packet = QuicSentPacket(
            epoch=Epoch.ONE_RTT, in_flight=True, is_ack_eliciting=True, is_crypto_packet=False,
            packet_number=one, packet_type=QuicPacketType.ONE_RTT, sent_time=now,
            sent_bytes=1350 - (6 if end < one * 10 + 10 else 0),
            delivery_handlers=[(single.on_delivery, (one * 10, end, False))],
        )  # fmt: skip
        single.recovery.on_packet_sent(packet=packet, space=single.space)


RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=4)
STEP = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 20), st.booleans()),
    st.tuples(
        st.just("ack"), st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), min_size=1, max_size=4)
    ),
    st.tuples(st.just("wait"), st.floats(0.0, 0.3)),
    st.tuples(st.just("timer")),
)


def next_backoff(recovery: QuicPacketRecovery) -> float:
    """What aioquic would wait after one more timeout; from `MAX_BACKOFF_SECONDS` on we wait no longer."""
    return float(recovery.get_probe_timeout() * 2 ** (recovery._pto_count + 1))


@given(steps=st.lists(STEP, max_size=40))
@example(
    steps=[("send", 1, False), ("wait", 0.25), ("ack", [(0, 1)]), ("send", 3, False), ("timer",), ("timer",)]
)
def test_recovery_does_for_batches_what_aioquic_does_for_packets(steps: list[Any]) -> None:
    """Whatever is sent, acknowledged and timed out: the same bytes acked and lost, times, counts, calls."""
    batched, single = course(partial(Recovery, path_mtu=PathMtu())), course(QuicPacketRecovery)
    number, now = 0, 100.0
    for step in steps:
        match step:
            case ("send", count, tail):
                send(batched, single, number, count, tail, now)
                number += count
            case ("ack", ranges) if number:
                acked = RangeSet()
                for back, length in ranges:
                    stop = max(1, number - back)
                    acked.add(max(0, stop - length), stop)
                for one in (batched, single):
                    one.recovery.on_ack_received(
                        ack_rangeset=acked, ack_delay=0.001, now=now, space=one.space
                    )
            case ("wait", seconds):
                now += seconds
            case ("timer",) if next_backoff(single.recovery) <= MAX_BACKOFF_SECONDS:
                for one in (batched, single):
                    one.recovery.on_loss_detection_timeout(now=now)
        assert batched.figures() == pytest.approx(single.figures())
        assert (batched.acked, batched.lost) == (single.acked, single.lost)
        ledgers: list[Any] = [one.recovery._cc for one in (batched, single)]
        assert ledgers[0].acked == ledgers[1].acked
        assert ledgers[0].events == ledgers[1].events
        numbers = [packet.packet_number for packet in batched.space.sent_packets.values()]
        assert numbers == sorted(numbers)
