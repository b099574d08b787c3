"""Where playback is, judged only from what the player reads.

A player reads ahead of what it shows, so a read is not yet a need. The playhead is anchored at
the first read (media time m is shown at clock time t) and runs at normal speed from there; the
byte of media time x has its deadline at t + (x - m). A read far from the last one is a seek, a
read that comes later than its own deadline follows a pause: both anchor anew.
"""

from __future__ import annotations

from bisect import bisect_right

from shared.core.manifest import Manifest

SEEK_SECONDS = 20.0  # a read this far from the last one is a seek
START_SECONDS = 4.0  # a segment: players show nothing before they have one
IDLE_SECONDS = 30.0  # nobody reads: stop fetching ahead
STALL_SECONDS = 0.1  # shorter waits are hidden by every player's own buffer


class Playhead:
    """The playhead of one rendition. Without media times (a plain file) nothing has a deadline."""

    def __init__(self, manifest: Manifest) -> None:
        segments = manifest.media.segments if manifest.media else ()
        self._offsets = [segment.offset for segment in segments]
        self._starts = [segment.start_ms / 1000 for segment in segments]
        self._ends = [(s.start_ms + s.duration_ms) / 1000 for s in segments]
        self._lengths = [segment.length for segment in segments]
        self._anchor_at = float("-inf")
        self._anchor_seconds = 0.0
        self._read_at = float("-inf")
        self.read_offset = 0
        self.stalls = 0

    def media_seconds(self, offset: int) -> float:
        """The media time of a byte; 0 for the header before the first segment."""
        index = bisect_right(self._offsets, offset) - 1
        if index < 0:
            return 0.0
        inside = (offset - self._offsets[index]) / self._lengths[index]
        return self._starts[index] + min(1.0, inside) * (self._ends[index] - self._starts[index])

    def read(self, offset: int, now: float) -> None:
        """The player asks for the byte at `offset`."""
        at = self.media_seconds(offset)
        jump = abs(at - self.media_seconds(self.read_offset)) > SEEK_SECONDS
        if jump or not self.active(now) or now > self.deadline(offset):
            self._anchor(at, now)
        self.read_offset = offset
        self._read_at = now

    def pass_by(self, offset: int) -> None:
        """Somebody takes the byte at `offset` who shows nothing: no deadline follows from it."""
        self.read_offset = offset

    def waited(self, offset: int, since: float, now: float) -> None:
        """A read that had to wait is served: start-up, or a stall if playback had begun."""
        late = now > self.deadline(offset) + STALL_SECONDS
        if late:
            self.stalls += since > self._anchor_at
            self._anchor(self.media_seconds(offset), now)
        self._read_at = now

    def _anchor(self, seconds: float, now: float) -> None:
        self._anchor_at = now
        self._anchor_seconds = seconds

    def deadline(self, offset: int) -> float:
        """When the byte must be here; infinity in a plain file, and before anybody read."""
        if not self._offsets or self._read_at == float("-inf"):
            return float("inf")
        return self._anchor_at + self.media_seconds(offset) - self._anchor_seconds

    def is_start(self, offset: int) -> bool:
        """Whether the byte is of what must be here before anything is shown, after a start or a seek."""
        has_begun = self.deadline(offset) != float("inf")
        return has_begun and 0.0 <= self.media_seconds(offset) - self._anchor_seconds < START_SECONDS

    def active(self, now: float) -> bool:
        """Whether somebody has been reading lately."""
        return now - self._read_at <= IDLE_SECONDS
