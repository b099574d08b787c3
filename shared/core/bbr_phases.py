"""The phases of BBR's machine, and how each of them sends: its rules, as a table.

    STARTUP --> DRAIN --> DOWN --> CRUISE --> REFILL --> UP
                           ^                              |
                           +------------------------------+        PROBE_RTT from anywhere, every 5 s

    STARTUP    double the rate every round trip, until it grows no more or losses are plain
    DRAIN      let the queue that this made run empty
    DOWN       a little slower than the path: leave room for others
    CRUISE     as fast as the path; losses lower the short-term bounds
    REFILL     forget the short-term bounds and fill the path, for one round trip
    UP         faster than the path, until it is full or loses over 2 %: what fitted is the long-term bound
    PROBE_RTT  half of what fits, for 200 ms, so that queues drain and the shortest round trip shows

Source: draft-ietf-ccwg-bbr, "State Machine" and "Summary of Control Behavior".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """What the machine is finding out."""

    STARTUP = "startup"
    DRAIN = "drain"
    DOWN = "down"
    CRUISE = "cruise"
    REFILL = "refill"
    UP = "up"
    PROBE_RTT = "probe rtt"


@dataclass(frozen=True, slots=True)
class Tactic:
    """How a phase sends."""

    pace: float  # relative to the believed rate
    window: float  # relative to what fits into the path
    probes: bool  # losses are the probe's answer, and do not lower the short-term bounds


TACTICS = {
    Phase.STARTUP: Tactic(2.77, 2.0, True),  # 4 ln 2: the least that doubles every round trip
    Phase.DRAIN: Tactic(0.5, 2.0, False),
    Phase.DOWN: Tactic(0.9, 2.0, False),
    Phase.CRUISE: Tactic(1.0, 2.0, False),
    Phase.REFILL: Tactic(1.0, 2.0, True),
    Phase.UP: Tactic(1.25, 2.25, True),
    Phase.PROBE_RTT: Tactic(1.0, 0.5, False),
}
CYCLE = (Phase.DOWN, Phase.CRUISE, Phase.REFILL, Phase.UP)


@dataclass(frozen=True, slots=True)
class BbrStatistics:
    """What the controller believes and allows. Rates in bytes/s; `inf` is unbounded or unknown."""

    phase: Phase
    window_bytes: int
    in_flight_bytes: int
    pacing_rate: float
    bandwidth: float  # highest rate delivered lately
    min_rtt_seconds: float
    bound_bytes: float  # long-term bound on what is in flight
    short_rate: float  # short-term bounds
    short_bytes: float
    crowded: bool  # somebody else keeps a queue standing
    app_limited: bool
    rounds: int
    delivered_bytes: int
    lost_bytes: int
