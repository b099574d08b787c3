"""The one clock the shells hand to the cores: as steady as monotonic, as readable as wall time.

Tickets carry expiry times that other machines must understand, timers must not jump when the
wall clock is set. So: wall time once at start, monotonic steps from there on.
"""

from __future__ import annotations

import time

_OFFSET = time.time() - time.monotonic()


def now() -> float:
    """Seconds since 1970, never stepping back or jumping while the process lives."""
    return time.monotonic() + _OFFSET
