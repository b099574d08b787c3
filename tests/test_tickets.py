"""Invariant: a ticket opens one swarm to one viewer until it expires, and no other bytes do."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import signing, tickets
from shared.core.errors import Reason, Refused
from shared.core.ids import InfoHash, NodeId
from shared.core.tickets import CLOCK_SKEW_SECONDS, TICKET_BYTES, TICKET_SECONDS, UNLIMITED, Ticket

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
TRACKER = NodeId(sha256(PUBLIC).digest())
OTHER_TRACKER = NodeId(sha256(OTHER_KEY.public_key().public_bytes_raw()).digest())
VIEWER, OTHER_VIEWER = NodeId(b"\x0a" * 32), NodeId(b"\x0a" * 31 + b"\x0b")
SWARM, OTHER_SWARM = InfoHash(b"\x0c" * 32), InfoHash(b"\x0c" * 31 + b"\x0d")
NOW = 1_700_000_000
TICKET = Ticket(VIEWER, SWARM, NOW + TICKET_SECONDS, 1 << 33)
RAW = tickets.issue(KEY, TICKET)
BODY_BYTES = TICKET_BYTES - signing.SIGNATURE_BYTES


def check(
    raw: bytes = RAW,
    tracker: NodeId = TRACKER,
    viewer: NodeId = VIEWER,
    infohash: InfoHash = SWARM,
    now: float = NOW,
) -> Ticket:
    return tickets.check(raw, tracker=tracker, viewer=viewer, infohash=infohash, now=now)


def refused(
    raw: bytes = RAW,
    tracker: NodeId = TRACKER,
    viewer: NodeId = VIEWER,
    infohash: InfoHash = SWARM,
    now: float = NOW,
    reason: Reason = Reason.TICKET_INVALID,
) -> None:
    with pytest.raises(Refused) as caught:
        check(raw, tracker, viewer, infohash, now)
    assert caught.value.reason is reason


@given(
    st.binary(min_size=32, max_size=32).map(NodeId),
    st.binary(min_size=32, max_size=32).map(InfoHash),
    st.integers(NOW, (1 << 64) - 1),
    st.integers(0, UNLIMITED),
)
def test_round_trip(viewer: NodeId, infohash: InfoHash, expires_at: int, quota_bytes: int) -> None:
    """Every ticket that runs comes back equal to the one issued."""
    ticket = Ticket(viewer, infohash, expires_at, quota_bytes)
    raw = tickets.issue(KEY, ticket)
    assert len(raw) == TICKET_BYTES
    assert check(raw, viewer=viewer, infohash=infohash) == ticket


def test_layout() -> None:
    """The bytes themselves, as other implementations must write them."""
    numbers = TICKET.expires_at.to_bytes(8, "big") + TICKET.quota_bytes.to_bytes(8, "big")
    body = b"\x01" + VIEWER + SWARM + numbers + PUBLIC
    KEY.public_key().verify(RAW[BODY_BYTES:], b"penstock ticket 1\n" + body)
    assert RAW[:BODY_BYTES] == body


def test_every_flipped_bit_is_refused() -> None:
    number = int.from_bytes(RAW, "big")
    for bit in range(8 * TICKET_BYTES):
        refused((number ^ 1 << bit).to_bytes(TICKET_BYTES, "big"))


@pytest.mark.parametrize("size", range(TICKET_BYTES))
def test_every_truncation_is_refused(size: int) -> None:
    refused(RAW[:size])


def test_longer_tickets_are_refused() -> None:
    for raw in (RAW + b"\0", b"\0" + RAW, RAW + RAW, RAW[:-1] + b"\0" + RAW[-1:]):
        refused(raw)


def test_it_is_for_one_viewer_one_swarm_one_tracker() -> None:
    assert check() == TICKET
    refused(viewer=OTHER_VIEWER)
    refused(infohash=OTHER_SWARM)
    refused(tracker=OTHER_TRACKER)
    refused(viewer=NodeId(SWARM), infohash=InfoHash(VIEWER))


def signed_anew(key: Ed25519PrivateKey, body: bytes, domain: bytes = b"penstock ticket 1\n") -> bytes:
    return body + signing.sign(key, domain, body)


def forgeries() -> Iterator[bytes]:
    body = RAW[:BODY_BYTES]
    foreign = body[:-32] + OTHER_KEY.public_key().public_bytes_raw()
    yield signed_anew(OTHER_KEY, body)  # names our tracker, signed by another
    yield signed_anew(OTHER_KEY, foreign)  # names another tracker, and is signed by it
    yield signed_anew(KEY, foreign)
    yield signed_anew(KEY, body, b"penstock receipt 1\n")  # our signature, for another purpose
    yield signed_anew(KEY, b"\x02" + body[1:])  # another version
    yield signed_anew(KEY, b"\0" + body[1:])
    yield body + KEY.sign(body)  # no purpose at all
    yield body + bytes(64)
    yield body[:-32] + bytes(96)
    yield bytes(TICKET_BYTES)
    yield b"\xff" * TICKET_BYTES


@pytest.mark.parametrize("raw", list(forgeries()))
def test_forgeries_are_refused(raw: bytes) -> None:
    refused(raw)
    refused(raw, now=NOW + 10 * TICKET_SECONDS)


def test_a_key_without_strength_opens_nothing() -> None:
    """A tracker's id is a hash of its key, so a key for which anything verifies is of no use."""
    weak = b"\x01" + bytes(31)
    anything = RAW[: BODY_BYTES - 32] + weak
    assert signing.verify(weak, b"penstock ticket 1\n", anything, weak + bytes(32))
    refused(anything + weak + bytes(32))


@pytest.mark.parametrize("late", [-TICKET_SECONDS, 0, CLOCK_SKEW_SECONDS - 0.001, CLOCK_SKEW_SECONDS])
def test_it_runs_until_it_expires_and_a_skew_beyond(late: float) -> None:
    assert check(now=TICKET.expires_at + late) == TICKET


@pytest.mark.parametrize("late", [CLOCK_SKEW_SECONDS + 0.001, CLOCK_SKEW_SECONDS + 1, 1e9])
def test_it_expires(late: float) -> None:
    refused(now=TICKET.expires_at + late, reason=Reason.TICKET_EXPIRED)


def test_an_expired_ticket_of_somebody_else_is_invalid_first() -> None:
    """What a stranger's ticket says about its time is nobody's business."""
    refused(viewer=OTHER_VIEWER, now=NOW + 10 * TICKET_SECONDS)


@settings(max_examples=300)
@given(st.binary(max_size=TICKET_BYTES + 2) | st.binary(min_size=TICKET_BYTES - 1, max_size=TICKET_BYTES - 1))
def test_any_bytes_are_refused(raw: bytes) -> None:
    """Bytes that no tracker signed raise Refused and nothing else."""
    refused(raw)
    refused(b"\x01" + raw)


@settings(max_examples=300)
@given(st.integers(0, TICKET_BYTES - 1), st.binary(min_size=1, max_size=64))
def test_overwritten_tickets_are_refused(start: int, patch: bytes) -> None:
    """A ticket with a stretch overwritten is the same ticket, or refused."""
    changed = (RAW[:start] + patch + RAW[start + len(patch) :])[:TICKET_BYTES]
    if changed == RAW:
        assert check(changed) == TICKET
    else:
        refused(changed)
