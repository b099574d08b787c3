"""The one clock the shells hand to the cores: as steady as monotonic, as readable as wall time.

Tickets carry expiry times that other machines must understand, timers must not jump when the
wall clock is set. So: wall time once at start, steady steps from there on, counted also while
the machine sleeps: a ticket must not outlive its hours in a closed laptop.
"""

from __future__ import annotations

import time

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # only Linux counts the sleep
_offset = time.time() - time.clock_gettime(_STEADY)


def now() -> float:
    """Seconds since 1970, never stepping back while the process lives."""
    return time.clock_gettime(_STEADY) + _offset


def offset() -> float:
    """What makes this machine's steady clock ours; for a process that shall have the same time."""
    return _offset


def agree(offset: float) -> None:
    """From now on this process has the time of the one that said its `offset`. Call before anything else."""
    global _offset
    _offset = offset
