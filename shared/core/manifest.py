"""Manifests: signed BitTorrent v2 metadata of one file, with what a player must know.

A manifest is a .torrent (BEP 52) with three more keys beside `info` and `piece layers`:

    penstock   title, title id; for films also the media keys, all of them or none
    signer     raw Ed25519 public key, 32 bytes
    signature  over SIGNING_DOMAIN + SHA-256(the dictionary without this key)

Its swarm is named by the SHA-256 of `info`. Nothing is taken on trust: `parse` checks every
key, bound, hash and the signature, and refuses what it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NewType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.core import bencode
from shared.core.bencode import BencodeValue, Encodable
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import TITLE_ID_BYTES, InfoHash, NodeId, TitleId
from shared.core.merkle import HASH_BYTES, FileTree, root_of_layer
from shared.core.names import MAX_NAME_BYTES, MAX_TITLE_CHARACTERS, clean_name, clean_title
from shared.core.segments import MEDIA_KEYS, Media, media_from_wire, media_to_wire
from shared.core.shape import MAX_LENGTH_BYTES, MAX_PIECE_BYTES, MIN_PIECE_BYTES, Shape
from shared.core.strict import Fields, bytes_of, fields_of, int_of, malformed, text_of

MAX_MANIFEST_BYTES = 8 << 20
MAX_ITEMS = 64  # a manifest has fewer; keeps 8 MiB of tiny values out of memory
MAX_DEPTH = 5
SIGNING_DOMAIN = b"penstock manifest 1\n"
KEY_BYTES, SIGNATURE_BYTES = 32, 64

Draft = NewType("Draft", dict[bytes, Encodable])  # a manifest before it is signed

_TOP = frozenset([b"info", b"penstock", b"piece layers", b"signature", b"signer"])
_INFO = frozenset([b"file tree", b"meta version", b"name", b"piece length"])
_TITLE = frozenset([b"title", b"title id"])


@dataclass(frozen=True, slots=True)
class Manifest(Shape):
    """A manifest that passed every check."""

    infohash: InfoHash
    name: str
    pieces_root: bytes  # b"" for an empty file
    layer: bytes = field(repr=False)  # packed piece hashes, one per piece
    media: Media | None  # None for a plain file
    title: str
    title_id: TitleId
    signer: bytes  # raw Ed25519 public key
    signer_id: NodeId
    raw: bytes = field(repr=False)  # as it travels and is stored

    def piece_hash(self, index: int) -> bytes:
        """The Merkle hash of a piece; of a file's only piece, its root. Raises IndexError."""
        if not 0 <= index < self.piece_count:
            raise IndexError(f"piece {index} of {self.piece_count}")
        return self.layer[index * HASH_BYTES : (index + 1) * HASH_BYTES]


def build(name: str, tree: FileTree, *, title: str, title_id: TitleId, media: Media | None = None) -> Draft:
    """The unsigned manifest of a file. Raises LocalError for a name or title that is not allowed."""
    leaf: dict[bytes, Encodable] = {b"length": tree.length}
    if tree.length:
        leaf[b"pieces root"] = tree.root
    spelled = clean_name(name).encode()
    shown: dict[bytes, Encodable] = {b"title": clean_title(title).encode(), b"title id": title_id}
    try:
        shown |= media_to_wire(media) if media is not None else {}
    except ValueError as error:
        raise LocalError(f"cannot describe {name}: {error}") from None
    info: dict[bytes, Encodable] = {
        b"file tree": {spelled: {b"": leaf}},
        b"meta version": 2,
        b"name": spelled,
        b"piece length": tree.piece_length,
    }
    layers: dict[bytes, Encodable] = {tree.root: tree.layer} if tree.length > tree.piece_length else {}
    return Draft({b"info": info, b"penstock": shown, b"piece layers": layers})


def sign(draft: Draft, private_key: Ed25519PrivateKey) -> bytes:
    """The finished manifest. Raises LocalError if anybody would refuse it."""
    body: dict[bytes, Encodable] = {**draft, b"signer": private_key.public_key().public_bytes_raw()}
    raw = bencode.dumps({**body, b"signature": private_key.sign(_signed_bytes(bencode.dumps(body)))})
    try:
        parse(raw)
    except ProtocolError as error:
        raise LocalError(f"this manifest would be refused: {error.detail}; mend its contents") from None
    return raw


