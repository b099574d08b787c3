"""The pictures of the test film: a sun over a mill race, and a clock, drawn with byte slices.

Planes are assembled from rows that were computed once, so that a frame costs a few hundred
slices and the encoder, not the drawing, sets the pace. The water is noise on purpose: it gives
the film the bit rate of a real one.
"""

from __future__ import annotations

import math
from itertools import groupby
from random import Random

_GLYPHS = {  # three dots wide, five high; each digit is one row, its bits the dots
    "0": "75557",
    "1": "26227",
    "2": "71747",
    "3": "71717",
    "4": "55711",
    "5": "74717",
    "6": "74757",
    "7": "71122",
    "8": "75757",
    "9": "75717",
    ":": "02020",
}
_WATER_SHARE = 0.28  # of the height
_WATER_RANGE = (70, 150)  # brightness of the noise


def clock_text(second: int) -> str:
    """Minutes and seconds, e.g. "01:07"."""
    return f"{second // 60:02d}:{second % 60:02d}"


class Scene:
    """Draws frame after frame; the same size, rate and seed give the same film."""

    def __init__(self, width: int, height: int, fps: int, seed: int) -> None:
        self._width, self._height, self._fps = width, height, fps
        self._horizon = int(height * (1 - _WATER_SHARE)) & ~1
        rng = Random(seed)
        self._sky = [_wave(width, 60 + 120 * y // height, 22) for y in range(self._horizon)]
        self._water = [_ripple(width, rng) for _ in range(height - self._horizon)]
        self._blue = [_wave(width // 2, 118 + 24 * y // height, 14) for y in range(0, height, 2)]
        self._red = [_wave(width // 2, 140 - 36 * y // height, 14) for y in range(0, height, 2)]

    def draw(self, index: int) -> tuple[bytes, bytes, bytes]:
        """Luma and the two chroma planes (4:2:0, no padding) of frame `index`."""
        luma = self._luma(index)
        self._draw_sun(luma, index)
        self._draw_clock(luma, clock_text(index // self._fps))
        return bytes(luma), self._chroma(self._blue, index), self._chroma(self._red, -index)

    def _luma(self, index: int) -> bytearray:
        width = self._width
        rows = [row[(at := (index + y // 3) % width) : at + width] for y, row in enumerate(self._sky)]
        for y, row in enumerate(self._water):  # nearer water runs faster
            at = index * (2 + 12 * y // len(self._water)) % width
            rows.append(row[at : at + width])
        return bytearray(b"".join(rows))

    def _chroma(self, plane: list[bytes], index: int) -> bytes:
        width = self._width // 2
        at = (index // 2) % width
        return b"".join(row[at : at + width] for row in plane)

    def _draw_sun(self, luma: bytearray, index: int) -> None:
        """A disc that crosses the sky in half a minute, over and over."""
        radius = self._height // 9
        turn = index / (30 * self._fps)
        middle_x = int((turn % 1.0) * (self._width + 2 * radius)) - radius
        middle_y = int(self._horizon * (0.62 - 0.4 * math.sin(math.pi * (turn % 1.0))))
        for dy in range(-radius, radius):
            half = math.isqrt(radius * radius - dy * dy)
            left, right = max(0, middle_x - half), min(self._width, middle_x + half)
            if left < right and 0 <= middle_y + dy < self._horizon:
                start = (middle_y + dy) * self._width
                luma[start + left : start + right] = b"\xe1" * (right - left)

    def _draw_clock(self, luma: bytearray, text: str) -> None:
        dot = max(1, self._height // 60)
        left, top = 3 * dot, 3 * dot
        _fill(luma, self._width, left - dot, top - dot, (4 * len(text) + 1) * dot, 7 * dot, 24)
        for place, char in enumerate(text):
            for y, bits in enumerate(_GLYPHS[char]):
                row = f"{int(bits):03b}"
                x = 0
                for lit, run in groupby(row):
                    length = len(list(run))
                    if lit == "1":
                        start = left + (4 * place + x) * dot
                        _fill(luma, self._width, start, top + y * dot, length * dot, dot, 235)
                    x += length


def _wave(width: int, middle: int, swing: int) -> bytes:
    """Two periods of a row that joins up with itself."""
    once = bytes(int(middle + swing * math.sin(2 * math.pi * x / width)) for x in range(width))
    return once + once


def _ripple(width: int, rng: Random) -> bytes:
    """Two periods of noise, smoothed over four dots so that it can be encoded at all."""
    low, high = _WATER_RANGE
    knots = [rng.randrange(low, high) for _ in range(width // 4 + 1)]
    knots[-1] = knots[0]
    once = bytes(
        (knots[x // 4] * (4 - x % 4) + knots[x // 4 + 1] * (x % 4)) // 4 for x in range(width // 4 * 4)
    ).ljust(width, bytes([knots[0]]))
    return once + once


def _fill(luma: bytearray, pitch: int, left: int, top: int, width: int, height: int, tone: int) -> None:
    """A rectangle of one brightness, cut to the picture's width and height."""
    width = min(width, pitch - left)
    if width <= 0:
        return
    for y in range(top, min(top + height, len(luma) // pitch)):
        luma[y * pitch + left : y * pitch + left + width] = bytes([tone]) * width
