"""Engines joined in virtual time by a bad network; same seed, same course. Either may be bare aioquic."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived, StreamReset

from shared.quic import QuicEngine
from shared.quic_settings import configure
from tests.quic_pair import FAR, NEAR

ADDRESSES = (("far", 1), ("near", 1))  # whom each side hears


@dataclass
class Side:
    """One connection in virtual time and what arrived at it."""

    engine: Any  # QuicEngine or QuicConnection
    received: bytearray = field(default_factory=bytearray)
    is_ready: bool = False
    is_at_end: bool = False
    streams: dict[int, bytearray] = field(default_factory=dict)  # received, each on its own
    finished: set[int] = field(default_factory=set)  # streams with all their bytes
    broken: set[int] = field(default_factory=set)  # streams that the other side reset
    reads: bool = True  # what arrives makes room for more

    def send(self, now: float, *, gated: bool, turn: int = 0) -> list[bytes]:
        """The datagrams to send now, one by one."""
        if not isinstance(self.engine, QuicEngine):
            return [data for data, _ in self.engine.datagrams_to_send(now)] if self.is_started else []
        sent: list[bytes] = []

        def out(data: bytes | memoryview, segment_bytes: int, recipient: Any) -> None:
            sent.extend(bytes(data[at : at + segment_bytes]) for at in range(0, len(data), segment_bytes))

        self.engine.send(now, out, gated=gated, turn=turn)
        return sent

    def receive(self, datagrams: list[bytes], sender: Any, now: float) -> None:
        """Datagrams that came in a row; those of one length reach an engine as one buffer."""
        while datagrams:
            size = len(datagrams[0])
            count = next((n for n, one in enumerate(datagrams) if len(one) != size), len(datagrams))
            if count < len(datagrams) and len(datagrams[count]) < size:
                count += 1  # the last may be shorter
            joined, datagrams = datagrams[:count], datagrams[count:]
            if isinstance(self.engine, QuicEngine):
                joined = self.engine.receive_batch(memoryview(bytearray(b"".join(joined))), size, sender, now)
            for datagram in joined:
                self.engine.receive_datagram(datagram, sender, now)
            self.take_events()

    @property
    def is_started(self) -> bool:
        """A server only is once it was heard of."""
        return bool(self.engine._network_paths)

    def take_events(self) -> None:
        """What happened."""
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self.is_ready = True
            if isinstance(event, StreamReset):
                self.broken.add(event.stream_id)
            if isinstance(event, StreamDataReceived):
                self.received += event.data
                self.is_at_end |= event.end_stream
                self.streams.setdefault(event.stream_id, bytearray()).extend(event.data)
                if event.end_stream:
                    self.finished.add(event.stream_id)
                if isinstance(self.engine, QuicEngine) and self.reads:
                    self.engine.consume(event.stream_id, len(event.data))


class World:
    """Two sides and a network that loses, doubles and delays."""

    def __init__(self, seed: int, loss: float, doubled: float, stock: tuple[str, ...] = ()) -> None:
        self.now = 1000.0
        self.mangle: Callable[[bytes], bytes] = lambda datagram: datagram
        self.passes: Callable[[bytes], bool] = lambda datagram: True
        self.lateness: Callable[[], float] = lambda: 0.0  # seconds, of single datagrams
        self.overtakes = True  # one pass may overtake another
        self.addresses: list[Any] = list(ADDRESSES)  # whom each side hears; they may move
        self._dice = random.Random(seed)
        self._loss, self._doubled = loss, doubled
        self._flying: list[tuple[float, int, int, bytes]] = []
        self._serial = 0
        client: Any = QuicEngine(NEAR, is_client=True, idle_timeout_seconds=30)
        if "client" in stock:
            client = QuicConnection(configuration=configure(NEAR, True, 30))
        client.connect(ADDRESSES[0], self.now)
        original_id = client.original_destination_connection_id
        server: Any = QuicEngine(
            FAR, is_client=False, idle_timeout_seconds=30, original_destination_connection_id=original_id
        )
        if "server" in stock:
            server = QuicConnection(
                configuration=configure(FAR, False, 30), original_destination_connection_id=original_id
            )
        self.sides = (Side(client), Side(server))
        self.bytes_out = 0

    def step(self, gated: bool = False) -> None:
        """Send what can be sent, and go on to the next happening."""
        for index, side in enumerate(self.sides):
            datagrams = side.send(self.now, gated=gated)
            while isinstance(side.engine, QuicEngine) and side.engine.has_more:
                datagrams += side.send(self.now, gated=gated)
            if isinstance(side.engine, QuicEngine) and side.engine.wants_turn:
                datagrams += side.send(self.now, gated=True, turn=self._dice.choice([1, 3, 60]))
            delay = 0.01 + self._dice.random() * 0.02 if self.overtakes else 0.02
            for datagram in datagrams:
                self._fly(1 - index, datagram, delay)
            side.take_events()
        timers = [side.engine.get_timer() for side in self.sides]
        self.now = min([flight[0] for flight in self._flying] + [at for at in timers if at is not None])
        self.now += 1e-6
        self._arrive()
        for side, timer in zip(self.sides, timers, strict=True):
            if timer is not None and timer <= self.now:
                side.engine.handle_timer(self.now)

    def shake_hands(self) -> None:
        """Go on until both are ready, and know that the other is."""
        while not all(side.is_ready and side.engine._handshake_confirmed for side in self.sides):
            self.step()

    def throw(self, index: int, datagram: bytes) -> None:
        """Somebody else's datagram, which reaches a side next."""
        self._serial += 1
        self._flying.append((self.now, self._serial, index, datagram))

    def _fly(self, index: int, datagram: bytes, delay: float) -> None:
        self.bytes_out += len(datagram)
        if not self.passes(datagram):
            return
        for _ in range(1 + (self._dice.random() < self._doubled)):
            if self._dice.random() >= self._loss:
                own_delay = self._dice.random() * 0.02 if self._dice.random() < self._loss else 0.0
                self._serial += 1
                lands_at = self.now + delay + own_delay + self.lateness()
                self._flying.append((lands_at, self._serial, index, self.mangle(datagram)))

    def _arrive(self) -> None:
        landed = sorted(flight for flight in self._flying if flight[0] <= self.now)
        self._flying = [flight for flight in self._flying if flight[0] > self.now]
        for index, side in enumerate(self.sides):
            side.receive([data for _, _, to, data in landed if to == index], self.addresses[index], self.now)
