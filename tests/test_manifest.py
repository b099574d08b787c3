"""Invariant: what `build` and `sign` make, `parse` gives back; anything else it refuses by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import bencode, manifest, merkle
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import InfoHash, NodeId, TitleId
from shared.core.names import clean_name, clean_title
from shared.core.segments import Media, lay_out
from shared.core.shape import PIECE_BYTES, Shape

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TITLE_ID = TitleId(b"t" * 16)


def tree_of(length: int, piece_length: int = PIECE_BYTES) -> merkle.FileTree:
    data = bytes(251) + bytes(range(251)) * (length // 251 + 1)
    data = data[:length]
    pieces = (data[at : at + piece_length] for at in range(0, length, piece_length))
    return merkle.layer_of_file(pieces, piece_length)


def media_for(length: int) -> Media:
    rest = length - 700
    spans = [(rest // 2, 4000), (rest - rest // 2, 1500)]
    return Media(3_000_000, 2_000_000, "avc1.64001f,mp4a.40.2", 5500, 720, 1280, 700, lay_out(700, spans))


def draft_of(length: int = 600_000, media: bool = True) -> manifest.Draft:
    return manifest.build(
        "film.mp4",
        tree_of(length),
        title="A film",
        title_id=TITLE_ID,
        media=media_for(length) if media else None,
    )


RAW = manifest.sign(draft_of(), KEY)


def forge(change: Callable[[dict[bytes, Any]], object]) -> bytes:
    """The manifest after a change, signed again: only the changed rule can refuse it."""
    body: Any = bencode.loads(RAW)
    del body[b"signature"]
    change(body)
    digest = sha256(bencode.dumps(body)).digest()
    return bencode.dumps({**body, b"signature": KEY.sign(manifest.SIGNING_DOMAIN + digest)})


def refused(raw: bytes, reason: Reason, says: str, **expect: Any) -> None:
    with pytest.raises(ProtocolError, match=says) as caught:
        manifest.parse(raw, **expect)
    assert caught.value.reason is reason
    assert "\n" not in str(caught.value)


def test_round_trip() -> None:
    tree = tree_of(600_000)
    found = manifest.parse(RAW)
    assert (found.name, found.title, found.title_id) == ("film.mp4", "A film", TITLE_ID)
    assert (found.length, found.piece_length, found.piece_count) == (600_000, PIECE_BYTES, 3)
    assert (found.layer, found.pieces_root) == (tree.layer, tree.root)
    assert b"".join(found.piece_hash(n) for n in range(3)) == tree.layer
    assert found.signer == KEY.public_key().public_bytes_raw()
    assert found.signer_id == sha256(found.signer).digest()
    assert found.media == media_for(600_000)
    assert found.raw == RAW
    whole: Any = bencode.loads(RAW)
    assert found.infohash == sha256(bencode.dumps(whole[b"info"])).digest()
    assert manifest.parse(RAW, expect_infohash=found.infohash, expect_signer=found.signer_id) == found
    assert manifest.shape_of(RAW, found.infohash) == Shape(600_000, PIECE_BYTES)
    assert len(repr(found)) < 2000


def test_segments_are_laid_out() -> None:
    media = manifest.parse(RAW).media
    assert media is not None
    first, second = media.segments
    assert (first.offset, first.start_ms, first.duration_ms) == (700, 0, 4000)
    assert (second.offset, second.start_ms, second.duration_ms) == (700 + first.length, 4000, 1500)
    assert second.offset + second.length == 600_000


@pytest.mark.parametrize("length", [0, 1, 16384, PIECE_BYTES, PIECE_BYTES + 1])
def test_plain_file(length: int) -> None:
    found = manifest.parse(manifest.sign(draft_of(length, media=False), KEY))
    assert found.media is None
    assert found.piece_count == len(found.layer) // 32 == -(-length // PIECE_BYTES)
    assert (found.pieces_root == b"") == (length == 0)
    if 0 < length <= PIECE_BYTES:
        assert found.piece_hash(0) == found.pieces_root
    with pytest.raises(IndexError):
        found.piece_hash(found.piece_count)
    with pytest.raises(IndexError):
        found.piece_hash(-1)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 2_000_000), offset=st.integers(-10, 2_100_000), span=st.integers(-5, 700_000))
def test_pieces_of(length: int, offset: int, span: int) -> None:
    """`pieces_of` names exactly the pieces that hold a byte of the range; sizes add up."""
    shape = Shape(length, 65536)
    wanted = {at // 65536 for at in range(max(offset, 0), min(offset + span, length))}
    assert set(shape.pieces_of(offset, span)) == wanted
    sizes = [shape.piece_size(n) for n in range(shape.piece_count)]
    assert sum(sizes) == length
    assert all(
        16384 * (shape.leaf_count(n) - 1) < size <= 16384 * shape.leaf_count(n)
        for n, size in enumerate(sizes)
    )


def info(change: Callable[[dict[bytes, Any]], object]) -> bytes:
    return forge(lambda body: change(body[b"info"]))


def leaf(change: Callable[[dict[bytes, Any]], object]) -> bytes:
    return info(lambda d: change(d[b"file tree"][b"film.mp4"][b""]))


def shown(change: Callable[[dict[bytes, Any]], object]) -> bytes:
    return forge(lambda body: change(body[b"penstock"]))


def put(key: bytes, value: Any) -> Callable[[dict[bytes, Any]], object]:
    return lambda d: d.__setitem__(key, value)


def drop(key: bytes) -> Callable[[dict[bytes, Any]], object]:
    return lambda d: d.__delitem__(key)


def rename(name: bytes) -> bytes:
    def change(d: dict[bytes, Any]) -> None:
        d[b"name"] = name
        d[b"file tree"] = {name: d[b"file tree"][b"film.mp4"]}

    return info(change)


def relayer(change: Callable[[bytes], bytes]) -> bytes:
    def apply(body: dict[bytes, Any]) -> None:
        (root,) = body[b"piece layers"]
        body[b"piece layers"][root] = change(body[b"piece layers"][root])

    return forge(apply)


MALFORMED = {
    "no dictionary": (b"le", "not a dictionary"),
    "nothing": (b"", "bencode"),
    "the codec's loop": (b"d0:i1e-6:e", "bencode"),
    "deep": (b"d1:a" * 6 + b"i1e" + b"e" * 6, "containers"),
    "many": (b"l" + b"le" * 100 + b"e", "too many items"),
    "key more": (forge(put(b"comment", b"x")), "unknown key"),
    "key less": (forge(drop(b"penstock")), "lacks 'penstock'"),
    "info no dictionary": (forge(put(b"info", [])), "'info' is not a dictionary"),
    "info more": (info(put(b"private", 1)), "unknown key"),
    "info less": (info(drop(b"piece length")), "lacks 'piece length'"),
    "version": (info(put(b"meta version", 1)), "'meta version' is 1"),
    "two files": (
        info(lambda d: d[b"file tree"].update({b"z": {b"": {b"length": 0}}})),
        "'file tree' has an unknown",
    ),
    "no file": (info(put(b"file tree", {})), "'file tree' lacks 'film.mp4'"),
    "other name": (info(put(b"name", b"other.mp4")), "'file tree' lacks 'other.mp4'"),
    "folder": (info(lambda d: d[b"file tree"].update({b"film.mp4": {b"x": {}}})), "lacks ''"),
    "negative length": (leaf(put(b"length", -1)), "'length' is -1"),
    "huge length": (leaf(put(b"length", (1 << 40) + 1)), "'length' is"),
    "length text": (leaf(put(b"length", b"1")), "not an integer"),
    "length less": (leaf(put(b"length", PIECE_BYTES * 2)), "96 bytes for 2 pieces"),
    "length more": (leaf(put(b"length", PIECE_BYTES * 3 + 1)), "96 bytes for 4 pieces"),
    "short root": (leaf(put(b"pieces root", b"x" * 31)), "'pieces root' has 31 bytes"),
    "no root": (leaf(drop(b"pieces root")), "'pieces root' belongs"),
    "root of nothing": (leaf(put(b"length", 0)), "'pieces root' belongs"),
    "attributes": (leaf(put(b"attr", b"l")), "unknown key"),
    "odd piece length": (info(put(b"piece length", 300_000)), "power of two"),
    "small piece length": (info(put(b"piece length", 8192)), "'piece length' is 8192"),
    "big piece length": (info(put(b"piece length", 1 << 25)), "'piece length' is"),
    "negative piece length": (info(put(b"piece length", -(1 << 18))), "'piece length' is"),
    "layer for one piece": (info(put(b"piece length", 1 << 20)), "'piece layers' of a single piece"),
    "no layer": (forge(put(b"piece layers", {})), "'piece layers' lacks"),
    "other layer": (forge(put(b"piece layers", {b"x" * 32: b"y" * 96})), "'piece layers' lacks"),
    "layer cut": (relayer(lambda row: row[:-1]), "95 bytes for 3 pieces"),
    "path up": (rename(b".."), "would be a path"),
    "here": (rename(b"."), "would be a path"),
    "slash": (rename(b"a/b"), "would be a path"),
    "backslash": (rename(b"a\\b"), "would be a path"),
    "control": (rename(b"a\nb"), "cannot be printed"),
    "escape": (rename(b"a\x1b[2Jb"), "cannot be printed"),
    "null": (rename(b"a\0b"), "cannot be printed"),
    "no name": (rename(b""), "'name' has 0 bytes"),
    "long name": (rename(b"a" * 256), "'name' has 256 bytes"),
    "latin name": (rename(b"caf\xe9"), "not UTF-8"),
    "override": (rename("a\u202eb".encode()), "cannot be printed"),
    "title empty": (shown(put(b"title", b"")), "'title' has 0 bytes"),
    "title long": (shown(put(b"title", b"x" * 201)), "over 200 characters"),
    "title lines": (shown(put(b"title", b"a\nb")), "cannot be printed"),
    "title spaced": (shown(put(b"title", b" a")), "starts or ends with a space"),
    "title id": (shown(put(b"title id", b"x" * 15)), "'title id' has 15 bytes"),
    "media in part": (shown(drop(b"codecs")), "'penstock' lacks 'codecs'"),
    "media and more": (shown(put(b"fps", 25)), "unknown key"),
    "segments short": (shown(lambda d: put(b"segments", d[b"segments"][:8])(d)), "segments end at"),
    "segments odd": (shown(lambda d: put(b"segments", d[b"segments"][:15])(d)), "not pairs"),
    "segments none": (shown(put(b"segments", b"")), "'segments' has 0 bytes"),
    "segment empty": (shown(lambda d: put(b"segments", d[b"segments"] + bytes(8))(d)), "a segment is empty"),
    "init": (shown(put(b"init bytes", 701)), "segments end at 600001 of 600000"),
    "init negative": (shown(put(b"init bytes", -1)), "'init bytes' is -1"),
    "duration": (shown(put(b"duration ms", 5501)), "segments last 5500 of 5501"),
    "bandwidth": (shown(put(b"bandwidth", 0)), "'bandwidth' is 0"),
    "average": (shown(put(b"average bandwidth", 3_000_001)), "'average bandwidth' is"),
    "height": (shown(put(b"height", -720)), "'height' is -720"),
    "codecs": (shown(put(b"codecs", b'avc1"\n#EXT')), "RFC 6381"),
    "codecs with a line": (shown(put(b"codecs", b"avc1\n")), "RFC 6381"),
    "signer": (forge(put(b"signer", b"x" * 31)), "'signer' has 31 bytes"),
    "signature": (bencode.dumps({**bencode.loads(RAW), b"signature": b"x"}), "'signature' has 1 bytes"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(case: str) -> None:
    raw, says = MALFORMED[case]
    refused(raw, Reason.MALFORMED, says)


def test_forging_alone_changes_nothing() -> None:
    assert forge(lambda body: None) == RAW


def test_bytes_that_do_not_fit() -> None:
    refused(RAW, Reason.BAD_DATA, "another swarm", expect_infohash=InfoHash(bytes(32)))
    refused(RAW, Reason.NOT_ALLOWED, "another node", expect_signer=NodeId(bytes(32)))
    refused(relayer(lambda row: row[32:] + row[:32]), Reason.BAD_DATA, "does not hash")
    refused(
        leaf(lambda d: d.__setitem__(b"pieces root", b"x" * 32)), Reason.MALFORMED, "'piece layers' lacks"
    )
    stranger = forge(put(b"signer", Ed25519PrivateKey.generate().public_key().public_bytes_raw()))
    refused(stranger, Reason.BAD_DATA, "signature")
    for weak in (bytes(32), b"\xff" * 32, b"\x01" + bytes(31)):
        refused(forge(put(b"signer", weak)), Reason.BAD_DATA, "signature")


def test_infohash_is_checked_on_the_short_way_too() -> None:
    with pytest.raises(ProtocolError, match="another swarm"):
        manifest.shape_of(RAW, InfoHash(bytes(32)))


def test_too_large() -> None:
    refused(bytes(manifest.MAX_MANIFEST_BYTES + 1), Reason.TOO_LARGE, "the limit is")


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(RAW) - 1), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(at: int, bit: int) -> None:
    """A manifest with any one bit changed is refused with a named error."""
    changed = bytearray(RAW)
    changed[at] ^= 1 << bit
    with pytest.raises(ProtocolError):
        manifest.parse(bytes(changed))


def test_every_truncation_is_refused() -> None:
    for cut in range(len(RAW)):
        with pytest.raises(ProtocolError):
            manifest.parse(RAW[:cut])


def test_what_would_be_refused_is_not_signed() -> None:
    media = replace(media_for(600_000), duration_ms=1)
    draft = manifest.build("f.mp4", tree_of(600_000), title="T", title_id=TITLE_ID, media=media)
    with pytest.raises(LocalError, match="would be refused: segments last 5500 of 1 ms"):
        manifest.sign(draft, KEY)
    with pytest.raises(LocalError, match="power of two"):
        manifest.sign(manifest.build("f", tree_of(600_000, 49152), title="T", title_id=TITLE_ID), KEY)
    with pytest.raises(LocalError, match="out of bounds"):
        manifest.build(
            "f",
            tree_of(1),
            title="T",
            title_id=TITLE_ID,
            media=replace(media, segments=lay_out(1, [(1 << 32, 1)])),
        )


def test_a_film_of_no_duration_lasts_a_millisecond() -> None:
    media = replace(media_for(600_000), duration_ms=1, segments=lay_out(700, [(599_300, 0)]))
    draft = manifest.build("f.mp4", tree_of(600_000), title="T", title_id=TITLE_ID, media=media)
    assert manifest.parse(manifest.sign(draft, KEY)).media == media


@pytest.mark.parametrize("name", ["film.mp4", "Ünïcødé 電影.mkv", "a b", "..a", ".hidden", "a" * 255])
def test_good_names(name: str) -> None:
    assert clean_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/", "a\\b", "a\0", "a\x7f", "\ud800", "é" * 128, "a\u2028b"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(LocalError) as caught:
        clean_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("title", ["", " ", "a ", "x" * 201, "a\tb", "a\u202eb", "\x1b[31m"])
def test_bad_titles(title: str) -> None:
    with pytest.raises(LocalError) as caught:
        clean_title(title)
    assert str(caught.value).isprintable()


def test_good_titles() -> None:
    assert clean_title("A/B: the film …") == "A/B: the film …"
    assert clean_title("é" * 200) == "é" * 200


@pytest.mark.parametrize("sizes", [[5, PIECE_BYTES], [0], [PIECE_BYTES + 1], [PIECE_BYTES, 0]])
def test_pieces_out_of_step(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="a piece of"):
        merkle.layer_of_file([bytes(size) for size in sizes], PIECE_BYTES)
