"""A manifest as the catalogue tells of it."""

from __future__ import annotations

from shared.core.manifest import Manifest
from shared.core.messages import Entry, Rendition


def rendition_of(manifest: Manifest) -> Rendition:
    """The rendition that a manifest describes."""
    media = manifest.media
    return Rendition(
        infohash=manifest.infohash,
        name=manifest.name,
        length=manifest.length,
        bandwidth=media.bandwidth if media else 0,
        codecs=media.codecs if media else "",
        width=media.width if media else 0,
        height=media.height if media else 0,
        duration_ms=media.duration_ms if media else 0,
    )


def entry_of(manifest: Manifest) -> Entry:
    """The title of a manifest, as far as one rendition tells."""
    return Entry(manifest.title_id, manifest.title, manifest.signer_id, (rendition_of(manifest),))
