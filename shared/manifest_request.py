"""Asking a node for a manifest on a bulk stream."""

from __future__ import annotations

from shared.core.bulk import ManifestRequest
from shared.core.errors import ProtocolError, Reason, RemoteError
from shared.core.ids import InfoHash, NodeId
from shared.core.manifest import MAX_MANIFEST_BYTES, Manifest, parse
from shared.stream import Stream


async def request_manifest(stream: Stream, infohash: InfoHash, signer: NodeId) -> Manifest:
    """The manifest of a swarm, checked. Raises RemoteError, ProtocolError if it is not what was asked for."""
    await stream.send_all(ManifestRequest(infohash).encode())
    stream.send_eof()
    await expect_ok(stream)
    size = int.from_bytes(await stream.receive_exactly(4), "big")
    if size > MAX_MANIFEST_BYTES:
        raise ProtocolError(Reason.TOO_LARGE, f"a manifest of {size} bytes")
    raw = await stream.receive_exactly(size)
    return parse(raw, expect_infohash=infohash, expect_signer=signer)


async def expect_ok(stream: Stream) -> None:
    """Reads how a bulk request was received. Raises RemoteError with the reason if it was declined."""
    status = (await stream.receive_exactly(1))[0]
    try:
        reason = Reason(status)
    except ValueError:
        raise ProtocolError(Reason.MALFORMED, f"an answer of {status}") from None
    if reason is not Reason.NONE:
        raise RemoteError(reason)
