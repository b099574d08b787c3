"""The process that reads the network's counters: `python -m tests.lab.sampler FILE SECONDS`.

It appends a line per sample, `MONOTONIC_SECONDS DEVICE RX_BYTES RX_PACKETS TX_BYTES TX_PACKETS DEVICE ...`,
says `ready` after the first, and takes a last one when standard input ends. It runs beside the
programs that are judged: they can neither see nor change what it counts.
"""

from __future__ import annotations

import os
import select
import sys
import time

from tests.lab.punctual import be_punctual


def counters(file: int) -> str:
    """Every device's counters, out of an open /proc/net/dev."""
    text = b""
    while part := os.pread(file, 1 << 16, len(text)):
        text += part
    rows = [row.replace(":", " ").split() for row in text.decode().splitlines()[2:]]
    return " ".join(f"{row[0]} {row[1]} {row[2]} {row[9]} {row[10]}" for row in rows)


def main(path: str, interval_seconds: float) -> None:
    """Samples until standard input ends."""
    be_punctual()
    device_file = os.open("/proc/thread-self/net/dev", os.O_RDONLY)
    start_at, tick, ended = time.monotonic(), 0, False
    with open(path, "a", encoding="ascii", buffering=1) as out:  # noqa: PTH123  # pathlib costs start-up
        while True:
            before_at = time.monotonic()
            row = counters(device_file)
            out.write(f"{(before_at + time.monotonic()) / 2:.6f} {row}\n")
            if ended:
                return
            if tick == 0:
                print("ready", flush=True)
            tick += 1
            wait_seconds = start_at + tick * interval_seconds - time.monotonic()
            ended = bool(select.select([sys.stdin], [], [], max(0.0, wait_seconds))[0])


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
