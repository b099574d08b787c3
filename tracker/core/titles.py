"""The catalogue in memory: titles by id, and by the swarms of their renditions."""

from __future__ import annotations

from shared.core.errors import Reason, Refused
from shared.core.ids import InfoHash, NodeId, TitleId
from shared.core.messages import Browse, Catalogue, Describe, Entry, Register, Rendition
from shared.core.shape import MIN_PIECE_BYTES

PAGE_ENTRIES = 25  # of the longest entries 27 fit a message


class Titles:
    """What may be watched, in the order it was registered."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries: dict[TitleId, Entry] = {entry.title_id: entry for entry in entries}
        self._of_swarm: dict[InfoHash, tuple[Entry, Rendition]] = {}
        for entry in entries:
            self._link(entry)

    def __contains__(self, infohash: InfoHash) -> bool:
        return infohash in self._of_swarm

    def title_of(self, infohash: InfoHash) -> Entry | None:
        """The title a swarm belongs to."""
        known = self._of_swarm.get(infohash)
        return known[0] if known else None

    def rendition_of(self, infohash: InfoHash) -> Rendition | None:
        """The rendition that a swarm shares."""
        known = self._of_swarm.get(infohash)
        return known[1] if known else None

    def rate_of(self, infohash: InfoHash) -> float:
        """Bytes per second that playing this rendition needs; 0 for a plain file."""
        rendition = self.rendition_of(infohash)
        return rendition.bandwidth / 8 if rendition else 0.0

    def length_of(self, infohash: InfoHash) -> int:
        """Bytes of a rendition; 0 if there is none."""
        rendition = self.rendition_of(infohash)
        return rendition.length if rendition else 0

    def most_pieces_of(self, infohash: InfoHash) -> int:
        """No swarm of this rendition has more pieces."""
        return -(-self.length_of(infohash) // MIN_PIECE_BYTES)

    def check(self, message: Register, edge: NodeId) -> Entry:
        """The title as it would stand here. Raises Refused if it, or a rendition, is another's."""
        known = self.entries.get(message.title_id)
        if known is not None and known.signer != edge:
            raise Refused(Reason.NOT_ALLOWED, "the title belongs to another edge")
        for rendition in message.rendition_list:
            owner = self.title_of(rendition.infohash)
            if owner is not None and owner.title_id != message.title_id:
                raise Refused(Reason.NOT_ALLOWED, "the rendition belongs to another title")
        return Entry(message.title_id, message.title, edge, message.rendition_list)

    def put(self, entry: Entry) -> None:
        """A title is new, or is not what it was."""
        before = self.entries.get(entry.title_id)
        for rendition in before.renditions if before else ():
            self._of_swarm.pop(rendition.infohash, None)
        self.entries[entry.title_id] = entry
        self._link(entry)

    def drop(self, title_id: TitleId) -> None:
        """A title is not known here any more."""
        entry = self.entries.pop(title_id, None)
        for rendition in entry.renditions if entry else ():
            self._of_swarm.pop(rendition.infohash, None)

    def browse(self, message: Browse) -> Catalogue:
        """A page of the catalogue, the newest first."""
        newest = list(self.entries.values())[::-1]
        page = tuple(newest[message.skip : message.skip + PAGE_ENTRIES])
        return Catalogue(message.request, len(newest), page)

    def describe(self, message: Describe) -> Catalogue:
        """One title. Raises Refused if it is unknown."""
        entry = self.entries.get(message.title_id)
        if entry is None:
            raise Refused(Reason.UNKNOWN_TITLE, "not in the catalogue")
        return Catalogue(message.request, 1, (entry,))

    def _link(self, entry: Entry) -> None:
        for rendition in entry.renditions:
            self._of_swarm[rendition.infohash] = (entry, rendition)
