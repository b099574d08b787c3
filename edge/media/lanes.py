"""A lane carries one stream from the source to the prepared file: copied, or transcoded."""

from __future__ import annotations

from fractions import Fraction
from typing import Protocol, overload

import av
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from edge.media.film import Limits
from edge.media.probe import check_picture
from edge.media.timeline import Timeline
from shared.core.errors import Reason, Refused

KEY_SECONDS = 2  # a key frame at every multiple: half a segment, so that seeks are cheap
VIDEO_CLOCK = Fraction(1, 90_000)
MAX_BROKEN_SHARE = 0.5  # of a stream's packets; above it the film is not worth publishing
_MAX_FRAME_RATE = 120
_BITS_PER_PIXEL = 0.15  # ceiling; x264 at CRF 23 stays under it except in noise
_MAX_UNDATED = 32  # packets; H.264 reorders at most 16 pictures
_SOUND_RATES = (44_100, 48_000)


# What the library raises for bytes that break their format, as against our own failures.
BROKEN = (
    av.error.InvalidDataError,
    av.error.PatchWelcomeError,
    av.error.ExternalError,
    av.error.UnknownError,
)


class Lane(Protocol):
    """Takes the packets of one source stream in order and gives those to be muxed."""

    opened: bool  # whether all that the file's header needs is known

    def take(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """Packets that are ready after this one."""
        ...

    def finish(self) -> list[Packet[Stream]]:
        """Packets that were still held back. Raises Refused when too little was usable."""
        ...


class CopyLane:
    """The same bytes with time stamps that the muxer accepts."""

    opened = True

    def __init__(self, out: OutputContainer, source: VideoStream | AudioStream, restarts: bool) -> None:
        self._target: Stream = out.add_stream_from_template(source, opaque=True)
        assert source.time_base is not None
        self._timeline = Timeline(float(1 / source.time_base), restarts)
        self._undated: list[Packet[Stream]] = []
        # In transport streams each AAC frame brings its own header, which MP4 wants once and apart.
        self._unwrap = (
            BitStreamFilterContext("aac_adtstoasc", source) if isinstance(source, AudioStream) else None
        )

    def take(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """The packet itself; an AAC frame without its transport header."""
        try:
            ready = [packet] if self._unwrap is None else self._unwrap.filter(packet)
        except BROKEN:
            return []
        self._undated += ready
        if all(one.dts is None for one in ready) and len(self._undated) < _MAX_UNDATED:
            return []
        return self.finish()

    def finish(self) -> list[Packet[Stream]]:
        """Date and give what was held back.

        Matroska stores no decoding times, and the library cannot know those of the first few
        packets: they are counted back from the first that has one.
        """
        ready, self._undated = self._undated, []
        for later, one in reversed(list(zip(ready[1:], ready, strict=False))):
            if one.dts is None and later.dts is not None:
                one.dts = later.dts - max(one.duration or 0, 1)
        for one in ready:
            one.dts, one.pts = self._timeline.place(one.dts, one.pts, one.duration or 0)
            one.stream = self._target
        return ready


class _Tally:
    """Counts what could be decoded, so that a little damage is forgiven and much is not."""

    def __init__(self, what: str) -> None:
        self.good = self.broken = 0
        self._what = what

    def check(self) -> None:
        """Raises Refused when nothing, or less than half, could be decoded."""
        if not self.good or self.broken > MAX_BROKEN_SHARE * (self.good + self.broken):
            raise Refused(Reason.NOT_A_FILM, f"its {self._what} cannot be decoded")


class VideoLane:
    """Decoded, made 8-bit 4:2:0 with even sides, and encoded as H.264."""

    def __init__(self, out: OutputContainer, source: VideoStream, restarts: bool, limits: Limits) -> None:
        self.opened = False
        self._source, self._limits = source, limits
        source.thread_type, source.thread_count = "AUTO", limits.threads
        self._rate = _frame_rate(source)
        self._timeline = Timeline(float(1 / VIDEO_CLOCK), restarts)
        self._tally = _Tally("picture")
        self._last_key = -1
        self._target = _add_h264(out, source, self._rate, limits.threads)

    def take(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """Encoded packets; a broken packet is counted and left out."""
        try:
            frames = self._source.decode(packet)
        except BROKEN:
            self._tally.broken += 1
            return []
        return [ready for frame in frames for ready in self._encode(frame)]

    def finish(self) -> list[Packet[Stream]]:
        """What decoder and encoder still hold."""
        held = [ready for frame in _rest(self._source) for ready in self._encode(frame)]
        self._tally.check()
        return held + list(self._target.encode(None))

    def _encode(self, frame: VideoFrame) -> list[Packet[Stream]]:
        check_picture(frame.width, frame.height, self._limits)
        self._tally.good += 1
        if not self.opened and frame.rotation:
            self._target.set_display_rotation(frame.rotation)
        self.opened = True
        given = frame.pts
        if given is not None and frame.time_base:
            given = round(given * frame.time_base / VIDEO_CLOCK)
        at, _ = self._timeline.place(given, None, round(1 / self._rate / VIDEO_CLOCK))
        frame = self._shape(frame)
        frame.time_base, frame.pts = VIDEO_CLOCK, at
        key = at // round(KEY_SECONDS / VIDEO_CLOCK)
        # The decoder's picture type would otherwise be taken as an order to the encoder.
        frame.pict_type = PictureType.NONE if key == self._last_key else PictureType.I
        self._last_key = key
        return list(self._target.encode(frame))

    def _shape(self, frame: VideoFrame) -> VideoFrame:
        context = self._target.codec_context
        same = (frame.width, frame.height) == (context.width, context.height)
        if same and frame.format.name == context.pix_fmt:
            return frame
        return frame.reformat(width=context.width, height=context.height, format="yuv420p")


class AudioLane:
    """Decoded, mixed down to at most two channels, and encoded as AAC."""

    opened = True

    def __init__(self, out: OutputContainer, source: AudioStream, restarts: bool) -> None:
        self._source = source
        context = source.codec_context
        self._rate = context.sample_rate if context.sample_rate in _SOUND_RATES else _SOUND_RATES[-1]
        self._layout = "mono" if context.channels == 1 else "stereo"
        self._target = out.add_stream("aac", rate=self._rate)
        self._target.codec_context.layout = self._layout
        self._target.codec_context.bit_rate = 64_000 if self._layout == "mono" else 128_000
        self._target.codec_context.time_base = Fraction(1, self._rate)
        self._restarts = restarts
        self._timeline = Timeline(self._rate, restarts)
        self._tally = _Tally("sound")
        self._resampler: AudioResampler | None = None
        self._shape: tuple[int, str, str] | None = None

    def take(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """Encoded packets; a broken packet is counted and left out."""
        try:
            frames = self._source.decode(packet)
        except BROKEN:
            self._tally.broken += 1
            return []
        return [ready for frame in frames for ready in self._resample(frame)]

    def finish(self) -> list[Packet[Stream]]:
        """What decoder, resampler and encoder still hold."""
        held = [ready for frame in _rest(self._source) for ready in self._resample(frame)]
        self._tally.check()
        return held + self._drain() + list(self._target.encode(None))

    def _resample(self, frame: AudioFrame) -> list[Packet[Stream]]:
        if not frame.samples:
            return []
        self._tally.good += 1
        drained = self._follow(frame)
        given = frame.pts
        if given is not None and frame.time_base:
            given = round(given * frame.time_base * self._rate)
        length = frame.samples * self._rate // frame.sample_rate
        at, _ = self._timeline.place(given, None, length)
        frame.time_base, frame.pts = Fraction(1, self._rate), at
        assert self._resampler is not None
        return drained + self._encode(self._resampler.resample(frame))

    def _follow(self, frame: AudioFrame) -> list[Packet[Stream]]:
        """A new resampler whenever the source changes its shape in mid-file."""
        shape = (frame.sample_rate, frame.format.name, frame.layout.name)
        if shape == self._shape:
            return []
        drained = self._drain()
        # async=1 fills gaps with silence and trims overlaps: sound must not drift from picture.
        self._resampler = AudioResampler("fltp", self._layout, self._rate, options={"async": "1"})
        self._shape = shape
        return drained

    def _drain(self) -> list[Packet[Stream]]:
        return [] if self._resampler is None else self._encode(self._resampler.resample(None))

    def _encode(self, frames: list[AudioFrame]) -> list[Packet[Stream]]:
        return [ready for frame in frames for ready in self._target.encode(frame)]


@overload
def _rest(source: VideoStream) -> list[VideoFrame]: ...
@overload
def _rest(source: AudioStream) -> list[AudioFrame]: ...
def _rest(source: VideoStream | AudioStream) -> list[VideoFrame] | list[AudioFrame]:
    """The frames a decoder gives up at the end."""
    try:
        return source.decode(None)
    except BROKEN:
        return []


def _frame_rate(source: VideoStream) -> Fraction:
    """Frames per second: what the source says, or averages, or 25."""
    rate = source.guessed_rate or source.average_rate or Fraction(25)
    return rate if 1 <= rate <= _MAX_FRAME_RATE else Fraction(25)


def _add_h264(out: OutputContainer, source: VideoStream, rate: Fraction, threads: int) -> VideoStream:
    """An H.264 stream of the source's size, shape of pixels and colours."""
    seen = source.codec_context
    width, height = max(2, seen.width & ~1), max(2, seen.height & ~1)
    ceiling = max(300_000, int(_BITS_PER_PIXEL * width * height * min(float(rate), 60.0)))
    target = out.add_stream(
        "libx264",
        rate=rate,
        width=width,
        height=height,
        options={
            "preset": "veryfast",
            "crf": "23",
            "profile": "high",
            "maxrate": str(ceiling),
            "bufsize": str(2 * ceiling),
            "sc_threshold": "0",
            "forced-idr": "1",
            "g": str(int(rate * KEY_SECONDS * 4)),
        },
    )
    context = target.codec_context
    context.pix_fmt, context.time_base = "yuv420p", VIDEO_CLOCK
    context.thread_count = threads
    if seen.sample_aspect_ratio:
        context.sample_aspect_ratio = seen.sample_aspect_ratio
    return target
