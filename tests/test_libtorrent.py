"""A foreign client reads our manifests and hashes the same files to the same trees."""

from __future__ import annotations

import warnings
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.core import bencode, manifest, merkle
from shared.core.ids import TitleId
from shared.core.segments import Media, lay_out
from shared.core.shape import PIECE_BYTES

libtorrent = pytest.importorskip("libtorrent")

SIZES = [
    1,
    16383,
    16384,
    16385,
    PIECE_BYTES - 1,
    PIECE_BYTES,
    PIECE_BYTES + 1,
    2 * PIECE_BYTES,
    5 * PIECE_BYTES + 777,
    9 * PIECE_BYTES,
]


def manifest_of(path: Path, piece_length: int = PIECE_BYTES, media: Media | None = None) -> manifest.Manifest:
    data = path.read_bytes()
    pieces = (data[at : at + piece_length] for at in range(0, len(data), piece_length))
    tree = merkle.layer_of_file(pieces, piece_length)
    draft = manifest.build(path.name, tree, title="A film", title_id=TitleId(b"i" * 16), media=media)
    return manifest.parse(manifest.sign(draft, Ed25519PrivateKey.generate()))


def theirs(path: Path, piece_length: int = PIECE_BYTES) -> dict[bytes, Any]:
    """The torrent that libtorrent makes of the same file by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # file_storage, the only way Python has
        files = libtorrent.file_storage()
        files.add_file(path.name, path.stat().st_size)
        torrent = libtorrent.create_torrent(files, piece_length, libtorrent.create_torrent.v2_only)
        libtorrent.set_piece_hashes(torrent, str(path.parent))
        made: dict[bytes, Any] = torrent.generate()
    return made


def film(path: Path, size: int) -> Path:
    path.write_bytes(Random(size).randbytes(size))
    return path


@pytest.mark.parametrize("size", SIZES)
def test_same_infohash_and_layers(tmp_path: Path, size: int) -> None:
    path = film(tmp_path / "film é.mp4", size)
    ours, their = manifest_of(path), theirs(path)
    assert bencode.loads(libtorrent.bencode(their[b"info"])) == bencode.loads(ours.raw)[b"info"]  # type: ignore[index,call-overload]
    assert their[b"piece layers"] == ({ours.pieces_root: ours.layer} if size > PIECE_BYTES else {})
    read = libtorrent.torrent_info(libtorrent.bdecode(ours.raw))
    assert read.info_hashes().v2.to_bytes() == ours.infohash
    assert not read.info_hashes().has_v1()
    assert (read.layout().file_size(0), read.piece_length(), read.num_pieces()) == (
        size,
        PIECE_BYTES,
        ours.piece_count,
    )
    assert read.name() == path.name
    assert read.layout().root(0).to_bytes() == ours.pieces_root


@pytest.mark.parametrize("piece_length", [16384, 32768, 1 << 20])
def test_other_piece_lengths(tmp_path: Path, piece_length: int) -> None:
    path = film(tmp_path / "film.mp4", 700_001)
    ours, their = manifest_of(path, piece_length), theirs(path, piece_length)
    assert bencode.loads(libtorrent.bencode(their[b"info"])) == bencode.loads(ours.raw)[b"info"]  # type: ignore[index,call-overload]
    assert their[b"piece layers"] == ({ours.pieces_root: ours.layer} if ours.piece_count > 1 else {})


def test_media_keys_do_not_disturb(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 600_000)
    media = Media(2, 1, "avc1.64001f", 4000, 720, 1280, 1000, lay_out(1000, [(599_000, 4000)]))
    ours = manifest_of(path, media=media)
    assert libtorrent.torrent_info(libtorrent.bdecode(ours.raw)).info_hashes().v2.to_bytes() == ours.infohash
    assert ours.infohash == manifest_of(path).infohash


def test_empty_file_is_ours_alone(tmp_path: Path) -> None:
    """libtorrent refuses any torrent of no bytes in all; BEP 52 gives such a file no root."""
    path = film(tmp_path / "empty.bin", 0)
    ours = manifest_of(path)
    assert (ours.length, ours.piece_count, ours.layer, ours.pieces_root) == (0, 0, b"", b"")
    with pytest.raises(RuntimeError, match="invalid length"):
        libtorrent.torrent_info(libtorrent.bdecode(ours.raw))
    with pytest.raises(RuntimeError, match="invalid length"):
        theirs(path)


def test_libtorrent_proves_the_layer(tmp_path: Path) -> None:
    """A layer with one bit changed is refused there too: they checked it, and did not skip it."""
    ours = manifest_of(film(tmp_path / "film.mp4", 5 * PIECE_BYTES))
    whole: Any = bencode.loads(ours.raw)
    row = whole[b"piece layers"][ours.pieces_root]
    whole[b"piece layers"][ours.pieces_root] = bytes([row[0] ^ 1]) + row[1:]
    with pytest.raises(RuntimeError):
        libtorrent.torrent_info(libtorrent.bdecode(bencode.dumps(whole)))
