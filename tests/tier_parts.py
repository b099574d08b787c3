"""Cores of both tiers joined without a network: what one sends, the other receives at once, as bytes."""

from __future__ import annotations

from random import Random
from typing import Any

from shared.core import messages
from shared.core.actions import Dial, Hangup, Send
from shared.core.errors import Reason
from shared.core.ids import Address, HostPort, Kind, Mode, NodeId
from shared.core.messages import PROTOCOL_VERSION, Entry, Hello, Message
from shared.core.signing import node_id
from tests.tracker_parts import NOW, announce, hello, node
from tests.world_parts import key_of
from tracker.core.central import Central, Note
from tracker.core.regional import Regional
from tracker.core.tracker import Tracker, TrackerSettings


def id_of(name: str) -> NodeId:
    """The id of a tracker by its name in the test; it has a key of its own."""
    return node_id(key_of(name).public_key().public_bytes_raw())


def place_of(name: str) -> HostPort:
    """Where a tracker is."""
    return HostPort(f"{name}.test", 4430)


class Tiers:
    """A central tracker, and regional ones by name. `lost`: trackers that are dead or cut off."""

    def __init__(self, *regions: str, **entries: Entry) -> None:
        """`entries`: by region, a title whose signer is an edge admitted there."""
        self.now = NOW
        self.lost: set[NodeId] = set()
        self.notes: list[str] = []
        self.heard: dict[NodeId, list[Message]] = {}  # by nodes that are no trackers
        self.hung_up: list[tuple[NodeId, Reason, str]] = []
        self._links: set[tuple[NodeId, NodeId]] = set()
        self.cores: dict[NodeId, Regional | Central] = {}
        self.start_central(*regions)
        for name in regions:
            self.cores[id_of(name)] = self._regional(name, entries.get(name))

    def start_central(self, *regions: str) -> None:
        """A central tracker that remembers nothing."""
        self.lost.discard(id_of("central"))
        self.cores[id_of("central")] = Central([id_of(name) for name in regions])

    def _regional(self, name: str, entry: Entry | None) -> Regional:
        settings = TrackerSettings(edges=frozenset({entry.signer} if entry else ()), log_redirects=True)
        tracker = Tracker(key_of(name), settings, [entry] if entry else [], Random(3))
        central = Address(id_of("central"), place_of("central"))
        return Regional(tracker, central, Random(5), at=str(place_of(name)))

    def regional(self, name: str) -> Regional:
        core = self.cores[id_of(name)]
        assert isinstance(core, Regional)
        return core

    @property
    def central(self) -> Central:
        core = self.cores[id_of("central")]
        assert isinstance(core, Central)
        return core

    # -- time -----------------------------------------------------------------------------------

    def run(self, seconds: float = 6.0) -> None:
        """Lets time go by, in small steps."""
        until = self.now + seconds
        self.pump()
        while self.now < until:
            self.now += 0.05
            for name, core in self.cores.items():
                if name not in self.lost and core.get_timer() <= self.now:
                    core.handle_timer(self.now)
            self.pump()

    def pump(self) -> None:
        """Carries out all orders."""
        busy = True
        while busy:
            busy = False
            for name, core in list(self.cores.items()):
                while name not in self.lost and (action := core.next_action()) is not None:
                    self._carry_out(name, action)
                    busy = True

    def _carry_out(self, name: NodeId, action: Any) -> None:
        match action:
            case Send():
                self._send(name, action)
            case Dial():
                self._dial(name, action.node)
            case Hangup():
                self.hung_up.append((action.node, action.reason, action.detail))
                self.cut(name, action.node, action.reason)
            case Note():
                self.notes.append(action.text)

    def _send(self, name: NodeId, action: Send) -> None:
        message = messages.decode(messages.encode(action.message))
        if action.to not in self.cores:
            self.heard.setdefault(action.to, []).append(message)
        elif (name, action.to) in self._links and action.to not in self.lost:
            self.cores[action.to].receive(message, name, self.now)

    def _dial(self, name: NodeId, other: NodeId) -> None:
        if other in self.lost:
            self.cores[name].disconnected(other, Reason.TIMEOUT, self.now)
            return
        self._links |= {(name, other), (other, name)}
        for one, another in ((name, other), (other, name)):
            greeting = Hello(PROTOCOL_VERSION, Kind.TRACKER, Mode.DIRECT, self._region(another), "", "h:1")
            self.cores[one].connected(another, self._at(another), greeting, self.now)

    def _name(self, tracker: NodeId) -> str:
        return next(name for name in ("central", "north", "south", "west") if id_of(name) == tracker)

    def _region(self, tracker: NodeId) -> str:
        return self._name(tracker)

    def _at(self, tracker: NodeId) -> HostPort:
        return place_of(self._name(tracker))

    def cut(self, one: NodeId, other: NodeId, reason: Reason = Reason.TIMEOUT) -> None:
        """Ends a connection between trackers, or of a node."""
        if (one, other) in self._links:
            self._links -= {(one, other), (other, one)}
            for here, there in ((one, other), (other, one)):
                if here not in self.lost:
                    self.cores[here].disconnected(there, reason, self.now)

    def kill(self, name: str) -> None:
        """A tracker is gone, and the others have noticed."""
        self.lost.add(id_of(name))
        for one, other in list(self._links):
            if one == id_of(name):
                self.cut(other, one)
        self.pump()

    # -- nodes ----------------------------------------------------------------------------------

    def join(self, region: str, name: str, kind: Kind = Kind.PC) -> NodeId:
        """A node at a region's tracker."""
        core = self.regional(region)
        core.connected(node(name), HostPort("192.0.2.1", 4431), hello(kind, region), self.now)
        self.pump()
        return node(name)

    def join_edge(self, region: str, name: str, swarm: Any) -> NodeId:
        """An edge that holds all of a swarm."""
        edge = self.join(region, name, Kind.EDGE)
        self.say(region, announce(swarm, spare=7), edge)
        return edge

    def say(self, region: str, message: Message, sender: NodeId) -> list[Message]:
        """A node's message, and what it hears at once."""
        before = len(self.heard.setdefault(sender, []))
        self.regional(region).receive(message, sender, self.now)
        self.pump()
        return self.heard[sender][before:]
