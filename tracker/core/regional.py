"""A regional tracker: a tracker that asks the central tier what its own region does not have.

It stands around the plain one and passes it everything that can be answered here. What cannot (a title
that is not known, or that no edge of this region holds whole) waits for the central tier, at most
SEEK_SECONDS, and is then answered with what is known: that is the *secondary redirect*. Titles of other
regions are *borrowed*: known here while the central tier vouches for them, never in our database.

Without the central tier the region goes on alone: nothing waits, and its own titles are found as ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.core.actions import Action, Answer, Attend, Hangup, Remember, Send
from shared.core.dice import Dice
from shared.core.errors import LocalError, ProtocolError, Reason, Refused
from shared.core.fields import HOLDERS
from shared.core.ids import NODE_ID_BYTES, Address, HostPort, InfoHash, Kind, NodeId
from shared.core.messages import (
    Announce,
    Browse,
    Catalogue,
    Describe,
    Entry,
    Fellow,
    Fellows,
    Found,
    Hello,
    Locate,
    Message,
    Refusal,
    Report,
    Seek,
)  # fmt: skip
from shared.core.tracker_link import TrackerLink
from tracker.core.asks import Located, Wanted
from tracker.core.central import Note
from tracker.core.deltas import Deltas
from tracker.core.nodes import Node
from tracker.core.sealed import over_connection
from tracker.core.titles import PAGE_ENTRIES
from tracker.core.tracker import Tracker, TrackerAction
from tracker.core.waiting import Waiting

SEEK_SECONDS = 1.5  # a viewer waits for the central tier no longer
HASTY_NODES = 500  # that may ping us every second: a sixth of a core; those that come later are patient


@dataclass(frozen=True, slots=True)
class TierStatistics:
    """How this tracker stands with the central one."""

    up: bool
    seeks: int  # questions to the central tier
    found: int  # of them answered with a title
    unanswered: int
    borrowed: int  # titles of other regions that are known here
    told: int  # Holds sent in this connection
    fellows: tuple[Fellow, ...]


class Regional:
    """The core of a regional tracker; `tracker` is the one inside."""

    def __init__(
        self, tracker: Tracker, central: Address, rng: Dice, *, at: str = "", fellows: Sequence[Fellow] = ()
    ) -> None:
        """`at`: where others dial this tracker, if not where it is seen at; `fellows`: as remembered."""
        self.tracker = tracker
        self.link = TrackerLink(central, rng)
        self._abroad = tracker.content.abroad
        self._deltas = Deltas(tracker, at)
        self._waiting = Waiting()
        self._relayed: dict[int, tuple[NodeId, Browse | Describe]] = {}
        self._sought: dict[int, InfoHash] = {}
        self._fellows = tuple(fellows)
        self._admitted: frozenset[NodeId] = frozenset()
        self._said_gone = False
        self._seeks = self._found = self._unanswered = 0
        self._actions: deque[Action | Note] = deque()
        tracker.sealed.desk = self

    # -- connections ----------------------------------------------------------------------------

    def connected(self, node: NodeId, at: HostPort, hello: Hello, now: float) -> None:
        """A node said Hello."""
        if self.link.connected(node, hello):
            self._said_gone = False
            self._deltas.begin(now)
            self._actions.append(Attend(node, True))
            text = f"the central tier at {self.link.tracker.at} is reached"
            self._actions.append(Note(text, is_trouble=False))
            return
        self.tracker.connected(node, at, hello, now)
        if hello.kind in HOLDERS and self._fellows and node in self.tracker.nodes:
            self._introduce(node, hello.kind)

    def _introduce(self, node: NodeId, kind: Kind) -> None:
        calm = kind is not Kind.EDGE and len(self.tracker.nodes) > HASTY_NODES
        self._actions.append(Send(node, Fellows(self._fellows, calm=int(calm))))

    def disconnected(self, node: NodeId, reason: Reason, now: float) -> None:
        """A connection ended, or the central tier could not be dialled."""
        if self.link.disconnected(node, now):
            self._deltas.end()
            if not self._said_gone:
                self._said_gone = True
                why = reason.name.lower().replace("_", " ")
                text = f"the central tier at {self.link.tracker.at} is not reached ({why})"
                self._actions.append(Note(f"{text}: this region goes on alone"))
            self._release([*self._waiting.questions], now)
            return
        self.tracker.disconnected(node, reason, now)

    # -- messages -------------------------------------------------------------------------------

    def receive(self, message: Message, sender: NodeId, now: float) -> None:
        """Takes one message of a connected node."""
        if sender == self.link.tracker.node:
            try:
                self._hear(message, now)
            except ProtocolError as error:
                self._actions.append(Hangup(sender, error.reason, error.detail))
        elif not (sender in self.tracker.nodes and self.link.up and self._asks_central(message, sender, now)):
            self.tracker.receive(message, sender, now)

    def _asks_central(self, message: Message, sender: NodeId, now: float) -> bool:
        """Whether a message waits for the central tier."""
        match message:
            case Browse() | Describe():
                return self._relay(message, sender)
            case Locate() if self._misses(message.infohash, now):
                return self._seek(message, sender, now)
            case Announce() if self._is_news(message.infohash, now):
                return self._seek(message, sender, now)
        return False

    # -- sealed datagrams -----------------------------------------------------------------------
    # Nothing waits behind a datagram: what the central tier is to be asked for is to come again, over
    # the connection.

    @property
    def nodes(self) -> Mapping[NodeId, Node]:
        """Who is here."""
        return self.tracker.nodes

    def hear(self, sender: NodeId, now: float) -> Node | None:
        """As `Tracker.hear`."""
        return self.tracker.hear(sender, now)

    def announce(self, message: Announce, node: Node, now: float) -> None:
        """As `Tracker.announce`. Raises Refused."""
        if self.link.up and self._is_news(message.infohash, now):
            raise over_connection()
        self.tracker.announce(message, node, now)

    def locate(self, asked: Sequence[Wanted], now: float) -> list[Located | Refused]:
        """As `Tracker.locate`."""
        wait = [self.link.up and self._misses(wanted.infohash, now) for wanted in asked]
        here = [wanted for wanted, waits in zip(asked, wait, strict=True) if not waits]
        found = iter(self.tracker.locate(here, now) if here else ())
        return [over_connection() if waits else next(found) for waits in wait]

    def report(self, message: Report, node: Node, now: float) -> None:
        """As `Tracker.report`."""
        self.tracker.report(message, node, now)

    def ticket(self, node: NodeId, infohash: InfoHash, now: float) -> bytes:
        """As `Tracker.ticket`."""
        return self.tracker.ticket(node, infohash, now)

    def _is_news(self, infohash: InfoHash, now: float) -> bool:
        """Whether the central tier could know a title that is not known here."""
        return infohash not in self.tracker.titles and not self._abroad.is_fresh(infohash, now)

    def _misses(self, infohash: InfoHash, now: float) -> bool:
        """Whether the central tier could know of somebody that this region lacks."""
        entry = self.tracker.title_of(infohash)
        borrowed = entry is not None and entry.title_id in self._deltas.borrowed  # may be withdrawn
        here = not borrowed and self.tracker.edges_with(infohash)
        return not here and not self._abroad.is_fresh(infohash, now)

    def _seek(self, message: Locate | Announce, sender: NodeId, now: float) -> bool:
        is_new = message.infohash not in self._waiting.questions
        if not self._waiting.add(message.infohash, sender, message, now + SEEK_SECONDS):
            return False
        if is_new and not self._ask(Seek(number := self.link.new_request(), message.infohash)):
            self._waiting.take(message.infohash)
            return False
        if is_new:
            self._seeks += 1
            self._sought[number] = message.infohash
        return True

    def _ask(self, message: Seek | Browse | Describe) -> bool:
        try:
            self.link.ask(message.request, message)
        except LocalError:
            return False  # too many at once: answered with what is known here
        return True

    # -- the catalogue of all regions -------------------------------------------------------------

    def _relay(self, message: Browse | Describe, sender: NodeId) -> bool:
        number = self.link.new_request()
        if isinstance(message, Describe):
            asked = message.title_id not in self.tracker.entries and self._ask(
                Describe(number, message.title_id)
            )
        else:
            asked = self._ask(Browse(number, max(0, message.skip - len(self._ours))))
        if asked:
            self._relayed[number] = (sender, message)
        return asked

    @property
    def _ours(self) -> list[Entry]:
        borrowed = self._deltas.borrowed
        return [entry for title_id, entry in self.tracker.entries.items() if title_id not in borrowed]

    def _relay_back(self, sender: NodeId, message: Browse | Describe, answer: Message | None) -> None:
        if isinstance(message, Browse):
            ours = self._ours[::-1]
            page, total = tuple(ours[message.skip : message.skip + PAGE_ENTRIES]), len(ours)
            if isinstance(answer, Catalogue):
                total += answer.total
                page = (*page, *answer.entries)[:PAGE_ENTRIES]
            self._actions.append(Send(sender, Catalogue(message.request, total, page)))
        elif isinstance(answer, Catalogue) and len(answer.entries) == 1:
            self._actions.append(Send(sender, Catalogue(message.request, 1, answer.entries)))
        else:
            why = "not in the catalogue" if answer is not None else "the central tier is silent"
            self._actions.append(Send(sender, Refusal(message.request, Reason.UNKNOWN_TITLE, why)))

    # -- what the central tier says -----------------------------------------------------------------

    def _hear(self, message: Message, now: float) -> None:
        match message:
            case Fellows():
                self._heed(message, now)
            case Found() | Refusal() if message.request in self._sought:
                self._learn(message, self._sought.pop(message.request), now)
                self.link.answered(message.request, message)
            case Found() | Refusal() | Catalogue():
                if not self.link.answered(message.request, message):
                    raise ProtocolError(Reason.UNEXPECTED, "an answer to nothing")
            case _:
                raise ProtocolError(Reason.UNEXPECTED, type(message).__name__)

    def _heed(self, message: Fellows, now: float) -> None:
        self._admitted = frozenset(
            NodeId(message.edges[n : n + NODE_ID_BYTES]) for n in range(0, len(message.edges), NODE_ID_BYTES)
        )
        self.tracker.admit(self._admitted, now)
        if message.trackers == self._fellows:
            return
        self._fellows = message.trackers
        self._actions.append(Remember(self._fellows))
        for node in self.tracker.nodes.values():
            if node.kind in HOLDERS:
                self._introduce(node.id, node.kind)

    def _learn(self, message: Found | Refusal, infohash: InfoHash, now: float) -> None:
        forgotten: list[InfoHash] = []
        if isinstance(message, Found):
            forgotten = self._borrow(message, infohash, now)
        else:
            forgotten = self._abroad.note_unknown(infohash, now)
            if message.reason is Reason.UNKNOWN_TITLE:
                forgotten.append(infohash)
        for old in forgotten:
            self._give_back(old)
        self._release([infohash], now)

    def _borrow(self, message: Found, infohash: InfoHash, now: float) -> list[InfoHash]:
        (entry,) = message.entry
        if all(rendition.infohash != infohash for rendition in entry.renditions):
            raise ProtocolError(Reason.MALFORMED, "another title than the one that was sought")
        self._found += 1
        titles = self.tracker.titles
        known = titles.entries.get(entry.title_id)
        if known is None or entry.title_id in self._deltas.borrowed:
            if any(titles.title_of(one.infohash) not in (None, known) for one in entry.renditions):
                return self._abroad.note_unknown(infohash, now)  # ours, under another title's name
            self._deltas.borrowed.add(entry.title_id)
            titles.put(entry)
        return self._abroad.note(infohash, message.sources, now)

    def _give_back(self, infohash: InfoHash) -> None:
        entry = self.tracker.title_of(infohash)
        if entry is not None and entry.title_id in self._deltas.borrowed:
            self._deltas.borrowed.discard(entry.title_id)
            self.tracker.titles.drop(entry.title_id)

    def _release(self, infohashes: list[InfoHash], now: float) -> None:
        """What waited is answered with what is known now."""
        for infohash in infohashes:
            for sender, message in self._waiting.take(infohash):
                self.tracker.receive(message, sender, now)

    # -- time -----------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return min(
            self.tracker.get_timer(), self.link.get_timer(), self._deltas.due_at, self._waiting.next_at()
        )

    def handle_timer(self, now: float) -> None:
        """Dials the central tier, tells it what changed, and gives up waiting for it."""
        self.link.handle_timer(now)
        message = self._deltas.step(now)
        if message is not None:
            self._actions.append(Send(self.link.tracker.node, message))
        late = self._waiting.due(now)
        self._unanswered += len(late)
        self._release(late, now)
        self.tracker.handle_timer(now)

    def next_action(self) -> TrackerAction | Action | Note | None:
        """The next order for the shell, or None."""
        while True:
            action: TrackerAction | Action | Note | None = self.tracker.next_action()
            if action is None and self._actions:
                action = self._actions.popleft()
            if action is None:
                action = self.link.next_action()
            if not isinstance(action, Answer):
                return action
            self._sought.pop(action.request, None)
            relayed = self._relayed.pop(action.request, None)
            if relayed is not None:
                self._relay_back(*relayed, action.message)

    def statistics(self) -> TierStatistics:
        """A snapshot for the API."""
        return TierStatistics(
            self.link.up, self._seeks, self._found, self._unanswered, len(self._deltas.borrowed),
            self._deltas.sequence, self._fellows,
        )  # fmt: skip
