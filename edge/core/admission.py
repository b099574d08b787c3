"""Whom an edge lets in: who may publish here, and how many pieces are served at once."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from shared.core.ids import HostPort, NodeId

SLOTS = 64  # pieces that a process sends at once: bounds its memory, 256 KiB each
MAX_WORKERS = 32


@dataclass(frozen=True, slots=True)
class Admission:
    """The rule for publishers: those named, and on request everybody on this machine."""

    publishers: frozenset[NodeId]
    local_publishers: bool
    own_host: str = ""  # this machine's address: who comes from it is on this machine

    def may_publish(self, node: NodeId, at: HostPort) -> bool:
        """Whether this node may hand in files."""
        return node in self.publishers or (self.local_publishers and self._is_local(at.host))

    def _is_local(self, host: str) -> bool:
        try:
            address = ip_address(host.split("%")[0])
        except ValueError:
            return False
        plain = getattr(address, "ipv4_mapped", None) or address
        return plain.is_loopback or str(plain) == self.own_host
