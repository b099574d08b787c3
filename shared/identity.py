"""Who this node is: an Ed25519 key on disk, the id that follows from it, and a certificate for TLS.

There is no authority: a certificate is signed by its own key and says nothing but that key.
Both sides of a connection compute the other's id from it and compare.
"""

from __future__ import annotations

import hmac
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from shared.core import signing
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import NodeId

MAX_KEY_FILE_BYTES = 16 * 1024
_RESETS = b"penstock stateless reset 1\n"
_OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's key and what follows from it."""

    private_key: Ed25519PrivateKey
    public_key: bytes  # 32 raw bytes
    id: NodeId
    certificate: x509.Certificate  # self-signed, no names, does not expire
    reset_key: bytes = field(repr=False)  # makes the tokens of stateless resets; secret

    @classmethod
    def generate(cls) -> Identity:
        """A new identity that is not kept anywhere."""
        return cls.of(Ed25519PrivateKey.generate())

    @classmethod
    def of(cls, private_key: Ed25519PrivateKey) -> Identity:
        """The identity that a key makes."""
        public_key = private_key.public_key().public_bytes_raw()
        reset_key = hmac.digest(private_key.private_bytes_raw(), _RESETS, "sha256")
        node = signing.node_id(public_key)
        return cls(private_key, public_key, node, _certificate(private_key), reset_key)

    @classmethod
    def load(cls, path: Path) -> Identity:
        """The identity kept at `path` (PEM, mode 0600), made now if there is none.

        Raises LocalError if the file cannot be read or made, is open to others, or is no key.
        """
        try:
            if not path.exists():
                _create(path)
            return cls.of(_read(path))
        except OSError as error:
            raise LocalError(
                f"the key file {path} cannot be used: {error.strerror or error}; "
                "give its folder to the user that runs this, or name another file"
            ) from error

    def sign(self, domain: bytes, payload: bytes) -> bytes:
        """The 64-byte signature of `payload`; see `shared.core.signing`."""
        return signing.sign(self.private_key, domain, payload)


def node_id_of(certificate: x509.Certificate | None) -> NodeId:
    """The id of the node a certificate belongs to. Raises ProtocolError if it is none of ours."""
    if certificate is None:
        raise ProtocolError(Reason.NOT_ALLOWED, "no certificate, so nobody in particular")
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ProtocolError(Reason.NOT_ALLOWED, "a certificate with an unreadable key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ProtocolError(Reason.NOT_ALLOWED, "a certificate whose key is not Ed25519")
    return signing.node_id(key.public_bytes_raw())


def _certificate(key: Ed25519PrivateKey) -> x509.Certificate:
    name = x509.Name([])
    return (
        x509.CertificateBuilder(subject_name=name, issuer_name=name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))  # RFC 5280: no end
        .sign(key, None)
    )


def _create(path: Path) -> None:
    """Write a new key so that the file is there whole or not at all, and never replaces one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # another process was quicker: its key counts
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> Ed25519PrivateKey:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & _OTHERS_MAY:
            raise LocalError(f"the key file {path} is open to other users; run: chmod 600 {path}")
        pem = file.read(MAX_KEY_FILE_BYTES)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise LocalError(
            f"the key file {path} holds no Ed25519 private key in PEM form; "
            "restore it, or delete it to start anew under another id"
        )
    return key
