"""A node's side of sealed datagrams: which asks go that way, again when no answer came, or over the stream.

An ask is sealed anew each time it is sent, under a counter of its own, and any of its counters may be
answered. What a later announce of the same swarm says makes an earlier one pointless, so that one is not
repeated; nor is an earlier report, unless it has counters of renditions, which are told once. After TRIES
(one, before anything was ever answered) an ask goes over the connection, and so do all for REST_SECONDS: the
way for datagrams is not there.

A ticket costs the tracker a signature, most of what a locate costs. So a node keeps it and asks for a new one
only when it is no longer fresh, or when it locates out of turn, as a node whose ticket was refused does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.core import sealed
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import HostPort, InfoHash, parse_host_port
from shared.core.messages import Announce, Locate, Redirect, Refusal, Report, Seal, WantSeal
from shared.core.sealed import ANSWER, ASK, HEAD, HEAD_BYTES, NONCE, Accepted, LocateAsk, Refused

FIRST_PATIENCE_SECONDS = 0.5
PATIENCE_SECONDS = 0.2, 2.0  # least and most; between them, three round trips
TRIES = 3
REST_SECONDS = 60.0
MAX_OPEN = 128  # asks under way; more go over the connection
TICKET_FRESH_SECONDS = 240.0
OUT_OF_TURN_SECONDS = 10.0
MAX_TICKETS = 256
RENEW_PART = 0.75  # of a seal's life
LAST_COUNTER = 1 << 31  # well before a seal's end
SEAL_REQUEST = (1 << 32) - 1  # no other request gets there
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Datagram:
    """Send this; `at` is None for where the tracker's connection goes to."""

    at: HostPort | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """The tracker's answer, as it would have come over the connection."""

    message: Redirect | Refusal


@dataclass(frozen=True, slots=True)
class Say:
    """Say this over the connection."""

    message: Announce | Locate | Report | WantSeal


@dataclass(frozen=True, slots=True)
class Vouch:
    """The tracker answered a report: the connection that this link belongs to is alive."""


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """Counters from the start on."""

    asked: int  # datagrams
    answered: int
    given_up: int  # asks that went over the connection after all


@dataclass(slots=True)
class _Seal:
    number: bytes
    ask: AESGCM
    answer: AESGCM
    at: HostPort | None
    counter: int = 0


@dataclass(slots=True)
class _Ask:
    message: Announce | Locate | Report
    seal: _Seal
    body: bytes
    sent_at: float = 0.0
    due_at: float = 0.0
    tries: int = 0
    counters: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Held:
    ticket: bytes
    since: float


