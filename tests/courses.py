"""Courses of two engines over a hostile virtual network; `python -m tests.courses` runs many.

The invariant: every byte of a stream arrives once and in order, or the stream ends by a reset that one
side asked for, or the connection does, with a reason. Whatever the network loses, doubles, delays,
damages, cuts short, joins or forges: neither engine raises, and what it holds stays bounded.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aioquic.quic.connection import MAX_NETWORK_PATHS, QuicConnectionState
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.recovery import MAX_ACK_RANGES

from shared.core.errors import Reason
from shared.quic import QuicEngine
from shared.quic.recovery import MAX_KEPT_ACKS, Batch
from shared.quic_settings import CONNECTION_WINDOW_BYTES, MAX_GAPS
from tests.engines import World

MOST_STEPS = 60_000
LOSS_THAT_MAY_END_IT = 0.35  # above it, thirty seconds of silence are a matter of luck;
LOSS_WHILE_MOVING = 0.09  # a new address is validated by a single datagram
LOSS_FOR_STOCK = 0.2  # for aioquic, whose waits double without end, sooner
SIZES = [0, 1, 1100, 1183, 5_000, 60_000, 250_000]
STOCK: list[tuple[str, ...]] = [(), (), (), ("client",), ("server",)]
SOME = random.Random(9).randbytes(max(SIZES))


@dataclass(frozen=True, slots=True)
class Weather:
    """How hostile the network is: shares of all datagrams."""

    loss: float = 0.0
    doubled: float = 0.0
    damaged: float = 0.0
    cut: float = 0.0
    joined: float = 0.0
    late: float = 0.0  # by up to half a second
    forged: float = 0.0  # datagrams of a stranger, per step
    moves: float = 0.0  # changes of the client's address, per step


def any_weather(dice: random.Random) -> Weather:
    """Weather of all kinds, fair and foul."""
    shares = [0.0, 0.0, 0.01, 0.05]
    return Weather(
        loss=dice.choice([0.0, 0.02, 0.1, 0.3]),
        doubled=dice.choice(shares),
        damaged=dice.choice(shares),
        cut=dice.choice(shares),
        joined=dice.choice(shares),
        late=dice.choice(shares),
        forged=dice.choice([0.0, 0.0, 0.2]),
        moves=dice.choice([0.0, 0.0, 0.01]),
    )


@dataclass
class Course:
    """One course; the same seed and weather make the same one."""

    seed: int
    weather: Weather
    stock: tuple[str, ...] = ()
    written: list[dict[int, bytes]] = field(default_factory=lambda: [{}, {}], repr=False)  # by each side
    given_up: set[int] = field(default_factory=set)  # streams reset or stopped

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self.world = World(self.seed, self.weather.loss, self.weather.doubled, self.stock)
        self.world.mangle = self._mangle
        self.world.lateness = self._lateness
        self._kept = b""
        self._seen: list[bytes] = []  # that a forger may send again, changed
        self._gated = self._dice.random() < 0.3
        self._closes_at = self._dice.randrange(400) if self._dice.random() < 0.2 else None
        self._closed_by: int | None = None

    def run(self) -> str:
        """How it ended: "done", "closed" or "timeout". Raises AssertionError if the invariant is broken."""
        for step in range(MOST_STEPS):
            if all(side.engine._state is QuicConnectionState.TERMINATED for side in self.world.sides):
                return self._ended()
            self.world.step(self._gated)
            self._write()
            self._meddle(step)
            self._check()
            if self._is_done():
                return "done"
        raise AssertionError(f"{self}: no end")

    def _write(self) -> None:
        for index, side in enumerate(self.world.sides):
            if not side.is_ready or self.written[index]:
                continue
            for _ in range(self._dice.randrange(1, 4)):
                stream_id = side.engine.get_next_available_stream_id()
                data = SOME[: self._dice.choice(SIZES)]
                side.engine.send_stream_data(stream_id, data, end_stream=True)
                self.written[index][stream_id] = data

    def _meddle(self, step: int) -> None:
        dice, world = self._dice, self.world
        if dice.random() < self.weather.forged:
            index = dice.randrange(2)
            if isinstance(world.sides[index].engine, QuicEngine):
                world.throw(index, self._forgery(world.sides[index].engine))
        if dice.random() < self.weather.moves:
            world.addresses[1] = ("near", dice.randrange(1, 1000))
        if dice.random() < 0.002:
            self._give_up(dice.randrange(2))
        if step == self._closes_at:
            self._closed_by = dice.randrange(2)
            if world.sides[self._closed_by].is_ready:
                world.sides[self._closed_by].engine.close(int(Reason.CANCELLED), None, "enough")
            else:
                self._closed_by = None

    def _give_up(self, index: int) -> None:
        """One side resets a stream that it sends, or stops one that it receives."""
        side = self.world.sides[index]
        if side.engine._close_event or not side.is_ready:
            return
        sends = self._dice.random() < 0.5
        stream_id = self._dice.choice([*self.written[index if sends else 1 - index], None])
        if stream_id is None or stream_id not in side.engine._streams:
            return
        self.given_up.add(stream_id)
        if sends:
            side.engine.reset_stream(stream_id, 7)
        else:
            side.engine.stop_stream(stream_id, 7)

    def _mangle(self, datagram: bytes) -> bytes:
        dice, weather = self._dice, self.weather
        if len(self._seen) < 200:
            self._seen.append(datagram)
        if dice.random() < weather.damaged:
            at = dice.choice([0, 1, 5, 6, 9, 10, 11, 12, len(datagram) - 1, dice.randrange(len(datagram))])
            damaged = bytearray(datagram)
            damaged[min(at, len(datagram) - 1)] ^= 1 << dice.randrange(8)
            return bytes(damaged)
        if dice.random() < weather.cut:
            return datagram[: dice.randrange(1, len(datagram))]
        if dice.random() < weather.joined and self._kept:
            return self._kept + datagram
        self._kept = datagram
        return datagram

    def _lateness(self) -> float:
        return self._dice.random() / 2 if self._dice.random() < self.weather.late else 0.0

    def _forgery(self, engine: QuicEngine) -> bytes:
        dice = self._dice
        noise = dice.randbytes(dice.choice([1, 20, 60, 1200, 1400]))
        match dice.randrange(4):
            case 0:
                return noise
            case 1:
                return bytes([0x40 | dice.randrange(64)]) + engine.host_cid + noise
            case 2:
                kind = bytes([0xC0 | dice.randrange(64)]) + b"\0\0\0\x01\x08"
                return kind + engine.host_cid + b"\x08" + noise
        known = bytearray(dice.choice(self._seen or [noise]))
        for _ in range(dice.randrange(1, 4)):
            known[dice.randrange(len(known))] = dice.randrange(256)
        return bytes(known)

    def _check(self) -> None:
        for index, side in enumerate(self.world.sides):
            written = self.written[1 - index]
            for stream_id, received in side.streams.items():
                assert written[stream_id].startswith(received), f"{self}: other bytes on {stream_id}"
                if stream_id in side.finished:
                    assert len(received) == len(written[stream_id]), f"{self}: an early end of {stream_id}"
            assert side.broken <= self.given_up, f"{self}: a reset that nobody asked for"
            if isinstance(side.engine, QuicEngine):
                self._check_bounds(side.engine)

    def _check_bounds(self, engine: Any) -> None:
        for space in engine._loss.spaces:
            assert len(space.ack_queue) <= MAX_ACK_RANGES, f"{self}: acknowledgements pile up"
            in_flight = sum(1 for packet in space.sent_packets.values() if packet.in_flight)
            assert len(space.sent_packets) - in_flight <= MAX_KEPT_ACKS + 1, f"{self}: kept acknowledgements"
            batches = [packet for packet in space.sent_packets.values() if isinstance(packet, Batch)]
            assert sum(batch.count for batch in batches) < 1 << 15, f"{self}: numbers are not unambiguous"
        for stream in engine._streams.values():
            assert len(stream.receiver._ranges) <= MAX_GAPS + 1
            assert len(stream.receiver._buffer) <= CONNECTION_WINDOW_BYTES
        assert len(engine._network_paths) <= MAX_NETWORK_PATHS

    def _is_done(self) -> bool:
        if self._closed_by is not None or not all(self.written):
            return False
        done = [side.finished | side.broken | self.given_up for side in self.world.sides]
        return set(self.written[0]) <= done[1] and set(self.written[1]) <= done[0]

    def _ended(self) -> str:
        ends = [side.engine._close_event for side in self.world.sides]
        if self._closed_by is not None:
            codes = [(end.error_code, end.reason_phrase) for end in ends]
            assert codes[self._closed_by] == (int(Reason.CANCELLED), "enough"), f"{self}: {ends}"
            other = codes[1 - self._closed_by]
            # Before the handshake is confirmed only that it ended is told (RFC 9000 section 10.2.3).
            unsaid = (int(QuicErrorCode.APPLICATION_ERROR), "")
            assert other in (codes[self._closed_by], unsaid, (1, "Idle timeout")), f"{self}: {ends}"
            return "closed"
        phrases = {end.reason_phrase for end in ends}
        weather = self.weather
        missing = weather.loss + weather.damaged + weather.cut + weather.joined
        is_hopeless = missing > (LOSS_FOR_STOCK if self.stock else LOSS_THAT_MAY_END_IT)
        is_hopeless |= weather.moves > 0 and missing > LOSS_WHILE_MOVING
        assert is_hopeless, f"{self}: {ends}"
        assert phrases <= {"Idle timeout", "No validated network path", "nothing is acknowledged"}, (
            f"{self}: {ends}"
        )
        return "timeout"


def main() -> None:
    """Run courses until the time is up; print how many, and how they ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=None, help="run one course only")
    options = parser.parse_args()
    logging.getLogger("quic").setLevel(logging.CRITICAL)
    if options.seed is not None:
        print(options.seed, course_of(options.seed).run())
        return
    seed, ends = random.randrange(1 << 40), Counter[str]()
    until = time.monotonic() + options.seconds
    print(f"courses from seed {seed} on, for {options.seconds:g} s", flush=True)
    while time.monotonic() < until:
        ends[course_of(seed).run()] += 1
        seed += 1
    print(f"{ends.total()} courses held: " + ", ".join(f"{n} {how}" for how, n in sorted(ends.items())))


def course_of(seed: int) -> Course:
    """The course of a seed, with weather and strangers of its own."""
    dice = random.Random(seed)
    return Course(seed, any_weather(dice), dice.choice(STOCK))


if __name__ == "__main__":
    main()
