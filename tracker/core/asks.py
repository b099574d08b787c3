"""Announces and locates, whichever door they come through: the control stream or sealed datagrams."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shared.core.dice import Dice
from shared.core.errors import Reason, Refused
from shared.core.ids import InfoHash, Kind, Mode, NodeId, TitleId
from shared.core.messages import Announce, Entry
from tracker.core import redirect
from tracker.core.answers import Answer, Question, Viewer
from tracker.core.content import Content
from tracker.core.edges import Edges
from tracker.core.groups import Groups
from tracker.core.nodes import Node
from tracker.core.redirect import Field
from tracker.core.swarm import Swarms
from tracker.core.titles import Titles

MAX_SWARMS_PER_NODE = 10_000  # bounds what one node can make us remember


@dataclass(frozen=True, slots=True)
class Wanted:
    """Somebody asks where a rendition can be had; `stretch` as in Locate."""

    node: Node
    infohash: InfoHash
    stretch: int


@dataclass(frozen=True, slots=True)
class Located:
    """Whom they are sent to."""

    wanted: Wanted
    entry: Entry
    answer: Answer


@dataclass(frozen=True, slots=True)
class _Title:
    """What is looked up once for all who ask for a rendition at the same moment."""

    entry: Entry
    kept: tuple[TitleId, NodeId]  # its id and its signer's
    rate: float
    share: float


class Asks:
    """Decides both; knows nothing of how they are said."""

    def __init__(
        self, titles: Titles, swarms: Swarms, edges: Edges, groups: Groups, content: Content, rng: Dice
    ) -> None:
        self._titles = titles
        self._swarms = swarms
        self._groups = groups
        self._content = content
        self._rng = rng
        self._field = Field(swarms, edges)
        self.announces = self.redirects = 0

    def announce(self, message: Announce, node: Node, now: float) -> None:
        """Takes in what a node holds. Raises Refused. `node`: admitted, if it is an edge."""
        if message.infohash not in self._titles:
            # Refusing would cost the connection; an edge may announce before it registers.
            return
        full = self._swarms.count_of(node.id) >= MAX_SWARMS_PER_NODE
        if full and not self._swarms.has(message.infohash, node.id):
            raise Refused(Reason.TOO_LARGE, f"more than {MAX_SWARMS_PER_NODE} swarms")
        most = self._titles.most_pieces_of(message.infohash)
        if message.held > message.total or message.total > most > 0:
            raise Refused(Reason.MALFORMED, f"{message.held} of {message.total} pieces, of at most {most}")
        if node.mode is Mode.DIRECT and node.kind is not Kind.EDGE and message.spare:
            raise Refused(Reason.MALFORMED, "direct mode has nothing to spare")
        self.announces += 1
        self._swarms.announce(message, node.id, node.kind, node.region, now)
        if node.kind is Kind.EDGE:
            self._content.placement.record.announced(node.id, message, now)

    def locate(self, asked: Sequence[Wanted], now: float) -> list[Located | Refused]:
        """An answer for each, in order."""
        titles: dict[InfoHash, _Title | Refused] = {}
        checked = [self._check(wanted, titles, now) for wanted in asked]
        questions = [
            self._question(wanted, title)
            for wanted, title in zip(asked, checked, strict=True)
            if isinstance(title, _Title)
        ]
        answers = redirect.choose_many(self._field, questions, self._rng, now)
        chosen = (self._content.widen(answer, self._rng) for answer in answers)
        for infohash, count in Counter([question.infohash for question in questions]).items():
            self._content.asked(infohash, now, count)
        return [
            Located(wanted, title.entry, next(chosen)) if isinstance(title, _Title) else title
            for wanted, title in zip(asked, checked, strict=True)
        ]

    def _check(
        self, wanted: Wanted, titles: dict[InfoHash, _Title | Refused], now: float
    ) -> _Title | Refused:
        title = titles.get(wanted.infohash)
        if title is None:
            title = titles[wanted.infohash] = self._look_up(wanted.infohash, now)
        if isinstance(title, Refused) or self._groups.may_watch(*title.kept, wanted.node.id):
            return title
        return Refused(Reason.NOT_ALLOWED, "this title is kept to groups; ask its publisher to add you")

    def _look_up(self, infohash: InfoHash, now: float) -> _Title | Refused:
        entry = self._titles.title_of(infohash)
        if entry is None:
            return Refused(Reason.UNKNOWN_TITLE, "not in the catalogue")
        rate, share = self._titles.rate_of(infohash), self._content.share(infohash, now)
        return _Title(entry, (entry.title_id, entry.signer), rate, share)

    def _question(self, wanted: Wanted, title: _Title) -> Question:
        self.redirects += 1
        node = wanted.node
        return Question(
            infohash=wanted.infohash,
            viewer=Viewer(node.id, node.kind, node.region, wanted.stretch),
            rate=title.rate,
            share=title.share,
            origin=title.entry.signer,
            number=self.redirects,
            elsewhere=bool(self._content.abroad.sources(wanted.infohash)),
        )