class SealedLink:
    """Of one connection to a tracker."""

    def __init__(self) -> None:
        self._seals: dict[int, _Seal] = {}  # by worker
        self._workers = 1
        self._renew_at = FOREVER
        self._rest_until = -FOREVER
        self._patience = FIRST_PATIENCE_SECONDS
        self._proven = False
        self._asks: list[_Ask] = []
        self._by_counter: dict[tuple[bytes, int], _Ask] = {}
        self._tickets: dict[InfoHash, _Held] = {}
        self._located: dict[InfoHash, float] = {}
        self._actions: deque[Datagram | Heard | Say | Vouch] = deque()
        self._asked = self._answered = self._given_up = 0
        self._want()

    def _want(self) -> None:
        self._renew_at = FOREVER
        self._actions.append(Say(WantSeal(SEAL_REQUEST)))

    def given(self, message: Seal, now: float) -> None:
        """The tracker gave a seal. Raises ProtocolError if it cannot be used."""
        try:
            at = parse_host_port(message.at) if message.at else None
        except LocalError as error:
            raise ProtocolError(Reason.MALFORMED, str(error)) from None
        if message.worker >= message.workers:
            raise ProtocolError(Reason.MALFORMED, f"worker {message.worker} of {message.workers}")
        if message.workers != self._workers:
            self._seals.clear()
        self._workers = message.workers
        keys = AESGCM(message.ask_key), AESGCM(message.answer_key)
        self._seals[message.worker] = seal = _Seal(message.number, *keys, at)
        for ask in self._asks:  # under way: their seal is no more
            if self._worker_of(ask.message) == message.worker:
                self._forget(ask)
                ask.seal = seal
        self._renew_at = now + RENEW_PART * message.life_seconds

    def refused(self, message: Refusal) -> bool:
        """Whether this was the answer to a WantSeal: everything goes over the connection."""
        return message.request == SEAL_REQUEST

    # -- asks ---------------------------------------------------------------------------------

    def take(self, message: Announce | Locate | Report, now: float) -> bool:
        """Whether it goes by datagram; else say it over the connection."""
        seal = self._seals.get(self._worker_of(message))
        if seal is None or now < self._rest_until or len(self._asks) >= MAX_OPEN:
            return False
        if isinstance(message, Locate):
            wants_ticket = self._wants_ticket(message.infohash, now)
            body = sealed.locate_body(LocateAsk(message.infohash, message.stretch, wants_ticket))
        else:
            fits = sealed.asked_body(message)
            if fits is None or (isinstance(message, Report) and not self._is_beside(seal)):
                return False
            body = fits
            for ask in [ask for ask in self._asks if _replaces(message, ask.message)]:
                self._close(ask)
        ask = _Ask(message, seal, body)
        self._asks.append(ask)
        self._send(ask, now)
        return True

    def _worker_of(self, message: Announce | Locate | Report) -> int:
        return 0 if isinstance(message, Report) else message.infohash[0] % self._workers

    def _is_beside(self, seal: _Seal) -> bool:
        """The door of the seal is where the connection goes to."""
        return self._workers == 1 and seal.at is None

    def _wants_ticket(self, infohash: InfoHash, now: float) -> bool:
        before = self._located.pop(infohash, -FOREVER)
        self._located[infohash] = now
        if len(self._located) > MAX_TICKETS:
            del self._located[next(iter(self._located))]
        held = self._tickets.get(infohash)
        return held is None or now - held.since > TICKET_FRESH_SECONDS or now - before < OUT_OF_TURN_SECONDS

    def _send(self, ask: _Ask, now: float) -> None:
        seal = ask.seal
        counter, seal.counter = seal.counter, seal.counter + 1
        if counter == LAST_COUNTER:
            self._want()
        head = HEAD.pack(ASK, seal.number, counter)
        self._by_counter[seal.number, counter] = ask
        ask.counters.append(counter)
        ask.sent_at, ask.due_at = now, now + self._patience * 2**ask.tries
        ask.tries += 1
        self._asked += 1
        data = head + seal.ask.encrypt(NONCE.pack(counter), ask.body, head)
        self._actions.append(Datagram(seal.at, data))

    def _close(self, ask: _Ask) -> None:
        self._asks.remove(ask)
        self._forget(ask)

    def _forget(self, ask: _Ask) -> None:
        for counter in ask.counters:
            del self._by_counter[ask.seal.number, counter]
        ask.counters.clear()

    # -- answers ------------------------------------------------------------------------------

    def receive(self, datagram: bytes, now: float) -> None:
        """A datagram that is not QUIC came; what is no answer of the tracker's is passed over."""
        if not HEAD_BYTES <= len(datagram) <= sealed.LOCATE_BYTES or datagram[0] != ANSWER:
            return
        head = datagram[:HEAD_BYTES]
        _, number, counter = HEAD.unpack(head)
        ask = self._by_counter.get((number, counter))
        if ask is None:
            return
        try:
            answer = sealed.read_answer(
                ask.seal.answer.decrypt(NONCE.pack(counter), datagram[HEAD_BYTES:], head)
            )
        except (InvalidTag, ProtocolError):
            return
        if counter == ask.counters[-1]:
            self._patience = min(max(3 * (now - ask.sent_at), PATIENCE_SECONDS[0]), PATIENCE_SECONDS[1])
        self._proven = True
        self._answered += 1
        self._close(ask)
        self._hear(ask.message, answer, now)

    def _hear(
        self, asked: Announce | Locate | Report, answer: Accepted | Refused | sealed.Sources, now: float
    ) -> None:
        if not isinstance(asked, Locate):
            if isinstance(answer, Refused):  # let it cost what it costs there
                self._actions.append(Say(asked))
            elif isinstance(asked, Report):
                self._actions.append(Vouch())
        elif isinstance(answer, sealed.Sources):
            self._redirected(asked, answer, now)
        elif isinstance(answer, Refused) and answer.reason is not Reason.TOO_LARGE:
            self._actions.append(Heard(sealed.refusal(asked, answer)))
        else:
            self._actions.append(Say(asked))

    def _redirected(self, asked: Locate, answer: sealed.Sources, now: float) -> None:
        if answer.ticket:
            self._tickets.pop(asked.infohash, None)
            self._tickets[asked.infohash] = _Held(answer.ticket, now)
            if len(self._tickets) > MAX_TICKETS:
                del self._tickets[next(iter(self._tickets))]
        held = self._tickets.get(asked.infohash)
        if held is None:  # it was not asked for one that we do not have, unless it is long ago
            self._actions.append(Say(asked))
        else:
            self._actions.append(Heard(answer.redirect(asked, held.ticket)))

    # -- time ---------------------------------------------------------------------------------

    def get_timer(self) -> float:
        """When `handle_timer` wants to be called."""
        return min(self._renew_at, *(ask.due_at for ask in self._asks), FOREVER)

    def handle_timer(self, now: float) -> None:
        """Asks again, gives up, renews: whatever is due."""
        if now >= self._renew_at:
            self._want()
        for ask in [ask for ask in self._asks if now >= ask.due_at]:
            if ask.tries < (TRIES if self._proven else 1):
                self._send(ask, now)
            else:
                self._give_up(now)
                return

    def _give_up(self, now: float) -> None:
        self._rest_until = now + REST_SECONDS
        for ask in list(self._asks):
            self._close(ask)
            self._given_up += 1
            self._actions.append(Say(ask.message))

    def next_action(self) -> Datagram | Heard | Say | Vouch | None:
        """The next order for the shell, or None."""
        return self._actions.popleft() if self._actions else None

    def statistics(self) -> LinkStatistics:
        """A snapshot."""
        return LinkStatistics(self._asked, self._answered, self._given_up)


def _replaces(newer: Announce | Report, older: Announce | Locate | Report) -> bool:
    """The older need not arrive any more."""
    if isinstance(newer, Announce):
        return isinstance(older, Announce) and older.infohash == newer.infohash
    return isinstance(older, Report) and not older.uses
