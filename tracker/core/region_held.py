"""What one region holds, as its tracker told the central tier."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import InfoHash, Kind, NodeId, TitleId, parse_host_port
from shared.core.messages import Entry, Holds, Source, SwarmHeld
from shared.core.tier_messages import MAX_ADMITTED

MAX_TITLES = 100_000  # of one region
MAX_SWARMS = 200_000


@dataclass(slots=True)
class RegionHeld:
    """Titles and swarms of one region; built up by Holds."""

    entries: dict[TitleId, Entry] = field(default_factory=dict)
    swarms: dict[InfoHash, SwarmHeld] = field(default_factory=dict)
    edges: dict[NodeId, None] = field(default_factory=dict)  # that were named, oldest first
    _titles: dict[InfoHash, TitleId] = field(default_factory=dict)

    def apply(self, message: Holds) -> None:
        """Takes a change in. Raises ProtocolError for what cannot be; then all of it is to be dropped."""
        for gone in message.withdrawn:
            self._forget(gone.title_id)
        for entry in message.entries:
            self._forget(entry.title_id)
            self.entries[entry.title_id] = entry
            self._titles.update({rendition.infohash: entry.title_id for rendition in entry.renditions})
        for held in message.swarms:
            self._hold(held)
        if len(self.entries) > MAX_TITLES or len(self.swarms) > MAX_SWARMS:
            raise ProtocolError(Reason.TOO_LARGE, f"over {MAX_TITLES} titles or {MAX_SWARMS} swarms")

    def _forget(self, title_id: TitleId) -> None:
        entry = self.entries.pop(title_id, None)
        for rendition in entry.renditions if entry else ():
            if self._titles.get(rendition.infohash) == title_id:
                del self._titles[rendition.infohash]

    def _hold(self, held: SwarmHeld) -> None:
        if not held.edges and not any(held.holders):
            self.swarms.pop(held.infohash, None)
            return
        for edge in held.edges:
            self._check(edge)
            self.edges[edge.node] = None
        while len(self.edges) > MAX_ADMITTED:
            del self.edges[next(iter(self.edges))]
        self.swarms[held.infohash] = held

    def _check(self, edge: Source) -> None:
        if edge.kind is not Kind.EDGE:
            raise ProtocolError(Reason.MALFORMED, f"a {edge.kind} among edges")
        try:
            parse_host_port(edge.at)
        except LocalError as error:
            raise ProtocolError(Reason.MALFORMED, f"an edge at no address: {error}") from None

    def entry_of(self, infohash: InfoHash) -> Entry | None:
        """The title of a rendition that was registered in this region."""
        title_id = self._titles.get(infohash)
        return self.entries.get(title_id) if title_id is not None else None

    def edges_with(self, infohash: InfoHash) -> tuple[Source, ...]:
        """The edges of this region that hold all of a rendition, as far as was told."""
        held = self.swarms.get(infohash)
        return held.edges if held is not None else ()
