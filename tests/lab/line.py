"""An access line: what stands between some hosts and the network, and how it is checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypedDict

FRAME_HEADER_BYTES = 14  # Ethernet; shapers and counters of the kernel include it
MIN_MTU = 1280  # of IPv6
MAX_MTU = 9000
MAX_HOSTS = 250  # on one line, and lines in one laboratory: both are a byte of an address
_NAME = re.compile(r"[a-z][a-z0-9]{0,15}\Z")


class LabError(Exception):
    """The laboratory was asked for something impossible, or a command of the system failed."""


def mbit(number: float) -> float:
    """Megabits per second as bytes per second."""
    return number * 1e6 / 8


@dataclass(frozen=True, slots=True)
class Line:
    """One access line with the hosts behind it, which share it as a household does.

    Rates are bytes per second of whole Ethernet frames. `delay_seconds` is added once in each
    direction, so that RTT(A, B) = 2 * (A + B). Losses are shares (0.01 is one in a hundred).
    A queue is drop-tail and as long as `queue_seconds` takes at full rate.
    """

    name: str
    up_rate: float = mbit(20)
    down_rate: float = mbit(100)
    delay_seconds: float = 0.0
    queue_seconds: float = 0.1
    up_loss: float = 0.0
    down_loss: float = 0.0
    mtu: int = 1500
    hosts: tuple[str, ...] = ()  # none named: one, of the line's own name

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem:
            raise LabError(f"line {self.name!r}: {problem}")

    def _problem(self) -> str | None:
        if not all(_NAME.match(name) for name in (self.name, *self.hosts)):
            return "names are a letter, then up to 15 letters and digits, all small"
        if not all(mbit(0.01) <= rate <= mbit(10_000) for rate in (self.up_rate, self.down_rate)):
            return "rates are bytes per second, from mbit(0.01) to mbit(10_000)"
        if not (0 <= self.delay_seconds <= 10 and 0 < self.queue_seconds <= 10):
            return "a delay is 0 to 10 seconds, a queue above 0 and up to 10"
        if not (0 <= self.up_loss <= 1 and 0 <= self.down_loss <= 1):
            return "a loss is a share from 0 to 1"
        if not MIN_MTU <= self.mtu <= MAX_MTU:
            return f"an mtu is {MIN_MTU} to {MAX_MTU} bytes"
        if len(set(self.hosts)) < len(self.hosts) or len(self.hosts) > MAX_HOSTS:
            return f"its hosts have different names and are at most {MAX_HOSTS}"
        return None

    @property
    def all_hosts(self) -> tuple[str, ...]:
        """The names of the hosts behind it, at least one."""
        return self.hosts or (self.name,)

    @property
    def is_plain(self) -> bool:
        """Neither delay nor loss: its packets need not wait for a user-space process."""
        return not (self.delay_seconds or self.up_loss or self.down_loss)


class LineChanges(TypedDict, total=False):
    """What may change about a line while the laboratory runs."""

    up_rate: float
    down_rate: float
    delay_seconds: float
    queue_seconds: float
    up_loss: float
    down_loss: float
