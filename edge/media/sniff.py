"""Which demuxer may read a file, decided from its first bytes and nothing else.

Guessing by content inside the media library also tries playlists, concat scripts, session
descriptions and image sequences, all of which open further files. So the guess is made here,
from a closed list of formats that hold their own bytes, and the library is told the answer.
"""

from __future__ import annotations

HEAD_BYTES = 4096  # enough to see sixteen transport-stream packets

_MOV_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot"))

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1aE\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\x00\xaa\x00b\xcel", "asf"),
    (b".RMF", "rm"),
    (b".ra\xfd", "rm"),
    (b"OggS", "ogg"),
    (b"fLaC", "flac"),
    (b"ID3", "mp3"),
    (b"#!AMR", "amr"),
    (b"\x0bw", "ac3"),
    (b"\x06\x0e+4\x02\x05\x01\x01", "mxf"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"\x00\x00\x01\xb0", "m4v"),
)
_RIFF = {b"AVI ": "avi", b"AVIX": "avi", b"WAVE": "wav"}
_FORM = {b"AIFF": "aiff", b"AIFC": "aiff"}

# Things people upload by mistake; naming them is kinder than "unknown".
_NOT_FILMS: tuple[tuple[bytes, str], ...] = (
    (b"#EXTM3U", "a playlist, which only names other files"),
    (b"ffconcat", "a concat list, which only names other files"),
    (b"[playlist]", "a playlist, which only names other files"),
    (b"v=0", "a session description, which only names a stream"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"BM", "a picture (BMP)"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
    (b"<", "a web page or XML"),
)
_PICTURE_BRANDS = frozenset((b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis"))


def sniff(head: bytes) -> str | None:
    """Name of the one demuxer that may read a file with this beginning; None when it is no film.

    `head` is the first HEAD_BYTES of the file, or all of a shorter one.
    """
    if head[4:8] in _MOV_BOXES:
        return None if head[8:12] in _PICTURE_BRANDS else "mov"
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[:4] == b"FORM":
        return _FORM.get(head[8:12])
    for magic, demuxer in _MAGIC:
        if head.startswith(magic):
            return demuxer
    if _not_a_film(head) is not None:  # an archive may hold a film whose sync bytes shine through
        return None
    return _elementary(head) or ("mpegts" if _is_transport_stream(head) else None) or _sound(head)


def describe(head: bytes) -> str:
    """What a file that is no film seems to be, in words, for the refusal; never its bytes."""
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp":
        return "a picture (HEIF or AVIF)"
    if (name := _not_a_film(head)) is not None:
        return name
    if all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head[:512]):
        return "a text file"
    return "of no known film or sound format"


def _not_a_film(head: bytes) -> str | None:
    return next((name for magic, name in _NOT_FILMS if head.startswith(magic)), None)


def _elementary(head: bytes) -> str | None:
    """Raw H.264 or H.265: a start code, then a parameter set or access unit delimiter."""
    start = 4 if head.startswith(b"\0\0\0\1") else 3 if head.startswith(b"\0\0\1") else 0
    if not start or len(head) < start + 2:
        return None
    first = head[start]
    if first in (0x06, 0x09) or first in (0x27, 0x47, 0x67):
        return "h264"
    return "hevc" if first in (0x40, 0x42, 0x46) and head[start + 1] == 1 else None


def _is_transport_stream(head: bytes) -> bool:
    """Five sync bytes at the pitch of plain, time-stamped or error-corrected packets."""
    for pitch in (188, 192, 204):
        for first in range(min(pitch, len(head))):
            marks = head[first : first + 5 * pitch : pitch]
            if marks == b"\x47" * 5:
                return True
    return False


def _sound(head: bytes) -> str | None:
    """MPEG audio or ADTS AAC: an eleven-bit sync and fields that are not reserved."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:
        return "aac"
    layer, rate = head[1] >> 1 & 3, head[2] >> 2 & 3
    return "mp3" if layer and rate != 3 and head[2] >> 4 != 15 and head[1] >> 3 & 3 != 1 else None
