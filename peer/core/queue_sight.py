"""How long packets wait before our line, seen from the round trips of all connections.

A connection's round trip is its path's own length and the time spent in queues. Its length is the
shortest seen in ten minutes (as LEDBAT, RFC 6817, keeps it, there one-way). What is above it may
wait anywhere: at our line, at the other side's, in a slow wifi on the way. But a queue at *our* line is
in every connection's round trip. So the figure is what the *lower quarter* of the connections agree
on: one far path, one slow receiver or one noisy wifi does not count, and the lowest few of many may err.

A connection made while a queue stands would take it for the path's length. Its first round trip is
therefore taken less the queue seen by the others at that moment.

They *agree* when it is about as long for all: a queue at our line is the same for everybody, queues at
slow receivers differ. Where they do not agree the shortest counts, since no queue at our line can be
longer; and only a queue on which they agree says anything about what our line carries.

The price of round trips: acknowledgements that wait in a queue on the way *to* us count as well, so a
downlink that is full makes us upload less. LEDBAT's one-way delays would tell them apart; QUIC has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf

from peer.core.line import PathSample

NOISE_SECONDS = 0.6  # of which the shortest round trip counts: jitter and late timers are not queues
AGREEING = 4  # a quarter of the connections
SPAN_SECONDS, SPANS = 60.0, 10  # how long the shortest round trip is remembered
ALIKE_SHARE, ALIKE_SECONDS = (
    0.5,
    0.01,
)  # of the lower quarter, and more, that the upper quarter may be over it
FORGET_SECONDS = 120.0  # a connection that is silent so long is gone


@dataclass(slots=True)
class _Path:
    heard_at: float
    recent: deque[tuple[float, float]] = field(default_factory=deque)  # time, round trip
    shortest: deque[tuple[float, float]] = field(default_factory=deque)  # begin of a span, round trip

    def heard(self, rtt: float, length: float, now: float) -> None:
        self.heard_at = now
        self.recent.append((now, rtt))
        if not self.shortest or now >= self.shortest[-1][0] + SPAN_SECONDS:
            self.shortest.append((now, min(rtt, length)))
            if len(self.shortest) > SPANS:
                self.shortest.popleft()
        elif rtt < self.shortest[-1][1]:
            self.shortest[-1] = (self.shortest[-1][0], rtt)

    def wait(self, now: float) -> float | None:
        while self.recent and self.recent[0][0] < now - NOISE_SECONDS:
            self.recent.popleft()
        if not self.recent:
            return None
        return max(0.0, min(rtt for _, rtt in self.recent) - min(rtt for _, rtt in self.shortest))


class QueueSight:
    """Seconds that packets wait before the line, as far as round trips tell."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.agreed = False  # by at least two connections
        self._paths: dict[Hashable, _Path] = {}

    def sample(self, paths: tuple[PathSample, ...], now: float) -> None:
        """Take in the round trips since the last time."""
        for one in paths:
            if one.rtt_seconds is None:
                continue
            path = self._paths.get(one.path)
            length = inf
            if path is None:
                path = self._paths[one.path] = _Path(now)
                length = max(0.0, one.rtt_seconds - self.seconds)
            path.heard(one.rtt_seconds, length, now)
        waits = sorted(wait for path in self._paths.values() if (wait := path.wait(now)) is not None)
        quarter = (len(waits) - 1) // AGREEING
        lower, upper = (waits[quarter], waits[-1 - quarter]) if waits else (0.0, 0.0)
        is_alike = upper <= lower * (1 + ALIKE_SHARE) + ALIKE_SECONDS
        self.agreed = len(waits) > 1 and is_alike
        self.seconds = lower if is_alike else waits[0]
        for key in [key for key, path in self._paths.items() if path.heard_at < now - FORGET_SECONDS]:
            del self._paths[key]

    def moved(self) -> None:
        """Another network, or a clock that jumped: other lengths."""
        self._paths.clear()
        self.seconds, self.agreed = 0.0, False
