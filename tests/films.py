"""Small films of many kinds, made with the media library, for tests to feed to the media child."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from edge.media.clip import video_frame
from edge.media.picture import Scene


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a film is made of; `None` leaves picture or sound out."""

    muxer: str
    video: str | None
    audio: str | None
    seconds: float = 2.0
    width: int = 176
    height: int = 144
    fps: int = 25
    gop: int = 25
    b_frames: int = 0
    pixels: str = "yuv420p"
    sound_rate: int = 44100
    layout: str = "stereo"
    rotation: int = 0  # degrees, counter-clockwise


def make_film(path: Path, recipe: Recipe) -> Path:
    """Write a film of this recipe to `path` and return it. The same recipe gives the same film."""
    with av.open(str(path), "w", format=recipe.muxer, container_options={"fflags": "+bitexact"}) as out:
        video, audio = _video(out, recipe), _audio(out, recipe)
        for step in range(round(recipe.seconds * 5)):  # picture and sound in turn, a fifth of a second each
            out.mux(video.step(step))
            out.mux(audio.step(step))
        out.mux(video.finish())
        out.mux(audio.finish())
    return path


class _Source:
    """Picture or sound of a film; this one is neither."""

    def step(self, step: int) -> list[Packet[Stream]]:
        return []

    def finish(self) -> list[Packet[Stream]]:
        return []


class _Picture(_Source):
    def __init__(self, out: OutputContainer, codec: str, recipe: Recipe) -> None:
        options = {"bf": str(recipe.b_frames), "g": str(recipe.gop)}
        if codec == "libx264":
            options |= {"preset": "ultrafast", "sc_threshold": "0"}
        elif codec == "libvpx-vp9":
            options |= {"deadline": "realtime", "cpu-used": "8"}
        stream = out.add_stream(
            codec, rate=recipe.fps, options=options, width=recipe.width, height=recipe.height
        )
        assert isinstance(stream, VideoStream)
        self._stream = stream
        if recipe.rotation:
            self._stream.set_display_rotation(recipe.rotation)
        self._stream.codec_context.pix_fmt = recipe.pixels
        self._stream.codec_context.time_base = Fraction(1, recipe.fps)
        self._stream.codec_context.bit_rate = 200_000
        self._recipe = recipe
        self._scene = Scene(recipe.width, recipe.height, recipe.fps, seed=1)

    def step(self, step: int) -> list[Packet[Stream]]:
        fps = self._recipe.fps
        frames = range(step * fps // 5, (step + 1) * fps // 5)
        return [packet for index in frames for packet in self._stream.encode(self._frame(index))]

    def finish(self) -> list[Packet[Stream]]:
        return list(self._stream.encode(None))

    def _frame(self, index: int) -> VideoFrame:
        recipe = self._recipe
        frame = video_frame(self._scene, index, recipe.width, recipe.height, recipe.fps)
        return frame if recipe.pixels == "yuv420p" else frame.reformat(format=recipe.pixels)


class _Sound(_Source):
    def __init__(self, out: OutputContainer, codec: str, recipe: Recipe) -> None:
        stream = out.add_stream(codec, rate=recipe.sound_rate)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.codec_context.layout = recipe.layout
        self._stream.codec_context.bit_rate = 96_000
        self._rate, self._layout = recipe.sound_rate, recipe.layout

    def step(self, step: int) -> list[Packet[Stream]]:
        samples = self._rate // 5
        frame = AudioFrame("s16", self._layout, samples)
        square = bytes(samples) + b"\x00\x10" * samples  # any noise will do
        size = frame.planes[0].buffer_size
        frame.planes[0].update((square * (1 + size // len(square)))[:size])
        frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
        frame.pts = step * samples
        return list(self._stream.encode(frame))

    def finish(self) -> list[Packet[Stream]]:
        return list(self._stream.encode(None))


def _video(out: OutputContainer, recipe: Recipe) -> _Source:
    return _Picture(out, recipe.video, recipe) if recipe.video is not None else _Source()


def _audio(out: OutputContainer, recipe: Recipe) -> _Source:
    return _Sound(out, recipe.audio, recipe) if recipe.audio is not None else _Source()


def packets(path: Path, kind: str) -> list[bytes]:
    """The bytes of every packet of the first stream of a kind ("video" or "audio")."""
    with av.open(str(path)) as film:
        stream = next(stream for stream in film.streams if stream.type == kind)
        return [bytes(packet) for packet in film.demux(stream) if packet.size]


def pictures(path: Path) -> list[tuple[float, bool]]:
    """(seconds, whether it is a key frame) of every picture that decodes, in order of showing."""
    with av.open(str(path)) as film:
        return [(frame.time, frame.key_frame) for frame in film.decode(video=0)]


def rotation(path: Path) -> int:
    """Degrees, counter-clockwise, by which players turn the picture."""
    with av.open(str(path)) as film:
        return next(film.decode(video=0)).rotation


def sound_seconds(path: Path) -> float:
    """How much sound decodes."""
    with av.open(str(path)) as film:
        return sum(frame.samples / frame.sample_rate for frame in film.decode(audio=0))
