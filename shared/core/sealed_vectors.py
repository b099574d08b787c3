"""Whole datagrams, under one seal: number 01020304050607, ask key 00 to 0f, answer key 10 to 1f.

The announce says that 3 of 10 pieces are held, with class 4 to spare, as an update, and has counter 1;
the locate wants stretch 5 and a ticket, and has counter 2, without its padding: its body ends with 1132
zeros more. The swarm is 32 times 0a. The redirect has no ticket and names one source: 32 times 0b at
192.0.2.1:4430, a PC in region "north", class 4, near-pc, 3 connections, signer 32 times 0c. The refusal is of
counter 2 as well, UNKNOWN_TITLE, "no".
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.core import sealed
from shared.core.errors import Reason
from shared.core.ids import InfoHash, Kind, NodeId
from shared.core.messages import Announce, Event, Source, Why
from shared.core.sealed import ANSWER, ASK, HEAD, NONCE, LocateAsk, Sources

NUMBER, ASK_KEY, ANSWER_KEY = bytes(range(1, 8)), bytes(range(16)), bytes(range(16, 32))
SWARM = InfoHash(b"\x0a" * 32)
ANNOUNCE = Announce(SWARM, Event.UPDATE, 3, 10, 4)
LOCATE = LocateAsk(SWARM, 5, True)
SOURCE = Source(NodeId(b"\x0b" * 32), "192.0.2.1:4430", Kind.PC, "north", 4, Why.NEAR_PC)
REDIRECT = Sources(NodeId(b"\x0c" * 32), b"", 3, (SOURCE,))


def vectors() -> Iterator[tuple[str, bytes]]:
    """Names and datagrams; of the locate its first 64 bytes and its tag, as the rest is long."""
    yield "announce", wrap(ASK, 1, sealed.announce_body(ANNOUNCE))
    yield "accepted", wrap(ANSWER, 1, sealed.ACCEPTED)
    locate = wrap(ASK, 2, sealed.locate_body(LOCATE))
    yield "locate, front", locate[:64]
    yield "locate, tag", locate[-16:]
    redirect = sealed.sources_body(REDIRECT)
    assert redirect is not None, "it fits"
    yield "redirect", wrap(ANSWER, 2, redirect)
    yield "refusal", wrap(ANSWER, 2, sealed.refusal_body(Reason.UNKNOWN_TITLE, "no", 100))


def wrap(kind: int, counter: int, body: bytes) -> bytes:
    """A datagram under the seal of the vectors."""
    head = HEAD.pack(kind, NUMBER, counter)
    key = ASK_KEY if kind == ASK else ANSWER_KEY
    return head + AESGCM(key).encrypt(NONCE.pack(counter), body, head)
