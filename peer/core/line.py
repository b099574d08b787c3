"""What the shell reads of the line, several times a second, for the upload cap."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counters:
    """What the kernel counted at the interface of the default route, everybody's traffic together."""

    sent_bytes: int  # with link headers
    sent_packets: int  # several datagrams that the device cuts itself count once
    link_header_bytes: int  # of one packet: 14 on Ethernet and wifi, 0 on tunnels


@dataclass(frozen=True, slots=True)
class Own:
    """What this process has sent since its start."""

    bytes: int  # IP and UDP headers counted
    datagrams: int
    header_bytes: int  # the part of `bytes` that is IP and UDP headers


@dataclass(frozen=True, slots=True)
class PathSample:
    """One connection since the last sample."""

    path: Hashable
    rtt_seconds: float | None  # the shortest measured; None: no acknowledgement came
    delivered_bytes: int  # acknowledged, of payload
    sent_datagrams: int
    lost_datagrams: int


@dataclass(frozen=True, slots=True)
class LineSample:
    """The line at `at`, a point on the shell's clock."""

    at: float
    own: Own
    counters: Counters | None  # None: the system shows none
    paths: tuple[PathSample, ...] = ()
    network: str = ""  # another name is another line
