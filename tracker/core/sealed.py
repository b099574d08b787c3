"""Answers sealed asks (`shared/core/sealed.py`), a batch of datagrams at a time.

What costs nothing is looked at first, for the whole batch in single numpy operations: first byte and
length, number and lifetime of the seal, the window of counters. So strangers, replays and what is out
of date cost no decryption, and none of it leaves a trace but a count. What is left is opened one by one,
and all locates of a batch are decided together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from cryptography.exceptions import InvalidTag
from numpy.typing import NDArray

from shared.core import sealed
from shared.core.errors import ProtocolError, Reason, Refused
from shared.core.ids import InfoHash, NodeId
from shared.core.messages import Announce, Refusal, Report, Seal
from shared.core.sealed import ASK, HEAD_BYTES, NONCE, TAG_BYTES, LocateAsk
from tracker.core import fair_share
from tracker.core.asks import Located, Wanted
from tracker.core.bep15 import Batch
from tracker.core.nodes import Node
from tracker.core.packing import Packed, Packer
from tracker.core.seals import LIFE_SECONDS, Seals, counters_of
from tracker.core.swarm import Swarms

MOST_HALVINGS = 3  # of the room, while full batches follow each other
_ANSWER_BYTE = bytes([sealed.ANSWER])
_FITS = np.zeros(sealed.LOCATE_BYTES + 2, bool)  # by bytes of a datagram: an ask may be as long
_FITS[[sealed.ANNOUNCE_BYTES, sealed.LOCATE_BYTES]] = True
_FITS[sealed.REPORT_BYTES : sealed.LOCATE_BYTES + 1 : sealed.REPORT_STEP_BYTES] = True
_ROOM = HEAD_BYTES + TAG_BYTES  # of an ask that is not its body


def over_connection() -> Refused:
    """Makes a node ask the same over its connection: no datagram can answer it."""
    return Refused(Reason.TOO_LARGE, "ask over the connection")


class Desk(Protocol):
    """The tracker, as far as asks concern it."""

    @property
    def nodes(self) -> Mapping[NodeId, Node]: ...
    def hear(self, sender: NodeId, now: float) -> Node | None: ...
    def announce(self, message: Announce, node: Node, now: float) -> None: ...
    def report(self, message: Report, node: Node, now: float) -> None: ...
    def locate(self, asked: Sequence[Wanted], now: float) -> list[Located | Refused]: ...
    def ticket(self, node: NodeId, infohash: InfoHash, now: float) -> bytes: ...


class _Ask:
    """One that was opened."""

    __slots__ = ("body", "counter", "node", "place", "row", "said")

    def __init__(
        self, row: int, place: int, counter: int, node: Node, said: Announce | LocateAsk | Report
    ) -> None:
        self.row, self.place, self.counter, self.node, self.said = row, place, counter, node, said
        self.body = b""


class Sealed:
    """Makes seals, once `open` was called, and answers what comes under them."""

    def __init__(self, desk: Desk, swarms: Swarms) -> None:
        self.desk = desk  # a regional tracker puts itself here
        self._packer = Packer(desk.nodes, swarms)
        self._seals: Seals | None = None
        self._counts: Counter[str] = Counter()

    def open(self, secret: bytes) -> None:
        """There is a door for datagrams from now on. `secret`: 32 random bytes."""
        self._seals = Seals(secret)

    def make(self, node: Node, request: int, now: float) -> Seal | Refusal:
        """The answer to a WantSeal."""
        if self._seals is None:
            return Refusal(request, Reason.NOT_ALLOWED, "no datagrams are taken here")
        made = self._seals.make(node, now)
        if made is None:
            return Refusal(request, Reason.BUSY, "too many seals")
        return Seal(request, *made, LIFE_SECONDS)

    def end(self, node: Node) -> None:
        """The node is gone, and its seal with it."""
        if self._seals is not None:
            self._seals.end(node)

    def statistics(self) -> Mapping[str, int]:
        """Counters from the start on: answers of each sort, and datagrams passed over by reason.

        `length`: no ask is as long; `foreign`: it is no ask; `unknown` and `ended` are seals, `spent` a
        counter beyond the last, `replayed`, `forged` (the tag), `crowded` (its prefix had its share),
        `malformed`.
        """
        return dict(self._counts)

    def answer(self, batch: Batch, now: float, full_batches: int = 0) -> list[NodeId]:
        """Writes answers and their lengths; whose reports were taken, as their connections are alive.

        `full_batches`: how many came in a row, this one included."""
        batch.lengths[:] = 0
        if self._seals is None:
            return []
        places, counters, good = self._sift(batch, self._seals, now)
        rows = np.flatnonzero(good)
        if full_batches and len(rows):
            rows = self._share(batch, rows, full_batches)
        taken = places[rows].tolist(), counters[rows].tolist(), batch.sizes[rows].tolist()
        asks = []
        view = batch.received.data.cast("B")
        width = batch.received.shape[1]
        for row, place, counter, size in zip(rows.tolist(), *taken, strict=True):
            at = row * width
            ask = self._open(self._seals, view[at : at + size], row, place, counter, now)
            if ask is not None:
                asks.append(ask)
        self._decide(asks, batch, now)
        self._write(self._seals, asks, batch)
        return [ask.node.id for ask in asks if isinstance(ask.said, Report)]

    # -- what comes ---------------------------------------------------------------------------

    def _sift(
        self, batch: Batch, seals: Seals, now: float
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        heads = batch.received[:, :HEAD_BYTES]
        fits = _FITS[np.minimum(batch.sizes, len(_FITS) - 1)]
        places, known, alive = seals.find(heads, now)
        counters, small = counters_of(heads)
        good, left = np.ones(len(fits), bool), len(fits)
        for reason, passes in (
            ("length", fits), ("foreign", heads[:, 0] == ASK), ("unknown", known), ("ended", alive),
            ("spent", small), ("replayed", seals.window.may_take(places, counters)),
        ):  # fmt: skip
            good &= passes
            before, left = left, int(np.count_nonzero(good))
            if left != before:
                self._counts[reason] += before - left
        return places, counters, good

    def _share(self, batch: Batch, rows: NDArray[Any], full_batches: int) -> NDArray[Any]:
        groups = fair_share.prefixes(batch.addresses[rows])
        if (groups == groups[0]).all():
            return rows  # there is nobody to be fair to
        room = len(batch.lengths) >> min(full_batches, MOST_HALVINGS)
        served = rows[fair_share.served(groups, room)]
        self._counts["crowded"] += len(rows) - len(served)
        return served

    def _open(
        self, seals: Seals, datagram: memoryview, row: int, place: int, counter: int, now: float
    ) -> _Ask | None:
        node = seals.nodes[place]
        try:
            body = seals.ciphers(place)[0].decrypt(
                NONCE.pack(counter), datagram[HEAD_BYTES:], datagram[:HEAD_BYTES]
            )
        except InvalidTag:
            self._counts["forged"] += 1
            return None
        if not seals.window.take(place, counter):
            self._counts["replayed"] += 1  # by a neighbour in this batch
            return None
        if node is None or self.desk.hear(node.id, now) is not node:
            self._counts["unknown"] += 1
            return None
        try:
            return _Ask(row, place, counter, node, sealed.read_ask(body))
        except ProtocolError:
            self._counts["malformed"] += 1  # by somebody we know, whose connection tells them
            return None

    # -- what is answered ---------------------------------------------------------------------

    def _decide(self, asks: list[_Ask], batch: Batch, now: float) -> None:
        locates = []
        for ask in asks:
            if isinstance(ask.said, Announce):
                self._announce(ask, ask.said, now)
            elif isinstance(ask.said, Report):
                self.desk.report(ask.said, ask.node, now)
                self._counts["reports"] += 1
                ask.body = sealed.ACCEPTED
            else:
                locates.append((ask, ask.said))
        if not locates:
            return
        wanted = [Wanted(ask.node, said.infohash, said.stretch) for ask, said in locates]
        packed: dict[int, list[Packed | None]] = {}
        for (ask, said), found in zip(locates, self.desk.locate(wanted, now), strict=True):
            if isinstance(found, Refused):
                ask.body = self._refuse(found, sealed.LOCATE_BYTES)
                continue
            wave = found.answer.wave
            sources = packed.get(id(wave))
            if sources is None:
                sources = packed[id(wave)] = self._packer.pack(wave)
            ask.body = self._redirect(ask, said, found, sources[found.answer.row], now)

    def _announce(self, ask: _Ask, said: Announce, now: float) -> None:
        try:
            self.desk.announce(said, ask.node, now)
        except Refused as refusal:
            ask.body = self._refuse(refusal, sealed.ANNOUNCE_BYTES)
        else:
            self._counts["announces"] += 1
            ask.body = sealed.ACCEPTED

    def _redirect(
        self, ask: _Ask, said: LocateAsk, found: Located, packed: Packed | None, now: float
    ) -> bytes:
        if packed is None or found.answer.abroad:
            return self._refuse(over_connection(), sealed.LOCATE_BYTES)
        ticket = self.desk.ticket(ask.node.id, said.infohash, now) if said.wants_ticket else b""
        head = sealed.redirect_head(found.entry.signer, ticket, packed.connections, packed.named)
        self._counts["redirects"] += 1
        return head + packed.tail

    def _refuse(self, refusal: Refused, ask_bytes: int) -> bytes:
        self._counts["refusals"] += 1
        return sealed.refusal_body(refusal.reason, refusal.detail, ask_bytes - _ROOM)

    def _write(self, seals: Seals, asks: list[_Ask], batch: Batch) -> None:
        answers = batch.answers.data.cast("B")
        asked = batch.received.data.cast("B")
        width, asked_width = batch.answers.shape[1], batch.received.shape[1]
        for ask in asks:
            at, asked_at = ask.row * width, ask.row * asked_width
            head = _ANSWER_BYTE + asked[asked_at + 1 : asked_at + HEAD_BYTES]
            datagram = head + seals.ciphers(ask.place)[1].encrypt(NONCE.pack(ask.counter), ask.body, head)
            answers[at : at + len(datagram)] = datagram
            batch.lengths[ask.row] = len(datagram)
