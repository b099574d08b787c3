"""Frozen views of an endpoint, for screens, metrics and decisions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EndpointStatistics:
    """A frozen view of an endpoint. Bytes count IP and UDP headers: what the line carries."""

    connections: int
    half_open: int  # unfinished handshakes of strangers
    bytes_sent: int
    bytes_received: int
    datagrams_sent: int
    datagrams_received: int
    unsent_datagrams: int  # built, but the system refused them
    unwanted_datagrams: int  # garbage, or for nobody here
    astray_datagrams: int = 0  # of the unwanted: steered to us though another process issued their id
