"""Names of things: nodes, swarms, titles, and the one-string addresses that people copy.

Every identifier is checked once, where it enters (parse, don't validate); inside, the
distinct types keep a node id from being passed where an infohash is meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import AddressValueError, IPv6Address
from typing import NewType

from shared.core.errors import LocalError

NodeId = NewType("NodeId", bytes)  # SHA-256 of the raw Ed25519 public key, 32 bytes
InfoHash = NewType("InfoHash", bytes)  # SHA-256 of the bencoded info dictionary, 32 bytes
TitleId = NewType("TitleId", bytes)  # 16 bytes, minted by the edge that ingested the title

NODE_ID_BYTES = 32
INFOHASH_BYTES = 32
TITLE_ID_BYTES = 16
SCHEME = "penstock"
DEFAULT_PORT = 4430


class Kind(StrEnum):
    """What sort of node or terminal this is; decides which sources it is given."""

    PC = "pc"
    STB = "stb"  # set-top box
    MOBILE = "mobile"
    EDGE = "edge"
    TRACKER = "tracker"
    TOOL = "tool"  # a command such as publish: holds and uploads nothing


class Mode(StrEnum):
    """Whether a terminal agreed to upload."""

    DIRECT = "direct"  # never uploads
    SHARED = "shared"  # uploads under the cap


@dataclass(frozen=True, slots=True)
class HostPort:
    """A UDP endpoint. `host` is an IP address or DNS name without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """`penstock://ID@host:port[/TITLE]`: whom to dial, whom to expect, what to ask for."""

    node: NodeId
    at: HostPort
    title: TitleId | None = None

    def __str__(self) -> str:
        tail = f"/{self.title.hex()}" if self.title is not None else ""
        return f"{SCHEME}://{self.node.hex()}@{self.at}{tail}"


_HEX = re.compile(r"[0-9a-f]+\Z")
_ADDRESS = re.compile(r"penstock://(?P<node>[0-9a-f]{64})@(?P<at>[^/@\s]+)(?:/(?P<title>[0-9a-f]{32}))?/?\Z")
_HOST_PORT = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]{2,45})\]|(?P<host>[A-Za-z0-9._-]{1,253}))(?::(?P<port>[0-9]{1,5}))?\Z"
)


def parse_host_port(text: str, default_port: int = DEFAULT_PORT) -> HostPort:
    """`host:port`, `[v6]:port` or a bare host. Raises LocalError with the expected form."""
    match = _HOST_PORT.match(text)
    port = int(match["port"]) if match and match["port"] else default_port
    if match is None or not 0 <= port <= 65535:
        raise LocalError(f"{text[:80]!r} is not an address; expected host:port or [ipv6]:port")
    if match["six"]:
        return HostPort(_checked_ipv6(match["six"]), port)
    return HostPort(match["host"], port)


def _checked_ipv6(text: str) -> str:
    try:
        IPv6Address(text)
    except AddressValueError:
        raise LocalError(f"[{text}] is not an IPv6 address; expected one such as [2001:db8::1]") from None
    return text


def parse_address(text: str) -> Address:
    """The one-string address of a node or title. Raises LocalError with the expected form."""
    # Some letters outside ASCII become ASCII when made small: they are no part of an address.
    match = _ADDRESS.match(text.strip().lower()) if text.isascii() else None
    if match is None:
        raise LocalError(
            f"{text[:80]!r} is not a Penstock address; "
            "expected penstock://NODE-ID@host:port, and /TITLE-ID after it for a title"
        )
    title = TitleId(bytes.fromhex(match["title"])) if match["title"] else None
    return Address(NodeId(bytes.fromhex(match["node"])), parse_host_port(match["at"]), title)


def parse_addresses(text: str) -> tuple[Address, ...]:
    """One or several addresses with commas between them, the one to prefer first. Raises LocalError."""
    return tuple(parse_address(part) for part in text.split(","))


def _parse_hex(text: str, size: int, what: str) -> bytes:
    if len(text) != 2 * size or not _HEX.match(text):
        raise LocalError(f"{text[:80]!r} is not {what}; expected {2 * size} hexadecimal digits")
    return bytes.fromhex(text)


def parse_infohash(text: str) -> InfoHash:
    """64 lower-case hexadecimal digits. Raises LocalError."""
    return InfoHash(_parse_hex(text, INFOHASH_BYTES, "an infohash"))


def parse_title_id(text: str) -> TitleId:
    """32 lower-case hexadecimal digits. Raises LocalError."""
    return TitleId(_parse_hex(text, TITLE_ID_BYTES, "a title id"))


def parse_node_id(text: str) -> NodeId:
    """64 lower-case hexadecimal digits. Raises LocalError."""
    return NodeId(_parse_hex(text, NODE_ID_BYTES, "a node id"))
