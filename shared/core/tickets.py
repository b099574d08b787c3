"""Tickets: the tracker's signed permission for one viewer to take one rendition.

Edges and peers check them without asking anybody. Layout, big-endian:

    version(1)=1 viewer(32) infohash(32) expires(u64, seconds) quota(u64, bytes)
    tracker public key(32) Ed25519 signature over "penstock ticket 1\\n" and all before it (64)
"""

from __future__ import annotations

import struct
from collections.abc import Container
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.core import signing
from shared.core.errors import Reason, Refused
from shared.core.ids import InfoHash, NodeId

TICKET_SECONDS = 600
CLOCK_SKEW_SECONDS = 30  # two machines' clocks may differ by this much
UNLIMITED = (1 << 64) - 1

_BODY = struct.Struct(">B32s32sQQ32s")
_DOMAIN = b"penstock ticket 1\n"
_SIGNATURE_BYTES = 64
TICKET_BYTES = _BODY.size + _SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class Ticket:
    """A checked ticket."""

    viewer: NodeId
    infohash: InfoHash
    expires_at: int
    quota_bytes: int


def issue(key: Ed25519PrivateKey, ticket: Ticket) -> bytes:
    """The signed bytes of a ticket."""
    public = key.public_key().public_bytes_raw()
    body = _BODY.pack(1, ticket.viewer, ticket.infohash, ticket.expires_at, ticket.quota_bytes, public)
    return body + signing.sign(key, _DOMAIN, body)


def check(
    raw: bytes, *, tracker: NodeId, viewer: NodeId, infohash: InfoHash, now: float,
    fellows: Container[bytes] = (),
) -> Ticket:  # fmt: skip
    """The ticket, if `tracker` or one of its `fellows` signed it for exactly this viewer and swarm
    and it still runs.

    Raises Refused with TICKET_INVALID or TICKET_EXPIRED.
    """
    if len(raw) != TICKET_BYTES or raw[0] != 1:
        raise Refused(Reason.TICKET_INVALID, "not a ticket")
    body, signature = raw[: _BODY.size], raw[_BODY.size :]
    _, for_viewer, for_swarm, expires_at, quota, public = _BODY.unpack(body)
    issuer = sha256(public).digest()
    if issuer != tracker and issuer not in fellows:
        raise Refused(Reason.TICKET_INVALID, "from a foreign tracker")
    if not signing.verify(public, _DOMAIN, body, signature):
        raise Refused(Reason.TICKET_INVALID, "the signature does not fit")
    if for_viewer != viewer or for_swarm != infohash:
        raise Refused(Reason.TICKET_INVALID, "made out to somebody or something else")
    if now > expires_at + CLOCK_SKEW_SECONDS:
        raise Refused(Reason.TICKET_EXPIRED, "ask the tracker for a new one")
    return Ticket(NodeId(for_viewer), InfoHash(for_swarm), expires_at, quota)
