"""Renditions that everybody may have, and what stock BitTorrent clients and web seeds are told of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shared.core.errors import Reason, Refused
from shared.core.ids import InfoHash, TitleId
from shared.core.messages import AskOpen, Entry, IsOpen
from tracker.core.groups import Groups
from tracker.core.titles import Titles
from tracker.core.torrent_peers import HASH_BYTES

OPEN_SECONDS = 10  # a title that is closed leaves web seeds after so long


@dataclass(frozen=True, slots=True)
class OpenTitles:
    """Looks at the catalogue and its groups; remembers nothing.

    What is borrowed from another region is not offered: only there it is known who may have it.
    """

    titles: Titles
    groups: Groups
    has_door: bool  # whether the operator lets stock clients in at all

    def torrents(self) -> Iterator[bytes]:
        """What BitTorrent calls them: 20 bytes of each infohash."""
        for entry in self.titles.entries.values():
            if self._is_open(entry):
                for rendition in entry.renditions:
                    yield rendition.infohash[:HASH_BYTES]

    def _is_open(self, entry: Entry) -> bool:
        return entry.title_id not in self.titles.borrowed and self.groups.is_open(entry.title_id)

    def entry(self, infohash: InfoHash) -> Entry:
        """The title of an open rendition. Raises Refused: what is kept to groups is not known either."""
        entry = self.titles.title_of(infohash) if self.has_door else None
        if entry is None or not self._is_open(entry):
            raise Refused(Reason.UNKNOWN_TITLE, "there is no such title for everybody here")
        return entry

    def best_of(self, title_id: TitleId) -> InfoHash:
        """The best rendition of an open title. Raises Refused as `entry`."""
        known = self.titles.entries.get(title_id)
        infohash = known.renditions[0].infohash if known else InfoHash(b"")
        self.entry(infohash)
        return infohash

    def answer(self, message: AskOpen) -> IsOpen:
        """To an edge that is asked for a rendition over HTTP. Raises Refused."""
        self.entry(message.infohash)
        return IsOpen(message.request, OPEN_SECONDS)
