"""Reading clocks around a stretch of time, and checking bytes by leaf."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

from benchmarks.data.orders import Order, Outcome
from shared.core.merkle import HASH_BYTES, LEAF_BYTES, leaves_of

BLOCK_BYTES = 16 << 20  # the payload is this block, over and over
_CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED, Linux include/linux/posix-timers.h


@dataclass(frozen=True, slots=True)
class Reading:
    """The clocks at one moment."""

    count: int
    at: float
    sender_cpu_seconds: float
    receiver_cpu_seconds: float

    @classmethod
    def take(cls, count: int, sender_pid: int) -> Reading:
        """Now."""
        return cls(count, time.perf_counter(), cpu_seconds(sender_pid), time.process_time())

    def until(self, later: Reading) -> Outcome:
        """What happened between this reading and a later one."""
        return Outcome(
            later.count - self.count,
            later.at - self.at,
            later.sender_cpu_seconds - self.sender_cpu_seconds,
            later.receiver_cpu_seconds - self.receiver_cpu_seconds,
        )


def cpu_seconds(pid: int) -> float:
    """CPU time that a living process and all its threads have used, to the nanosecond.

    /proc/PID/stat counts the same in hundredths of a second, too coarse for a capped sender.
    """
    return time.clock_gettime((~pid << 3) | _CLOCK_OF_PROCESS)


def resident_bytes(pid: int) -> int:
    """Memory that a process occupies."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@cache
def block() -> bytes:
    """The payload's block, the same in every process."""
    return Random(16384).randbytes(BLOCK_BYTES)


@cache
def leaf_hashes() -> list[bytes]:
    """SHA-256 of each leaf of the block."""
    row = leaves_of(block())
    return [row[at : at + HASH_BYTES] for at in range(0, len(row), HASH_BYTES)]


class LeafCheck:
    """Verifies every 16 KiB of a stream that repeats the block; raises ValueError at a wrong leaf."""

    def __init__(self) -> None:
        self._hashes = leaf_hashes()
        self._leaf = 0
        self._room = LEAF_BYTES
        self._hash = sha256()

    def feed(self, data: bytes) -> int:
        """Take the next bytes in order; bytes that became verified with them."""
        view = memoryview(data)
        verified = 0
        while len(view) >= self._room:
            self._hash.update(view[: self._room])
            view = view[self._room :]
            if self._hash.digest() != self._hashes[self._leaf]:
                raise ValueError(f"leaf {self._leaf} is wrong")
            verified += LEAF_BYTES
            self._leaf = (self._leaf + 1) % len(self._hashes)
            self._hash = sha256()
            self._room = LEAF_BYTES
        self._hash.update(view)
        self._room -= len(view)
        return verified


class Tally:
    """Counts what all connections of a receiver took."""

    def __init__(self, order: Order) -> None:
        self.count = 0
        self._order = order

    def read(self) -> Reading:
        """The clocks now."""
        return Reading.take(self.count, self._order.sender_pid)
