"""RFC 6381 names of codecs ("avc1.64001f", "mp4a.40.2"), read from a track's sample entry."""

from __future__ import annotations

from edge.media.boxes import Tree, malformed

_VISUAL_FIELDS = 78  # bytes of fixed fields before the boxes of a visual sample entry
_AUDIO_FIELDS = 28
_ES, _DECODER_CONFIG, _DECODER_SPECIFIC = 3, 4, 5  # descriptor tags, ISO/IEC 14496-1 table 1


def codec_name(entry: Tree) -> str:
    """Name of the codec of a sample entry. Raises ProtocolError unless it is H.264 or AAC."""
    if entry.box.kind == b"avc1":
        return f"avc1.{_avc_profile(entry).hex()}"
    if entry.box.kind == b"mp4a":
        return f"mp4a.40.{_aac_object_type(entry)}"
    return malformed(entry.box, entry.origin + entry.box.at, "is neither H.264 nor AAC")


def _avc_profile(entry: Tree) -> bytes:
    """Profile, compatibility and level: bytes 1 to 3 of the decoder configuration record."""
    record = next((box.payload() for box in entry.children(b"avcC", _VISUAL_FIELDS)), b"")
    if len(record) < 7 or record[0] != 1:
        malformed(entry.box, entry.origin + entry.box.at, "has no avcC")
    return record[1:4]


def _aac_object_type(entry: Tree) -> int:
    """Audio object type: the first five bits of the decoder-specific bytes, or an escape."""
    esds = next((box.payload(4) for box in entry.children(b"esds", _AUDIO_FIELDS)), b"")
    stream = _descriptor(esds, _ES)
    config = _descriptor(stream[3:], _DECODER_CONFIG)
    specific = _descriptor(config[13:], _DECODER_SPECIFIC)
    if len(specific) < 2 or config[:1] != b"\x40":
        malformed(entry.box, entry.origin + entry.box.at, "has no AAC configuration")
    kind = specific[0] >> 3
    return kind if kind != 31 else 32 + ((specific[0] & 7) << 3 | specific[1] >> 5)


def _descriptor(raw: bytes, tag: int) -> bytes:
    """Payload of the descriptor at the start of `raw`; empty when it is not `tag`."""
    if not raw or raw[0] != tag:
        return b""
    size = at = 0
    for at in range(1, 5):  # the length is one to four bytes of seven bits
        if at >= len(raw):
            return b""
        size = size << 7 | raw[at] & 0x7F
        if raw[at] < 0x80:
            break
    return raw[at + 1 : at + 1 + size]
