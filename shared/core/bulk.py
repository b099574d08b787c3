"""Bulk streams: one bidirectional QUIC stream per request, raw bytes after a short header.

The asker writes a request and closes its side (an upload writes its bytes first). The answer
starts with one byte, a `Reason`: 0 and the bytes follow, anything else and the stream ends.

    piece      01 infohash(32) piece(u32) first_leaf(u16) leaf_count(u16) slack_ms(u32)
               -> 00, leaf hashes of the whole piece (32 each), bytes of the asked leaves
    manifest   02 infohash(32)                        -> 00, length(u32), bytes
    upload     03 upload(32) offset(u64) length(u32), bytes
               -> 00, received(u64): all bytes below are on the edge's disk
    probe      04 length(u16), bytes                   -> 00, counted(u16), microseconds(u32)

Numbers are big-endian. Leaf hashes come first, so that each 16 KiB can be checked, forwarded
and blamed the moment it arrives. `slack_ms` says how soon the bytes are needed: sources
serve the earliest deadline first. A probe is a short train of bytes that an edge throws away: `counted`
of them arrived after its first half, within so many microseconds, which tells the asker's line.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import INFOHASH_BYTES, InfoHash

MAX_UPLOAD_BYTES = 1 << 20  # of one upload request: bounds the edge's memory per stream
MAX_PROBE_BYTES = 36_864
NO_DEADLINE_MS = (1 << 32) - 1
MAX_HEADER_BYTES = 64

_PIECE = struct.Struct(">B32sIHHI")
_MANIFEST = struct.Struct(">B32s")
_UPLOAD = struct.Struct(">B32sQI")
_PROBE = struct.Struct(">BH")
_PROBED = struct.Struct(">HI")
PROBED_BYTES = _PROBED.size


@dataclass(frozen=True, slots=True)
class PieceRequest:
    """Leaves `first_leaf` .. `first_leaf + leaf_count - 1` of a piece, within `slack_ms`."""

    infohash: InfoHash
    piece: int
    first_leaf: int
    leaf_count: int
    slack_ms: int = NO_DEADLINE_MS

    def encode(self) -> bytes:
        """The header bytes. Raises LocalError for a request that would be refused."""
        return _pack(_PIECE, 1, self.infohash, self.piece, self.first_leaf, self.leaf_count, self.slack_ms)


@dataclass(frozen=True, slots=True)
class ManifestRequest:
    """The signed manifest of a swarm."""

    infohash: InfoHash

    def encode(self) -> bytes:
        """The header bytes. Raises LocalError for a request that would be refused."""
        return _pack(_MANIFEST, 2, self.infohash)


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """`length` bytes of an upload from `offset` follow the header."""

    upload: bytes
    offset: int
    length: int

    def encode(self) -> bytes:
        """The header bytes. Raises LocalError for a request that would be refused."""
        return _pack(_UPLOAD, 3, self.upload, self.offset, self.length)


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """`length` bytes follow the header, to be thrown away."""

    length: int

    def encode(self) -> bytes:
        """The header bytes. Raises LocalError for a request that would be refused."""
        try:
            header = _PROBE.pack(4, self.length)
            decode(header)
        except (struct.error, ProtocolError) as error:
            raise LocalError(f"cannot send this bulk request: {error}") from None
        return header


@dataclass(frozen=True, slots=True)
class Probed:
    """An edge's answer: so many bytes came after the first half, in so long. Not to be believed blindly."""

    counted_bytes: int
    microseconds: int

    def encode(self) -> bytes:
        """The answer's bytes after its reason."""
        return _PROBED.pack(min(self.counted_bytes, MAX_PROBE_BYTES), min(self.microseconds, (1 << 32) - 1))


BulkRequest = PieceRequest | ManifestRequest | UploadRequest | ProbeRequest
_SIZES = {1: _PIECE.size, 2: _MANIFEST.size, 3: _UPLOAD.size, 4: _PROBE.size}


def _pack(layout: struct.Struct, code: int, name: bytes, *numbers: int) -> bytes:
    if len(name) != INFOHASH_BYTES:  # struct would cut it or fill it up in silence
        raise LocalError(f"cannot ask for something named by {len(name)} bytes")
    try:
        header = layout.pack(code, name, *numbers)
        decode(header)
    except (struct.error, ProtocolError) as error:
        raise LocalError(f"cannot send this bulk request: {error}") from None
    return header


def header_size(first_byte: int) -> int:
    """Bytes of the whole header, told from its first. Raises ProtocolError if unknown."""
    size = _SIZES.get(first_byte)
    if size is None:
        raise ProtocolError(Reason.MALFORMED, f"unknown bulk request {first_byte}")
    return size


def decode(header: bytes) -> BulkRequest:
    """A request from exactly its header. Raises ProtocolError."""
    if not header or len(header) != header_size(header[0]):
        raise ProtocolError(Reason.MALFORMED, "bulk header cut short")
    if header[0] == 1:
        _, infohash, piece, first, count, slack = _PIECE.unpack(header)
        if count == 0:
            raise ProtocolError(Reason.MALFORMED, "a request for no leaves")
        return PieceRequest(InfoHash(infohash), piece, first, count, slack)
    if header[0] == 2:
        return ManifestRequest(InfoHash(_MANIFEST.unpack(header)[1]))
    if header[0] == 4:
        return _decode_probe(header)
    _, upload, offset, length = _UPLOAD.unpack(header)
    if length == 0:
        raise ProtocolError(Reason.MALFORMED, "an upload of no bytes")
    if length > MAX_UPLOAD_BYTES or offset + length > 1 << 40:
        raise ProtocolError(Reason.TOO_LARGE, f"an upload of {length} bytes at {offset}")
    return UploadRequest(upload, offset, length)


def _decode_probe(header: bytes) -> ProbeRequest:
    length = _PROBE.unpack(header)[1]
    if length == 0:
        raise ProtocolError(Reason.MALFORMED, "a probe of no bytes")
    if length > MAX_PROBE_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"a probe of {length} bytes")
    return ProbeRequest(length)


def decode_probed(answer: bytes, length: int) -> Probed:
    """The answer to a probe of `length` bytes, from exactly its bytes. Raises ProtocolError."""
    if len(answer) != PROBED_BYTES:
        raise ProtocolError(Reason.MALFORMED, "the answer to a probe cut short")
    probed = Probed(*_PROBED.unpack(answer))
    if probed.counted_bytes > length:
        raise ProtocolError(Reason.MALFORMED, f"{probed.counted_bytes} bytes counted of {length}")
    return probed