def parse(
    raw: bytes, *, expect_infohash: InfoHash | None = None, expect_signer: NodeId | None = None
) -> Manifest:
    """A manifest from its bytes, every rule checked.

    Raises ProtocolError: TOO_LARGE; MALFORMED for a broken rule; BAD_DATA when the infohash,
    a hash or the signature does not fit; NOT_ALLOWED for another signer than expected.
    """
    top = _top(raw)
    infohash = _infohash(top, expect_infohash)
    name, shape, root = _info(top)
    layer = _layer(top[b"piece layers"], shape, root)
    shown = fields_of(top[b"penstock"], _TITLE, _TITLE | MEDIA_KEYS, what="'penstock'")
    media = media_from_wire(shown, shape.length) if shown.keys() > _TITLE else None
    signer = _verified_signer(top)
    signer_id = NodeId(sha256(signer).digest())
    if expect_signer is not None and signer_id != expect_signer:
        raise ProtocolError(Reason.NOT_ALLOWED, "the manifest is signed by another node than expected")
    return Manifest(
        length=shape.length,
        piece_length=shape.piece_length,
        infohash=infohash,
        name=name,
        pieces_root=root,
        layer=layer,
        media=media,
        title=_checked(clean_title, text_of(shown, b"title", 1, 4 * MAX_TITLE_CHARACTERS)),
        title_id=TitleId(bytes_of(shown, b"title id", TITLE_ID_BYTES, TITLE_ID_BYTES)),
        signer=signer,
        signer_id=signer_id,
        raw=bytes(raw),
    )


def shape_of(raw: bytes, infohash: InfoHash) -> Shape:
    """Only the shape of a swarm's file, without hashing layers or checking the signature.

    For a manifest that was parsed once and is read again. Raises ProtocolError.
    """
    top = _top(raw)
    _infohash(top, infohash)
    return _info(top)[1]


def _top(raw: bytes) -> Fields:
    value = bencode.loads(raw, max_bytes=MAX_MANIFEST_BYTES, max_depth=MAX_DEPTH, max_items=MAX_ITEMS)
    return fields_of(value, _TOP, what="the manifest")


def _infohash(top: Fields, expected: InfoHash | None) -> InfoHash:
    infohash = InfoHash(sha256(bencode.dumps(top[b"info"])).digest())
    if expected is not None and infohash != expected:
        raise ProtocolError(Reason.BAD_DATA, "the manifest is of another swarm")
    return infohash


def _info(top: Fields) -> tuple[str, Shape, bytes]:
    """Name, shape and pieces root."""
    info = fields_of(top[b"info"], _INFO, what="'info'")
    int_of(info, b"meta version", 2, 2)
    name = _checked(clean_name, text_of(info, b"name", 1, MAX_NAME_BYTES))
    piece_length = int_of(info, b"piece length", MIN_PIECE_BYTES, MAX_PIECE_BYTES)
    if piece_length & (piece_length - 1):
        malformed(f"'piece length' is {piece_length}, not a power of two")
    files = fields_of(info[b"file tree"], {name.encode()}, what="'file tree'")
    node = fields_of(files[name.encode()], {b""}, what="the file in 'file tree'")
    leaf = fields_of(node[b""], {b"length"}, {b"length", b"pieces root"}, what="the file in 'file tree'")
    shape = Shape(int_of(leaf, b"length", 0, MAX_LENGTH_BYTES), piece_length)
    if bool(shape.length) != (b"pieces root" in leaf):
        malformed("'pieces root' belongs to a file that is not empty, and only there")
    return name, shape, bytes_of(leaf, b"pieces root", HASH_BYTES, HASH_BYTES) if shape.length else b""


def _layer(layers: BencodeValue, shape: Shape, root: bytes) -> bytes:
    """The packed piece hashes, proved by the root."""
    if shape.piece_count <= 1:
        fields_of(layers, set(), what="'piece layers' of a single piece")
        return root
    fields = fields_of(layers, {root}, what="'piece layers'")
    layer = bytes_of(fields, root, 0, MAX_MANIFEST_BYTES)
    if len(layer) != shape.piece_count * HASH_BYTES:
        malformed(f"'piece layers' has {len(layer)} bytes for {shape.piece_count} pieces")
    if root_of_layer(layer, shape.piece_length) != root:
        raise ProtocolError(Reason.BAD_DATA, "'piece layers' does not hash to 'pieces root'")
    return layer


def _verified_signer(top: Fields) -> bytes:
    signer = bytes_of(top, b"signer", KEY_BYTES, KEY_BYTES)
    signature = bytes_of(top, b"signature", SIGNATURE_BYTES, SIGNATURE_BYTES)
    body: dict[bytes, Encodable] = {key: value for key, value in top.items() if key != b"signature"}
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, _signed_bytes(bencode.dumps(body)))
    except (InvalidSignature, ValueError):
        raise ProtocolError(Reason.BAD_DATA, "the manifest's signature is wrong") from None
    return signer


def _signed_bytes(body: bytes) -> bytes:
    return SIGNING_DOMAIN + sha256(body).digest()


def _checked(clean: Callable[[str], str], text: str) -> str:
    try:
        return clean(text)
    except LocalError as error:
        malformed(str(error))
