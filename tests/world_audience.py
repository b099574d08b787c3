"""People who watch, in virtual time: they read through a buffer as players do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peer.core.wishes import DOWNLOAD_PATIENCE_SECONDS
from shared.core.ids import InfoHash
from shared.core.manifest import Manifest
from tests.world_parts import SEGMENT_MS, Viewer, VirtualClock

PLAYER_BUFFER_SECONDS = 12.0
PLAYER_TICK_SECONDS = 0.05
PICTURE_SECONDS = 1.0  # a player shows the first picture when it has this much


class Audience:
    """The viewers of a world's films, all of one length. `pump` carries out what a core decided."""

    def __init__(
        self,
        clock: VirtualClock,
        manifests: dict[InfoHash, Manifest],
        pump: Callable[[Any], None],
        tick_seconds: float,
    ) -> None:
        manifest = next(iter(manifests.values()))
        assert manifest.media is not None
        self.viewers: list[Viewer] = []
        self.picture_seconds = PICTURE_SECONDS
        self._clock = clock
        self._manifest = manifest
        self._tick_seconds = tick_seconds
        self._film_seconds = SEGMENT_MS / 1000 * len(manifest.media.segments)
        self._pump = pump

    def watch(self, viewer: Viewer) -> None:
        """The viewer will press play at `began_at`."""
        self.viewers.append(viewer)
        self._clock.at(viewer.began_at, lambda: self._press_play(viewer))

    def _press_play(self, viewer: Viewer) -> None:
        if viewer.host.alive:
            viewer.host.core.fetch(viewer.infohash, self._clock.now)
            self._pump(viewer.host)
            self._play(viewer)

    def _play(self, viewer: Viewer) -> None:
        if not viewer.host.alive or viewer.done:
            return
        fetch = viewer.host.core.fetches[viewer.infohash]
        if fetch.manifest is not None:
            self._look(viewer, fetch)
            if viewer.downloads:
                self._download(viewer, fetch)
            else:
                self._read(viewer, fetch)
                self._show(viewer, fetch)
        tick = self._tick(viewer)
        self._clock.at(self._clock.now + tick, lambda: self._play(viewer))

    def _tick(self, viewer: Viewer) -> float:
        return PLAYER_TICK_SECONDS if viewer.startup_seconds is None else self._tick_seconds

    def _look(self, viewer: Viewer, fetch: Any) -> None:
        if viewer.whole_at is None and fetch.known.held.complete:
            viewer.whole_at = self._clock.now

    def _download(self, viewer: Viewer, fetch: Any) -> None:
        if viewer.whole_at is not None:
            viewer.done = True
            fetch.download(False, self._clock.now)
        elif not fetch.known.downloading:
            fetch.download(True, self._clock.now)
            self._pump(viewer.host)
        while viewer.read_offset < self._manifest.length and self._saved(viewer, fetch):
            viewer.read_offset += self._manifest.piece_length

    def _saved(self, viewer: Viewer, fetch: Any) -> bool:
        """Whether the next piece of the file is here; else its reader waits for it."""
        piece = viewer.read_offset // self._manifest.piece_length
        fetch.known.playhead.pass_by(viewer.read_offset)
        if viewer.waits_for is not None and fetch.known.here(piece):
            fetch.stop_waiting(viewer.waits_for)
            viewer.waits_for = None
        elif viewer.waits_for is None and not fetch.known.here(piece):
            viewer.waits_for = piece
            fetch.wait(piece, self._clock.now, DOWNLOAD_PATIENCE_SECONDS)
            self._pump(viewer.host)
        return bool(fetch.known.here(piece))

    def _read(self, viewer: Viewer, fetch: Any) -> None:
        playhead = fetch.known.playhead
        while viewer.read_offset < self._manifest.length:
            ahead = playhead.media_seconds(viewer.read_offset) - viewer.shown_seconds
            if ahead > PLAYER_BUFFER_SECONDS or not self._has(viewer, fetch):
                break
            piece = viewer.read_offset // self._manifest.piece_length
            viewer.read_offset = (piece + 1) * self._manifest.piece_length

    def _has(self, viewer: Viewer, fetch: Any) -> bool:
        """Whether the piece at the viewer's offset is here; else the viewer waits for it."""
        now, piece = self._clock.now, viewer.read_offset // self._manifest.piece_length
        if viewer.waits_for is None:
            if not fetch.read(viewer.read_offset, now):
                viewer.waits_for, viewer.waits_since = piece, now
                fetch.wait(piece, now)
            self._pump(viewer.host)
        if not fetch.known.here(piece):
            return False
        if viewer.waits_for is not None:
            fetch.stop_waiting(piece)
            fetch.known.playhead.waited(viewer.read_offset, viewer.waits_since, now)
            viewer.waits_for = None
        return True

    def _show(self, viewer: Viewer, fetch: Any) -> None:
        end = min(viewer.read_offset, self._manifest.length)
        ahead = fetch.known.playhead.media_seconds(end) - viewer.shown_seconds
        if viewer.startup_seconds is None:
            if ahead >= self.picture_seconds:
                viewer.startup_seconds = self._clock.now - viewer.began_at
                self._clock.note(f"{viewer.host.name} shows a picture")
        elif ahead >= self._enough(viewer) or end == self._manifest.length:
            self._show_on(viewer)
        elif viewer.stalled:
            viewer.stall_seconds += self._tick_seconds
        else:
            viewer.stalled = True
            viewer.stalls += 1
            self._clock.note(f"{viewer.host.name} stalls")

    def _enough(self, viewer: Viewer) -> float:
        """After a stall a player wants more than the next instant before it goes on."""
        return self.picture_seconds if viewer.stalled else self._tick_seconds

    def _show_on(self, viewer: Viewer) -> None:
        viewer.stalled = False
        viewer.shown_seconds += self._tick_seconds
        if viewer.shown_seconds >= self._film_seconds:
            viewer.done = True
            self._clock.note(f"{viewer.host.name} saw it all")
