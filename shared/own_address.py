"""The address that others dial, for a socket that listens on all of them."""

from __future__ import annotations

import socket

from shared.core.ids import HostPort

_ALL = ("0.0.0.0", "::")


def reachable(bound: HostPort) -> HostPort:
    """`bound`, or this machine's own address with its port if that stands for all addresses."""
    return HostPort(own_host(), bound.port) if bound.host in _ALL else bound


def own_host() -> str:
    """This machine's address as its default route sees it; loopback without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address; connecting UDP sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
