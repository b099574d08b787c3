"""Playlists as text: HLS (RFC 8216) over byte ranges of one MP4, and M3U for set-top boxes.

Every rendition is one fragmented MP4, so its media playlist names that file again and again
with an EXT-X-BYTERANGE. The header comes in by EXT-X-MAP, which asks for version 6; version 7
is what players take as "fragmented MP4". URIs are relative to the playlist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from shared.core.ids import InfoHash, TitleId
from shared.core.manifest import Manifest
from shared.core.messages import Entry, Rendition
from shared.core.segments import Segment

HLS_TYPE = "application/vnd.apple.mpegurl"
M3U_TYPE = "audio/x-mpegurl"
VERSION = 7

_CODECS = re.compile(r"[A-Za-z0-9.,_+-]{1,100}\Z")  # the catalogue comes from elsewhere


def master(entry: Entry) -> str | None:
    """The master playlist of a title, best rendition first; None if none of them is a film."""
    films = [rendition for rendition in entry.renditions if rendition.bandwidth]
    if not films:
        return None
    lines = ["#EXTM3U", f"#EXT-X-VERSION:{VERSION}", "#EXT-X-INDEPENDENT-SEGMENTS"]
    for film in films:
        lines += [f"#EXT-X-STREAM-INF:{_stream(film)}", f"{film.infohash.hex()}.m3u8"]
    return _text(lines)


def media(manifest: Manifest) -> str | None:
    """The media playlist of a rendition; None if it is not a film."""
    if manifest.media is None:
        return None
    uri = f"{manifest.infohash.hex()}.mp4"
    segments = manifest.media.segments
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{VERSION}",
        f"#EXT-X-TARGETDURATION:{_target_seconds(segments)}",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        f'#EXT-X-MAP:URI="{uri}",BYTERANGE="{manifest.media.init_bytes}@0"',
    ]
    for segment in segments:
        lines.append(f"#EXTINF:{segment.duration_ms / 1000:.3f},")
        lines.append(f"#EXT-X-BYTERANGE:{segment.length}@{segment.offset}")
        lines.append(uri)
    return _text([*lines, "#EXT-X-ENDLIST"])


def shelf(entries: Iterable[Entry], base: str) -> str:
    """All films as one M3U for Kodi and its like; `base` is `http://host:port` without a slash."""
    lines = ["#EXTM3U"]
    for entry in entries:
        film = next((rendition for rendition in entry.renditions if rendition.bandwidth), None)
        if film is None:
            continue
        seconds = round(film.duration_ms / 1000)
        # The name begins behind the last quote's comma: a comma in it does no harm, a quote would.
        lines.append(
            f'#EXTINF:{seconds} tvg-id="{entry.title_id.hex()}" media="true",{plain_name(entry.title)}'
        )
        lines.append(f"{base}{master_path(entry.title_id)}")
    return _text(lines)


def master_path(title_id: TitleId) -> str:
    """Where the player's door serves a title's master playlist."""
    return f"/titles/{title_id.hex()}/master.m3u8"


def film_path(title_id: TitleId, infohash: InfoHash) -> str:
    """Where the player's door serves a rendition as a plain MP4."""
    return f"/titles/{title_id.hex()}/{infohash.hex()}.mp4"


def plain_name(title: str) -> str:
    """A title on one line of a playlist: nothing that ends the line or quotes, never empty."""
    shown = "".join(c if c.isprintable() else " " for c in title.replace('"', "'"))
    return " ".join(shown.split()) or "untitled"


def _stream(film: Rendition) -> str:
    parts = [f"BANDWIDTH={film.bandwidth}"]
    if _CODECS.match(film.codecs):
        parts.append(f'CODECS="{film.codecs}"')
    if film.width and film.height:
        parts.append(f"RESOLUTION={film.width}x{film.height}")
    return ",".join(parts)


def _target_seconds(segments: Iterable[Segment]) -> int:
    """No segment, rounded to whole seconds, may be longer than the target (RFC 8216, 4.3.3.1)."""
    longest_ms = max((segment.duration_ms for segment in segments), default=0)
    return max(1, (longest_ms + 500) // 1000)


def _text(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
