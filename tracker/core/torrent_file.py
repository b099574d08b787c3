"""The .torrent of a manifest: its info dictionary as it is, with where stock clients find the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from shared.core import bencode
from shared.core.bencode import Encodable
from shared.core.ids import HostPort, InfoHash
from shared.core.manifest import MAX_DEPTH, MAX_MANIFEST_BYTES, Manifest

SOFTWARE = b"penstock"


def build(manifest: Manifest, announce: Sequence[str], web_seeds: Sequence[str]) -> bytes:
    """A .torrent (BEP 52) with trackers, best first (BEP 12), and web seeds (BEP 19).

    The manifest's other keys stay behind: its signature would not hold for what is added here.
    """
    known = bencode.loads(manifest.raw, max_bytes=MAX_MANIFEST_BYTES, max_depth=MAX_DEPTH)
    kept = cast(dict[bytes, Encodable], known)
    made: dict[bytes, Encodable] = {
        b"announce": announce[0].encode(),
        b"announce-list": [[one.encode()] for one in announce],
        b"created by": SOFTWARE,
        b"info": kept[b"info"],
        b"piece layers": kept[b"piece layers"],
        b"url-list": [one.encode() for one in web_seeds],
    }
    return bencode.dumps(made)


def web_seed_url(door: HostPort, infohash: InfoHash) -> str:
    """Where an edge's HTTP door has a rendition, without its name: clients add it to a URL that ends in
    a slash (BEP 19), and libtorrent to any of a v2 torrent."""
    return f"http://{door}/seed/{infohash.hex()}/"


def announce_urls(at: HostPort) -> tuple[str, str]:
    """The doors of a tracker: UDP first, which costs both sides less."""
    return f"udp://{at}/announce", f"http://{at}/announce"
