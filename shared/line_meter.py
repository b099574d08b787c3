"""What an endpoint's line carries, for screens and reports."""

from __future__ import annotations

from shared import clock
from shared.core.rate import RateMeter
from shared.endpoint import Endpoint


class LineMeter:
    """Bytes per second each way, headers included; call `read` every second or so."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._up, self._down = RateMeter(), RateMeter()
        self._sent = self._received = 0

    @property
    def connections(self) -> int:
        """Established connections."""
        return self._endpoint.statistics().connections

    def read(self) -> None:
        """Takes in what passed since the last time."""
        now, wire = clock.now(), self._endpoint.statistics()
        self._up.add(wire.bytes_sent - self._sent, now)
        self._down.add(wire.bytes_received - self._received, now)
        self._sent, self._received = wire.bytes_sent, wire.bytes_received

    def up_rate(self) -> float:
        """Bytes per second that left lately."""
        return self._up.rate(clock.now())

    def down_rate(self) -> float:
        """Bytes per second that came lately."""
        return self._down.rate(clock.now())
