"""Opening a hostile file safely, and deciding what can be copied and what must be transcoded."""

from __future__ import annotations

from dataclasses import dataclass
from os import SEEK_END
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.codec.context import CodecContext
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from edge.media.film import Limits
from edge.media.sniff import HEAD_BYTES, describe, sniff
from shared.core.errors import Reason, Refused

MAX_STREAMS = 64
MAX_COPIED_CHANNELS = 2  # browsers differ on more
READ_BYTES = 256 << 10

_RIFF_UNKNOWN = 0xFFFF_0000  # lengths from here on are written by recorders that did not know
_MIN_RIFF_SHARE = 0.9

_NO_TIMES = frozenset(("h264", "hevc", "m4v", "mpegvideo"))  # raw streams carry no time stamps
_RESTARTING = frozenset(("mpegts", "mpeg"))  # containers whose clocks may restart
_DECLARES_LENGTH = frozenset(("mov", "matroska"))  # whose header tells the true length
_H264_PROFILES = frozenset(("Baseline", "Constrained Baseline", "Main", "High", "Constrained High"))
_AAC_PROFILES = frozenset(("LC", "HE-AAC", "HE-AACv2"))
_AAC_RATES = frozenset((22050, 24000, 32000, 44100, 48000))


@dataclass(frozen=True, slots=True)
class Film:
    """An open file and the streams chosen from it; at least one is there."""

    container: InputContainer
    demuxer: str
    video: VideoStream | None
    audio: AudioStream | None
    length_seconds: float | None  # as the header says; None when it is silent

    @property
    def restarts(self) -> bool:
        """Whether clocks in this container may restart in mid-file."""
        return self.demuxer in _RESTARTING

    @property
    def declared_seconds(self) -> float | None:
        """Playing time that a whole file must have; None where headers are known to be wrong."""
        return self.length_seconds if self.demuxer in _DECLARES_LENGTH else None

    @property
    def can_copy_video(self) -> bool:
        """H.264 that every player decodes: 8 bits, 4:2:0, with its parameter sets and times."""
        if self.video is None or self.demuxer in _NO_TIMES:
            return False
        context = self.video.codec_context
        return (
            context.name == "h264"
            and context.profile in _H264_PROFILES
            and context.pix_fmt in ("yuv420p", "yuvj420p")
            and bool(context.extradata)
        )

    @property
    def can_copy_audio(self) -> bool:
        """AAC that every player decodes."""
        if self.audio is None:
            return False
        context = self.audio.codec_context
        return (
            context.name == "aac"
            and context.profile in _AAC_PROFILES
            and 1 <= context.channels <= MAX_COPIED_CHANNELS
            and context.sample_rate in _AAC_RATES
        )


def open_film(file: BinaryIO, limits: Limits) -> Film:
    """Open a file by its content. The caller closes `container`. Raises Refused.

    The library gets a Python file object and one demuxer by name. It has no protocol left
    with which to open anything else, whatever the file tells it to.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    demuxer = sniff(head)
    if demuxer is None:
        raise Refused(Reason.NOT_A_FILM, f"the file is {describe(head)}")
    if demuxer in ("avi", "wav"):
        _check_riff(file, head)
    container = open_as(demuxer, file, limits)
    try:
        return _choose(container, demuxer, limits)
    except BaseException:
        container.close()
        raise


def open_as(demuxer: str, file: BinaryIO, limits: Limits) -> InputContainer:
    """Let one demuxer read one file and nothing else. Raises av.error.FFmpegError."""
    return av.open(
        _Nameless(file),
        "r",
        format=demuxer,
        buffer_size=READ_BYTES,
        metadata_errors="replace",
        options={
            "protocol_whitelist": "none",
            "format_whitelist": ",".join((demuxer, *_demuxer_names(demuxer))),
            "max_streams": str(MAX_STREAMS),
            "max_pixels": str(limits.pixels),
        },
    )


def _check_riff(file: BinaryIO, head: bytes) -> None:
    """Refuse an AVI or WAV shorter than it says; the library would play what is left."""
    declared = int.from_bytes(head[4:8], "little")
    held = file.seek(0, SEEK_END)
    file.seek(0)
    if declared < _RIFF_UNKNOWN and held < 8 + declared * _MIN_RIFF_SHARE:
        raise Refused(Reason.NOT_A_FILM, f"it is cut short: {held} of {8 + declared} bytes are there")


class _Nameless:
    """A read-only view of a file that does not tell the media library its path."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _demuxer_names(demuxer: str) -> list[str]:
    return av.ContainerFormat(demuxer, "r").name.split(",")


def _choose(container: InputContainer, demuxer: str, limits: Limits) -> Film:
    video, audio = _best_video(container), _best_audio(container)
    if video is None and audio is None:
        raise Refused(Reason.NOT_A_FILM, "it holds no picture and no sound that can be decoded")
    length = container.duration / av.time_base if container.duration else None
    if length is not None and length > limits.film_seconds:
        raise Refused(
            Reason.TOO_LARGE, f"it says it plays for {length:.0f} s; {limits.film_seconds} s is the limit"
        )
    if video is not None:
        check_picture(video.codec_context.width, video.codec_context.height, limits)
    return Film(container, demuxer, video, audio, length)


def check_picture(width: int, height: int, limits: Limits) -> None:
    """Refuse a picture without size or with too many pixels. Raises Refused."""
    if width <= 0 or height <= 0:
        raise Refused(Reason.NOT_A_FILM, "its picture has no size that can be decoded")
    if width * height > limits.pixels or max(width, height) > 16384:
        raise Refused(
            Reason.TOO_LARGE, f"its picture is {width}x{height}; {limits.pixels} pixels is the limit"
        )


def _best_video(container: InputContainer) -> VideoStream | None:
    """The largest decodable moving picture; cover art does not count."""
    films = [
        stream
        for stream in container.streams.video
        if _decodable(stream)
        and not stream.disposition & (Disposition.attached_pic | Disposition.still_image)
    ]
    return max(films, key=lambda s: s.codec_context.width * s.codec_context.height, default=None)


def _best_audio(container: InputContainer) -> AudioStream | None:
    """The default sound track, or else the first that can be decoded."""
    tracks = [
        stream
        for stream in container.streams.audio
        if _decodable(stream) and stream.codec_context.sample_rate > 0
    ]
    chosen = [stream for stream in tracks if stream.disposition & Disposition.default]
    return next(iter(chosen or tracks), None)


def _decodable(stream: Stream) -> bool:
    """Whether the library has a decoder; without one, streams lack their context."""
    context: CodecContext | None = stream.codec_context
    return context is not None
