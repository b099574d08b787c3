"""Asking a source for a manifest or for leaves of a piece: every leaf is checked as it comes."""

from __future__ import annotations

from collections.abc import Callable

from shared.connection import Connection
from shared.core import manifest as manifests
from shared.core.bulk import ManifestRequest, PieceRequest
from shared.core.errors import ProtocolError, Reason, RemoteError
from shared.core.ids import InfoHash, NodeId
from shared.core.manifest import MAX_MANIFEST_BYTES, Manifest
from shared.core.merkle import HASH_BYTES, LEAF_BYTES, piece_hash, verify_leaf
from shared.stream import Stream


async def ask_manifest(connection: Connection, infohash: InfoHash, signer: NodeId) -> Manifest:
    """The manifest of a swarm, signed by `signer`. Raises RemoteError."""
    with connection.open_stream() as stream:
        await stream.send_all(ManifestRequest(infohash).encode())
        stream.send_eof()
        await _expect_ok(stream)
        size = int.from_bytes(await stream.receive_exactly(4), "big")
        if size > MAX_MANIFEST_BYTES:
            raise ProtocolError(Reason.TOO_LARGE, f"a manifest of {size} bytes")
        raw = await stream.receive_exactly(size)
    return manifests.parse(raw, expect_infohash=infohash, expect_signer=signer)


async def ask_leaves(
    connection: Connection, request: PieceRequest, manifest: Manifest, take: Callable[[bytes], None]
) -> None:
    """Hands each asked leaf to `take`, in order, once it is proved. Raises RemoteError."""
    with connection.open_stream() as stream:
        await stream.send_all(request.encode())
        stream.send_eof()
        await _expect_ok(stream)
        leaves = await stream.receive_exactly(manifest.leaf_count(request.piece) * HASH_BYTES)
        whole = manifest.piece_count == 1
        if piece_hash(leaves, manifest.piece_length, whole) != manifest.piece_hash(request.piece):
            raise ProtocolError(Reason.BAD_DATA, "leaf hashes do not match the piece")
        for leaf in range(request.first_leaf, request.first_leaf + request.leaf_count):
            size = min(LEAF_BYTES, manifest.piece_size(request.piece) - leaf * LEAF_BYTES)
            data = await stream.receive_exactly(size)
            if not verify_leaf(data, leaves[leaf * HASH_BYTES : (leaf + 1) * HASH_BYTES]):
                raise ProtocolError(Reason.BAD_DATA, f"leaf {leaf} of piece {request.piece}")
            take(data)


async def _expect_ok(stream: Stream) -> None:
    status = (await stream.receive_exactly(1))[0]
    try:
        reason = Reason(status)
    except ValueError:
        raise ProtocolError(Reason.MALFORMED, f"an answer of {status}") from None
    if reason is not Reason.NONE:
        raise RemoteError(reason)
