"""What the benchmark's processes tell each other: one line of JSON each way, and how they are bounded.

A child is started as `python -m benchmarks.data.NAME ROLE ORDER`; it prints one line when it is ready and,
if it measures, one line when it has measured. It dies with its parent and after `limit_seconds`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Order:
    """What a child is to do; each role reads what concerns it."""

    core: int | None = None  # pinned to it
    limit_seconds: float = 60.0  # the child is killed after so long
    folder: str = ""  # payload, certificates, torrent
    save_folder: str = ""  # where a downloader may write
    host: str = "127.0.0.1"
    port: int = 0
    node: str = ""  # hex id of the Penstock node to dial
    sender_pid: int = 0  # whose CPU time the receiver reads
    connections: int = 1
    request_bytes: int = 0  # 0: one endless stream per connection; else a stream per so many bytes
    warm_seconds: float = 0.3  # after the first byte, before measuring
    seconds: float = 2.0  # measured
    rate: float | None = None  # bytes/s that may leave the sender
    keep_alive_seconds: float = 20.0
    path_rate: float = 40e6  # of the relay, bytes/s
    rtt_seconds: float = 0.0  # that the relay adds
    loss: float = 0.0  # share of datagrams that the relay drops at random, each way
    queue_bytes: int = 1 << 20  # before the relay's bottleneck
    seed: int = 1
    workers: int = 1  # processes that the sender has on its port
    steered: bool = True  # by connection id; else as the kernel does without being told
    worker_pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """A child listens."""

    port: int = 0
    pid: int = 0  # whose CPU time counts, if not the child's own
    node: str = ""
    pids: tuple[int, ...] = ()  # of workers


@dataclass(frozen=True, slots=True)
class Counts:
    """Datagrams that all workers of a sender received."""

    received: int
    unwanted: int  # for nobody there
    astray: int  # of these: steered to another worker than their connection's


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a receiver measured."""

    count: int  # bytes verified, or handshakes
    seconds: float
    sender_cpu_seconds: float
    receiver_cpu_seconds: float


def play(roles: Mapping[str, Callable[[Order], None]]) -> None:
    """The main of a child: its role and its order come from the command line."""
    order = msgspec.json.decode(sys.argv[2], type=Order)
    restrain(order.core, order.limit_seconds)
    roles[sys.argv[1]](order)


def restrain(core: int | None, limit_seconds: float) -> None:
    """Pin this process to a core, and let it end with its parent or after so long at the latest."""
    die_with_parent()
    signal.setitimer(signal.ITIMER_REAL, limit_seconds)
    if core is not None:
        os.sched_setaffinity(0, {core})


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def say(line: object) -> None:
    """One line to the parent."""
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()
