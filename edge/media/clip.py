"""A test film: moving picture with a burnt-in clock, a chord a second, H.264 and AAC in MP4.

Made, not shipped, so that a fresh machine has something to publish. The same arguments give
the same film.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from edge.media.picture import Scene
from shared.core.errors import LocalError

SOUND_RATE = 48_000
KEY_SECONDS = 2
MAX_SECONDS = 3600
_VIDEO_RATE = 3_000_000  # bits per second at 1280x720; other sizes in proportion
_SOUND_FRAME = 1024
# Whole numbers of hertz, so that a second of each joins up with itself and with the next.
_CHORDS = ((220, 277, 330), (196, 247, 294), (175, 220, 262), (165, 208, 247))


def write_clip(
    path: Path,
    seconds: int = 60,
    width: int = 1280,
    height: int = 720,
    fps: int = 30,
    seed: int = 0,
    report: Callable[[float], None] | None = None,
) -> None:
    """Write the film to `path`; `report(share done)` is called once per five seconds of film.

    Raises LocalError for sizes that cannot be made, OSError from the disk.
    """
    if not 1 <= seconds <= MAX_SECONDS or not 1 <= fps <= 120:
        raise LocalError(f"a test film has 1 to {MAX_SECONDS} seconds and 1 to 120 frames per second")
    if width % 2 or height % 2 or not (64 <= width <= 4096 and 64 <= height <= 4096):
        raise LocalError("a test film has even sides of 64 to 4096 pixels")
    options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", container_options=options) as out:
        video, audio = _add_video(out, width, height, fps), _add_audio(out)
        scene, chords = Scene(width, height, fps, seed), [_chord(notes) for notes in _CHORDS]
        for second in range(seconds):
            for index in range(second * fps, (second + 1) * fps):
                out.mux(video.encode(video_frame(scene, index, width, height, fps)))
            for sound in _sound(chords[second % len(chords)], second):
                out.mux(audio.encode(sound))
            if report is not None and (second % 5 == 4 or second == seconds - 1):
                report((second + 1) / seconds)
        out.mux(video.encode(None))
        out.mux(audio.encode(None))


def _add_video(out: OutputContainer, width: int, height: int, fps: int) -> VideoStream:
    rate = max(100_000, _VIDEO_RATE * width * height // (1280 * 720))
    video = out.add_stream(
        "libx264",
        rate=fps,
        width=width,
        height=height,
        bit_rate=rate,
        options={
            "preset": "ultrafast",
            "maxrate": str(rate * 5 // 4),
            "bufsize": str(rate),
            "sc_threshold": "0",
            "g": str(fps * KEY_SECONDS),
        },
    )
    video.codec_context.pix_fmt = "yuv420p"
    video.codec_context.thread_count = 2
    video.codec_context.time_base = Fraction(1, fps)
    return video


def _add_audio(out: OutputContainer) -> AudioStream:
    audio = out.add_stream("aac", rate=SOUND_RATE)
    audio.codec_context.layout = "stereo"
    audio.codec_context.bit_rate = 128_000
    return audio


def video_frame(scene: Scene, index: int, width: int, height: int, fps: int) -> VideoFrame:
    """Frame `index` of a scene of that size and rate, ready to be encoded."""
    frame = VideoFrame(width, height, "yuv420p")
    for plane, drawn in zip(frame.planes, scene.draw(index), strict=True):
        plane.update(_padded(drawn, plane.width, plane.line_size))
    frame.pts, frame.time_base = index, Fraction(1, fps)
    frame.pict_type = PictureType.NONE
    return frame


def _padded(drawn: bytes, width: int, pitch: int) -> bytes:
    """The plane with its rows as far apart as the library wants them."""
    if width == pitch:
        return drawn
    gap = bytes(pitch - width)
    return b"".join(drawn[at : at + width] + gap for at in range(0, len(drawn), width))


def _chord(notes: tuple[int, ...]) -> bytes:
    """One second of a chord that swells and fades: interleaved stereo, 16 bits."""
    samples = array("h")
    level = 6000 / len(notes) * 2
    for tick in range(SOUND_RATE):
        at = tick / SOUND_RATE
        swell = math.sin(math.pi * at)
        tone = sum(math.sin(2 * math.pi * note * at) for note in notes)
        value = int(level * swell * tone)
        samples.extend((value, value))
    return samples.tobytes()


def _sound(chord: bytes, second: int) -> list[AudioFrame]:
    """One second of sound in frames of at most 1024 samples."""
    frames = []
    for at in range(0, SOUND_RATE, _SOUND_FRAME):
        part = chord[4 * at : 4 * (at + _SOUND_FRAME)]
        frame = AudioFrame("s16", "stereo", len(part) // 4)
        frame.planes[0].update(part.ljust(frame.planes[0].buffer_size, b"\0"))
        frame.sample_rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
        frame.pts = second * SOUND_RATE + at
        frames.append(frame)
    return frames
