"""The demo's viewers: peers with somebody watching in front, and what there is to tell of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import trio

from peer.door_client import door_client
from peer.headless import Experience, Screening
from shared.core.ids import TitleId

ASK_SECONDS = 5.0


@dataclass(slots=True)
class Viewer:
    """One peer, its player, and the last it said of itself."""

    name: str
    kind: str
    door: str
    arrives_after_seconds: float
    experience: Experience | None = None
    peer: Mapping[str, Any] = field(default_factory=dict)
    film: Mapping[str, Any] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)  # bytes, by the source's node id
    silent: bool = False  # it did not answer when it was asked last
    failure: str = ""  # why nobody watches here any more

    async def watch(self, title: TitleId) -> None:
        """Comes when its time has come, and watches to the end."""
        await trio.sleep(self.arrives_after_seconds)
        screening = Screening(self.door, title, self._note)
        self.experience = screening.experience
        await screening.watch()

    def _note(self, experience: Experience) -> None:
        self.experience = experience

    async def ask(self, title: TitleId) -> None:
        """Asks the peer how it is; a peer that does not answer keeps its last figures."""
        async with door_client(self.door, ASK_SECONDS) as client:
            try:
                self.peer = (await client.get("/api/v1/statistics")).json()
                answer = await client.get(f"/api/v1/titles/{title.hex()}/statistics")
                if answer.status_code == 200:
                    self._take_note(answer.json()["renditions"][0])
                self.silent = False
            except (httpx2.HTTPError, ValueError):
                self.silent = True

    def _take_note(self, film: Mapping[str, Any]) -> None:
        self.film = film
        for source in film.get("sources", ()):  # a peer that has all forgets whom it asked
            node, taken = str(source["node"]), int(source["taken_bytes"])
            self.taken[node] = max(taken, self.taken.get(node, 0))

    @property
    def held_share(self) -> float:
        """The share of the film that this peer holds."""
        held = str(self.film.get("held", ""))
        return 1 - held.count(".") / len(held) if held else 0.0

    def result(self) -> dict[str, Any]:
        """One line of the demo's JSON."""
        experience = self.experience
        seen = experience is not None and experience.startup_seconds is not None
        return {
            "name": self.name,
            "kind": self.kind,
            "startup_seconds": round(experience.startup_seconds or 0.0, 3) if experience and seen else None,
            "stalls": experience.stalls if experience else 0,
            "edge_bytes": int(self.peer.get("edge_bytes", 0)),
            "peer_bytes": int(self.peer.get("peer_bytes", 0)),
            "uploaded_bytes": int(self.peer.get("uploaded_bytes", 0)),
            "verified": bool(experience and experience.verified),
        }


def offload(viewers: list[Viewer]) -> float:
    """The share of bytes that viewers took from each other, 0 to 1."""
    edge = sum(int(viewer.peer.get("edge_bytes", 0)) for viewer in viewers)
    peers = sum(int(viewer.peer.get("peer_bytes", 0)) for viewer in viewers)
    return peers / (edge + peers) if edge + peers else 0.0
