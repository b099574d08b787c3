"""What the player's door asks of the daemon, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from shared.core.ids import InfoHash, Mode, TitleId
from shared.core.manifest import Manifest
from shared.core.messages import Entry
from shared.file_response import Reader

JSON: TypeAlias = "None | bool | int | float | str | Sequence[JSON] | Mapping[str, JSON]"


class Titles(Protocol):
    """Everything that can be watched here; all errors are LocalError or RemoteError, bare."""

    async def catalogue(self) -> list[Entry]:
        """All titles, newest first."""
        ...

    async def open_title(self, title_id: TitleId) -> Entry:
        """What a title is; its sources are looked for from now on. Refused if there is no such title."""
        ...

    async def manifest(self, infohash: InfoHash) -> Manifest:
        """A rendition's manifest, as soon as a source has given it."""
        ...

    def open_reader(self, infohash: InfoHash, *, playing: bool) -> Reader:
        """A reader for one request; `playing` means that somebody watches as it reads."""
        ...

    def statistics(self) -> Mapping[str, JSON]:
        """The whole peer, as the JSON door tells it.

        The page shows what is there of `kind`, `mode`, `tracker_up`, `connections`, `up_rate` and
        `cap_rate` (bytes/s; a cap of 0 is none), of `cap` (`peer.core.upload_cap.CapStatistics`) and
        of `sharing` (`peer.sharing.Sharing.statistics`).
        """
        ...

    async def choose(self, mode: Mode | None, pause_seconds: float | None, metered_here: bool | None) -> None:
        """Changes whether this peer uploads, as far as given; see `peer.sharing.Sharing.choose`."""
        ...

    def title_statistics(self, infohash: InfoHash) -> Mapping[str, JSON]:
        """One rendition; empty if it is not open. The page shows what is there of:

        `held`: one character per piece: `.` missing, `e` from an edge, `p` from a peer, `1` from earlier.
        `sources`: a list of `node` (hex), `kind`, `name`, `taken_bytes`, `rate` (bytes/s).
        `edge_bytes`, `peer_bytes`, `uploaded_bytes`, `down_rate`, `up_rate`, `stalls`,
        `playhead_bytes` (where playback reads). A key of the catalogue's rendition, such as `length`,
        means the same here.
        """
        ...
