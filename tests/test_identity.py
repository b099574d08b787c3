from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from shared.core import signing
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.identity import Identity, node_id_of

DOMAIN = b"penstock test 1\n"
ME = Identity.generate()


def test_a_loaded_identity_is_the_one_that_was_made(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "key.pem"
    first = Identity.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Identity.load(path).id == first.id
    assert list(path.parent.iterdir()) == [path]  # no draft is left behind


def test_the_id_follows_from_the_certificate_alone() -> None:
    assert node_id_of(ME.certificate) == ME.id == signing.node_id(ME.public_key)
    ME.certificate.verify_directly_issued_by(ME.certificate)
    assert not list(ME.certificate.subject)


def test_a_certificate_of_another_kind_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(subject_name=x509.Name([]), issuer_name=x509.Name([]))
    builder = builder.public_key(key.public_key()).serial_number(1)
    own = ME.certificate
    builder = builder.not_valid_before(own.not_valid_before_utc).not_valid_after(own.not_valid_after_utc)
    from cryptography.hazmat.primitives.hashes import SHA256

    with pytest.raises(ProtocolError, match="not Ed25519") as caught:
        node_id_of(builder.sign(key, SHA256()))
    assert caught.value.reason is Reason.NOT_ALLOWED
    with pytest.raises(ProtocolError, match="no certificate"):
        node_id_of(None)


@pytest.mark.parametrize("content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_file_that_is_no_key_is_named_with_the_way_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(LocalError, match=r"key\.pem holds no Ed25519 .* delete it") as caught:
        Identity.load(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content  # never overwritten


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "key.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(LocalError, match="holds no Ed25519"):
        Identity.load(path)


def test_a_key_open_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    Identity.load(path)
    path.chmod(0o640)
    with pytest.raises(LocalError, match="chmod 600"):
        Identity.load(path)


def test_a_place_that_cannot_hold_a_file_is_a_local_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "key.pem", tmp_path):
        with pytest.raises(LocalError, match="key file") as caught:
            Identity.load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_a_local_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(LocalError, match="Permission denied"):
        Identity.load(tmp_path / "key.pem")


@given(payload=st.binary(max_size=200), other=st.binary(max_size=200))
def test_signatures(payload: bytes, other: bytes) -> None:
    """A signature passes for its payload, domain and key, and for nothing else."""
    signature = ME.sign(DOMAIN, payload)
    assert signing.verify(ME.public_key, DOMAIN, payload, signature)
    assert signing.verify(ME.public_key, DOMAIN, other, signature) == (other == payload)
    assert not signing.verify(ME.public_key, b"penstock test 2\n", payload, signature)
    assert not signing.verify(Identity.generate().public_key, DOMAIN, payload, signature)


@given(key=st.binary(max_size=40), signature=st.binary(max_size=70))
def test_malformed_signatures(key: bytes, signature: bytes) -> None:
    """Whatever the key and signature bytes are, verify answers False and never raises."""
    assert signing.verify(key, DOMAIN, b"payload", signature) is False
    assert signing.verify(ME.public_key, DOMAIN, b"payload", signature) is False


@pytest.mark.parametrize("domain", [b"", b"\n", b"no end", b"two\nlines\n", b"a\n "])
def test_a_domain_is_one_line(domain: bytes) -> None:
    with pytest.raises(ValueError, match="line"):
        ME.sign(domain, b"")


def test_a_node_id_needs_a_whole_key() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        signing.node_id(bytes(31))
