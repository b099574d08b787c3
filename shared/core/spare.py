"""Classes of spare upload: eight steps, each twice the one before, so that nodes write only
when it matters and the tracker keeps holders in buckets instead of sorting them.

class 0 is nothing to give; class n >= 1 means at least 64 KiB/s * 2**(n - 1) to spare.
"""

from __future__ import annotations

SMALLEST_RATE = 64 * 1024
HIGHEST = 7


def class_of(rate: float) -> int:
    """The class of a spare rate in bytes per second."""
    steps = int(rate / SMALLEST_RATE)
    return min(HIGHEST, steps.bit_length()) if rate > 0 else 0


def rate_of(spare: int) -> float:
    """The least rate of a class, bytes per second."""
    return SMALLEST_RATE * 2.0 ** (spare - 1) if spare > 0 else 0.0
