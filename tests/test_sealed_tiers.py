"""Sealed datagrams at a regional tracker: what only the central tier knows comes over the connection."""

from __future__ import annotations

from shared.core.ids import InfoHash, NodeId
from shared.core.messages import Locate, Message, Redirect, Refusal, Seal, WantSeal, Why
from shared.core.sealed_link import Datagram, Heard, Say, SealedLink
from tests.sealed_parts import exchange, sealed_tracker
from tests.tier_parts import Tiers
from tests.tracker_parts import announce, entry, infohash, node

FILM = entry("film", node("edge n"))
OTHER = entry("other", node("edge s"))
SWARM = infohash("film")


class Viewer:
    """A real link of a viewer of the south, between its core and its tracker."""

    def __init__(self, tiers: Tiers, name: str) -> None:
        self.tiers = tiers
        self.id: NodeId = tiers.join("south", name)
        self.link = SealedLink()
        self.said: list[Message] = []  # over the connection
        self.heard: list[Message] = []
        self._pump()

    def locate(self, request: int, swarm: InfoHash = SWARM) -> Message:
        """What its core hears in the end."""
        assert self.link.take(Locate(request, swarm), self.tiers.now)
        self._pump()
        return self.heard[-1]

    def _pump(self) -> None:
        while (action := self.link.next_action()) is not None:
            match action:
                case Datagram():
                    door = self.tiers.regional("south").tracker
                    (answer,) = exchange(door, [action.data], self.tiers.now)
                    self.tiers.pump()
                    self.link.receive(answer, self.tiers.now)
                case Heard():
                    self.heard.append(action.message)
                case Say():
                    if not isinstance(action.message, WantSeal):
                        self.said.append(action.message)
                    for message in self.tiers.say("south", action.message, self.id):
                        if isinstance(message, Seal):
                            self.link.given(message, self.tiers.now)
                        else:
                            self.heard.append(message)


def two() -> Tiers:
    """North has the film on its edge, south another one; both have their sealed doors open."""
    tiers = Tiers("north", "south", north=FILM, south=OTHER)
    for name in ("north", "south"):
        sealed_tracker(tiers.regional(name).tracker)
    tiers.run(1)
    tiers.join_edge("north", "edge n", SWARM)
    tiers.join_edge("south", "edge s", infohash("other"))
    tiers.run(6)
    return tiers


def test_a_title_that_is_not_known_here_is_found_in_the_other_region_after_a_datagram() -> None:
    viewer = Viewer(two(), "viewer")
    answer = viewer.locate(5)
    assert isinstance(answer, Redirect)
    assert answer.request == 5
    assert [(s.node, s.why, s.region) for s in answer.sources] == [
        (node("edge n"), Why.CENTRAL_EDGE, "north")
    ]
    assert viewer.said == [Locate(5, SWARM)]
    south = viewer.tiers.regional("south")
    assert (south.statistics().seeks, south.tracker.sealed.statistics()["refusals"]) == (1, 1)
    # What this region can answer goes by datagram as ever: its own titles, and others' that it holds.
    answer = viewer.locate(6, infohash("other"))
    assert isinstance(answer, Redirect)
    assert [s.node for s in answer.sources] == [node("edge s")]
    viewer.tiers.join_edge("south", "edge s", infohash("other"))
    viewer.tiers.say("south", announce(SWARM, spare=7), node("edge s"))
    answer = viewer.locate(7)
    assert isinstance(answer, Redirect)
    assert node("edge s") in [s.node for s in answer.sources]
    assert viewer.said == [Locate(5, SWARM)]


def test_a_region_that_is_alone_answers_what_it_does_not_know_by_datagram() -> None:
    viewer = Viewer(two(), "viewer")
    viewer.tiers.kill("central")
    answer = viewer.locate(5)
    assert isinstance(answer, Refusal)
    assert viewer.said == []
    assert viewer.tiers.regional("south").statistics().seeks == 0
