"""What a node's shell measures of its line, for its core to report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes per second now, bytes on the wire since start, bytes in the store, connections."""

    up_rate: float
    down_rate: float
    uploaded_bytes: int
    held_bytes: int
    connections: int
