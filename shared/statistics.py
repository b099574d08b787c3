"""Frozen views of an endpoint and of a connection, for screens, metrics and decisions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndpointStatistics:
    """A frozen view of an endpoint. Bytes count IP and UDP headers: what the line carries."""

    connections: int
    half_open: int  # unfinished handshakes of strangers
    bytes_sent: int
    header_bytes_sent: int  # of these
    bytes_received: int
    datagrams_sent: int
    datagrams_received: int
    unsent_datagrams: int  # built, but the system refused them
    unwanted_datagrams: int  # garbage, or for nobody here
    astray_datagrams: int = 0  # of the unwanted: steered to us though another process issued their id


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """A frozen view of one connection. Bytes are UDP payloads, without headers."""

    bytes_sent: int
    bytes_received: int
    datagrams_sent: int
    datagrams_received: int
    lost_datagrams: int
    rtt_seconds: float  # smoothed; 0 before the first sample
    window_bytes: int  # congestion window
    in_flight_bytes: int
    datagram_bytes: int  # the largest that the path is known to carry
    streams: int
