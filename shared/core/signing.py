"""Ed25519 signatures with domain separation, and the id that a public key gives its node.

What is signed is `domain + payload`. A domain is a line such as `b"penstock ticket 1\\n"`:
it ends in the only line break it has, so no domain is the beginning of another and a
signature made for one purpose never passes for a second one.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.core.ids import NodeId

PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


def node_id(public_key: bytes) -> NodeId:
    """The id of the node that owns `public_key` (32 raw bytes). Raises ValueError."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise ValueError(f"a public key of {len(public_key)} bytes; expected {PUBLIC_KEY_BYTES}")
    return NodeId(sha256(public_key).digest())


def sign(private_key: Ed25519PrivateKey, domain: bytes, payload: bytes) -> bytes:
    """The 64-byte signature of `payload` under `domain`. Raises ValueError for a domain that is no line."""
    return private_key.sign(_line(domain) + payload)


def verify(public_key: bytes, domain: bytes, payload: bytes, signature: bytes) -> bool:
    """Whether the owner of `public_key` signed `payload` under `domain`; False for anything malformed."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _line(domain) + payload)
    except (InvalidSignature, ValueError):  # ValueError: 32 bytes that are no point on the curve
        return False
    return True


def _line(domain: bytes) -> bytes:
    if domain.find(b"\n") != len(domain) - 1 or len(domain) < 2:
        raise ValueError(f"{domain!r} is not one non-empty line")
    return domain
