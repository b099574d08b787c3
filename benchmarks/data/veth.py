"""Two network namespaces joined by a virtual cable of 1500-byte frames: nothing coalesces on receipt."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MTU = 1500
SENDER_HOST = "198.18.77.1"  # RFC 2544: for benchmarks
RECEIVER_HOST = "198.18.77.2"


@dataclass(frozen=True, slots=True)
class Cable:
    """The namespaces at its ends."""

    sender: str
    receiver: str


def missing() -> str | None:
    """Why there can be no cable here, if so."""
    if os.geteuid() != 0:
        return "needs root for network namespaces"
    if shutil.which("ip") is None:
        return "ip not installed (apt install iproute2)"
    name = f"bench{os.getpid()}x"
    if _ip("netns", "add", name, check=False):
        return "network namespaces are not permitted here"
    _ip("netns", "delete", name)
    return None


@contextmanager
def cable() -> Iterator[Cable]:
    """A cable between two new namespaces, removed afterwards."""
    ends = Cable(f"bench{os.getpid()}s", f"bench{os.getpid()}r")
    try:
        for name in (ends.sender, ends.receiver):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", ends.sender, "link", "add", "end", "mtu", str(MTU), "type", "veth", "peer", "name", "end",
            "mtu", str(MTU), "netns", ends.receiver)  # fmt: skip
        for name, host in ((ends.sender, SENDER_HOST), (ends.receiver, RECEIVER_HOST)):
            _ip("-n", name, "address", "add", f"{host}/24", "dev", "end")
            _ip("-n", name, "link", "set", "end", "gso_max_segs", "1")  # or whole batches would pass uncut
            _ip("-n", name, "link", "set", "end", "up")
        yield ends
    finally:
        for name in (ends.sender, ends.receiver):
            _ip("netns", "delete", name, check=False)


def inside(namespace: str) -> list[str]:
    """What to put before a command so that it runs in a namespace, as the same process."""
    return ["ip", "netns", "exec", namespace]


def _ip(*words: str, check: bool = True) -> int:
    return subprocess.run(["ip", *words], check=check, capture_output=True).returncode
