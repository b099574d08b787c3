"""What an endpoint tells of itself."""

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
