"""Traffic between hosts: round-trip times, and TCP flows as a household or a competitor makes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil

from tests.lab.child import Child
from tests.lab.lab import Lab

HEADROOM_SECONDS = 20.0  # for queues to drain and a busy machine


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Round-trip times in seconds, in the order of sending; None where no answer came."""

    seconds: tuple[float | None, ...]

    @property
    def answered(self) -> list[float]:
        """Those that came back, shortest first."""
        return sorted(rtt for rtt in self.seconds if rtt is not None)

    @property
    def lost(self) -> tuple[int, ...]:
        """Which ones, counting from 0, did not come back."""
        return tuple(number for number, rtt in enumerate(self.seconds) if rtt is None)

    def percentile(self, share: float) -> float:
        """The time that `share` of the answers (0.5 is the median) did not exceed. Raises ValueError."""
        answered = self.answered
        if not answered or not 0 <= share <= 1:
            raise ValueError("no answer came, or the share is not between 0 and 1")
        return answered[max(0, ceil(share * len(answered)) - 1)]


@dataclass(frozen=True, slots=True)
class Pinging:
    """Datagrams on their way to and from an echo."""

    asking: Child
    echo: Child
    duration_seconds: float

    def result(self) -> RoundTrips:
        """Waits for the last answer, or a second after the last question."""
        said = self.asking.result(self.duration_seconds + HEADROOM_SECONDS)
        self.echo.result()
        return RoundTrips(tuple(json.loads(said)))


def start_ping(
    lab: Lab,
    client: str,
    server: str,
    *,
    count: int = 50,
    interval_seconds: float = 0.01,
    payload_bytes: int = 64,
    ipv6: bool = False,
) -> Pinging:
    """Sends `count` datagrams from `client` that an echo on `server` answers."""
    address = lab.address6(server) if ipv6 else lab.address(server)
    echo = lab.start_child(server, "probe", "echo", address)
    figures = (str(count), str(interval_seconds), str(payload_bytes))
    asking = lab.start_child(client, "probe", "ask", address, echo.first_line, *figures)
    return Pinging(asking, echo, count * interval_seconds)


def ping(
    lab: Lab,
    client: str,
    server: str,
    *,
    count: int = 50,
    interval_seconds: float = 0.01,
    payload_bytes: int = 64,
    ipv6: bool = False,
) -> RoundTrips:
    """`start_ping` and its result."""
    return start_ping(
        lab,
        client,
        server,
        count=count,
        interval_seconds=interval_seconds,
        payload_bytes=payload_bytes,
        ipv6=ipv6,
    ).result()


@dataclass(frozen=True, slots=True)
class Received:
    """What a flow's receiver got, from its first byte to its last."""

    payload_bytes: int
    seconds: float

    @property
    def payload_rate(self) -> float:
        """Bytes per second, without any headers."""
        return self.payload_bytes / self.seconds


@dataclass(frozen=True, slots=True)
class Flow:
    """One TCP connection that sends."""

    source: Child
    sink: Child
    duration_seconds: float

    def result(self) -> Received:
        """Ends it if its time is not over (see `wait`), lets the receiver get the rest."""
        self.source.result()
        return Received(**json.loads(self.sink.result(HEADROOM_SECONDS)))

    def wait(self) -> Received:
        """Waits until its time is over and the receiver has all."""
        self.source.process.wait(self.duration_seconds + HEADROOM_SECONDS)
        return self.result()


def start_flow(
    lab: Lab,
    sender: str,
    receiver: str,
    *,
    seconds: float,
    rate: float = 0.0,
    congestion_control: str = "cubic",
    ipv6: bool = False,
) -> Flow:
    """A TCP flow for so many seconds, as fast as it can or, if given, at `rate` bytes per second."""
    address = lab.address6(receiver) if ipv6 else lab.address(receiver)
    sink = lab.start_child(receiver, "probe", "sink", address)
    figures = (str(seconds), str(rate), congestion_control)
    source = lab.start_child(sender, "probe", "source", address, sink.first_line, *figures)
    return Flow(source, sink, seconds)
