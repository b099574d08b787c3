"""A tracker's sealed door without its socket, and nodes that ask at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.core import sealed
from shared.core.actions import Send
from shared.core.ids import Kind, Mode, NodeId
from shared.core.messages import Announce, Seal, WantSeal
from shared.core.sealed import ASK, HEAD, HEAD_BYTES, LOCATE_BYTES, NONCE, LocateAsk
from tests.tracker_parts import NOW, ask, join
from tracker.core.bep15 import Batch
from tracker.core.tracker import Tracker
from tracker.mmsg import RECEIVE_BYTES

SECRET = bytes(range(32))
HOME = "192.0.2.1"


def exchange(
    core: Tracker, datagrams: list[bytes], now: float = NOW, froms: list[str] | None = None, full: int = 0
) -> list[bytes]:
    """What the door answers to a batch of datagrams; empty for silence. `full`: full batches in a row."""
    rows = len(datagrams)
    received = np.zeros((rows, RECEIVE_BYTES), np.uint8)
    addresses = np.zeros((rows, 16), np.uint8)
    for row, (data, at) in enumerate(zip(datagrams, froms or [HOME] * rows, strict=True)):
        received[row, : len(data)] = np.frombuffer(data[:RECEIVE_BYTES], np.uint8)
        found = ip_address(at)
        mapped = found.packed if found.version == 6 else b"\0" * 10 + b"\xff\xff" + found.packed
        addresses[row] = np.frombuffer(mapped, np.uint8)
    sizes = np.array([len(data) if len(data) <= RECEIVE_BYTES else 0 for data in datagrams], np.uint32)
    answers, lengths = np.zeros((rows, LOCATE_BYTES), np.uint8), np.zeros(rows, np.int64)
    core.sealed.answer(Batch(received, sizes, addresses, answers, lengths), now, full)
    return [answers[row, : lengths[row]].tobytes() for row in range(rows)]


@dataclass(slots=True)
class Asker:
    """A node under a seal, written from the page of the protocol alone."""

    id: NodeId
    seal: Seal
    counter: int = field(default=0)

    def ask(self, said: Announce | LocateAsk, counter: int | None = None) -> bytes:
        """One more datagram, or one with this counter."""
        if counter is None:
            counter, self.counter = self.counter, self.counter + 1
        body = sealed.announce_body(said) if isinstance(said, Announce) else sealed.locate_body(said)
        return self.wrap(body, counter)

    def wrap(self, body: bytes, counter: int) -> bytes:
        """Any body."""
        head = HEAD.pack(ASK, self.seal.number, counter)
        return head + AESGCM(self.seal.ask_key).encrypt(NONCE.pack(counter), body, head)

    def read(self, answer: bytes) -> sealed.Accepted | sealed.Refused | sealed.Sources:
        """What it says."""
        head = answer[:HEAD_BYTES]
        kind, number, counter = HEAD.unpack(head)
        assert (kind, number) == (sealed.ANSWER, self.seal.number)
        cipher = AESGCM(self.seal.answer_key)
        return sealed.read_answer(cipher.decrypt(NONCE.pack(counter), answer[HEAD_BYTES:], head))


def sealed_tracker(core: Tracker) -> Tracker:
    """The tracker with its door open."""
    core.sealed.open(SECRET)
    return core


def asker(
    core: Tracker, name: str | int, kind: Kind = Kind.PC, mode: Mode = Mode.SHARED, region: str = ""
) -> Asker:
    """A node that connected and was given a seal."""
    who = join(core, name, kind, mode=mode, region=region)
    return Asker(who, seal_of(core, who))


def seal_of(core: Tracker, who: NodeId, now: float = NOW) -> Seal:
    """One more seal."""
    (action,) = ask(core, WantSeal(9), who, now)
    assert isinstance(action, Send)
    assert isinstance(action.message, Seal)
    return action.message
