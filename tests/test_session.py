"""Invariant: whatever arrives, in whatever pieces, a session gives allowed messages or a ProtocolError."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import messages
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import Kind, Mode
from shared.core.messages import MAX_MESSAGE_BYTES, PROTOCOL_VERSION, Browse, Catalogue, Hello, Message
from shared.core.session import Session
from tests import wire

FRAME_BYTES = 4 + MAX_MESSAGE_BYTES
OTHERS = [kind for kind in messages.ALL if kind is not Hello]

# Who says what to whom, written down a second time: t tracker, e edge, p PC, s set-top box, m mobile, c tool.
LETTERS = dict(
    zip("tepsmc", (Kind.TRACKER, Kind.EDGE, Kind.PC, Kind.STB, Kind.MOBILE, Kind.TOOL), strict=True)
)
ORDER = {
    "Hello": ("tepsmc", "tepsmc"),
    "Schedule": ("t", "epsmc"),
    "Browse": ("tepsmc", "t"),
    "Catalogue": ("t", "tepsmc"),
    "Describe": ("tepsmc", "t"),
    "Locate": ("epsmc", "t"),
    "Redirect": ("t", "epsmc"),
    "Announce": ("epsm", "t"),
    "Report": ("epsm", "t"),
    "Register": ("e", "t"),
    "Registered": ("t", "e"),
    "Join": ("epsmc", "epsm"),
    "Have": ("epsm", "epsmc"),
    "HaveMore": ("epsm", "epsmc"),
    "Gone": ("epsm", "epsmc"),
    "Leave": ("epsmc", "epsm"),
    "Upload": ("c", "e"),
    "UploadState": ("e", "c"),
    "Refusal": ("tepsmc", "tepsmc"),
    "Load": ("e", "t"),
    "Place": ("t", "e"),
    "Placed": ("e", "t"),
    "Evict": ("t", "e"),
    "Holds": ("t", "t"),
    "Seek": ("t", "t"),
    "Found": ("t", "t"),
    "Fellows": ("t", "tepsm"),
    "Seal": ("t", "epsm"),
    "WantSeal": ("epsm", "t"),
    "WebSeed": ("e", "t"),
    "AskOpen": ("e", "t"),
    "IsOpen": ("t", "e"),
}


def hello(kind: Kind, version: int = PROTOCOL_VERSION) -> Hello:
    return Hello(version, kind, Mode.SHARED, "north", "penstock 1", "192.0.2.1:4430")


def frame(message: Message) -> bytes:
    """A frame by hand, for what a session would not send."""
    body = messages.encode(message)
    return len(body).to_bytes(4, "big") + body


def greeted(kind: Kind, theirs: Kind) -> Session:
    """A session of `kind` after both Hellos."""
    session = Session(kind)
    session.send(hello(kind))
    assert session.receive(frame(hello(theirs))) == [hello(theirs)]
    return session


def refused(session: Session, data: bytes, reason: Reason) -> None:
    with pytest.raises(ProtocolError) as caught:
        session.receive(data)
    assert caught.value.reason is reason


# -- the order of messages -------------------------------------------------------------------


def test_the_table_knows_every_message() -> None:
    assert set(ORDER) == {kind.__name__ for kind in messages.ALL}


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_who_says_what_to_whom(kind: type) -> None:
    """For every sender and receiver: allowed by the table both ways, or refused both ways."""
    message = wire.typical(kind)
    said_by, heard_by = ORDER[kind.__name__]
    for s, sender in LETTERS.items():
        for h, hearer in LETTERS.items():
            speaking, hearing = greeted(sender, hearer), greeted(hearer, sender)
            if s in said_by and h in heard_by:
                assert hearing.receive(speaking.send(message)) == [message]
                continue
            with pytest.raises(LocalError, match=kind.__name__):
                speaking.send(message)
            refused(hearing, frame(message), Reason.UNEXPECTED)


@pytest.mark.parametrize("ours", Kind)
@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_nothing_comes_before_hello(kind: type, ours: Kind) -> None:
    session = Session(ours)
    with pytest.raises(LocalError, match="Hello comes first"):
        session.send(wire.typical(kind))
    refused(session, frame(wire.typical(kind)), Reason.UNEXPECTED)
    assert session.theirs is None


@pytest.mark.parametrize("ours", Kind)
@pytest.mark.parametrize("theirs", Kind)
def test_hello_comes_once(ours: Kind, theirs: Kind) -> None:
    session = greeted(ours, theirs)
    assert session.theirs == hello(theirs)
    with pytest.raises(LocalError, match="once"):
        session.send(hello(ours))
    refused(session, frame(hello(theirs)), Reason.UNEXPECTED)
    assert session.theirs == hello(theirs)


@pytest.mark.parametrize("version", [v for v in range(1, 256) if v != PROTOCOL_VERSION])
def test_another_version_is_refused(version: int) -> None:
    session = Session(Kind.PC)
    refused(session, frame(hello(Kind.TRACKER, version)), Reason.VERSION)
    assert session.theirs is None


def test_a_kind_is_not_changed_by_a_second_hello() -> None:
    """Neither after the first one nor with it in the same bytes."""
    refused(Session(Kind.TRACKER), frame(hello(Kind.PC)) + frame(hello(Kind.EDGE)), Reason.UNEXPECTED)


def test_one_introduces_oneself_as_what_one_is() -> None:
    with pytest.raises(LocalError, match="as edge on a session of pc"):
        Session(Kind.PC).send(hello(Kind.EDGE))


def test_a_hello_that_cannot_be_sent_does_not_count_as_said() -> None:
    session = Session(Kind.PC)
    with pytest.raises(LocalError, match="software"):
        session.send(replace(hello(Kind.PC), software="x" * 65))
    assert session.send(hello(Kind.PC)) == frame(hello(Kind.PC))


def test_what_follows_hello_may_be_said_before_theirs_is_heard() -> None:
    """One flight is saved by asking at once; only the hearer's kind is not checked yet."""
    tool, tracker = Session(Kind.TOOL), Session(Kind.TRACKER)
    flight = tool.send(hello(Kind.TOOL)) + tool.send(Browse(1))
    assert tracker.receive(flight) == [hello(Kind.TOOL), Browse(1)]
    with pytest.raises(LocalError, match="not for tool to say"):
        tool.send(wire.typical(messages.Register))


# -- frames ----------------------------------------------------------------------------------


# What a PC may hear from an edge, so that any row of them is in order.
TO_A_PC = [kind for kind in OTHERS if "e" in ORDER[kind.__name__][0] and "p" in ORDER[kind.__name__][1]]
ROWS = st.lists(st.one_of([wire.spoken(kind) for kind in TO_A_PC]), max_size=5)


def fed(session: Session, stream: bytes, cuts: list[int]) -> list[Message]:
    """All messages of a stream that arrives cut at `cuts`."""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    heard: list[Message] = []
    for start, end in zip(edges, edges[1:], strict=False):
        before = session.buffered_bytes
        heard += session.receive(stream[start:end])
        assert session.buffered_bytes <= before + end - start
    return heard


@settings(max_examples=200)
@given(ROWS, st.lists(st.integers(0, 1 << 20), max_size=8))
def test_any_chunking_gives_the_same_messages(row: list[Message], cuts: list[int]) -> None:
    """However a stream is cut, the messages and their order are those that were sent."""
    sent: list[Message] = [hello(Kind.EDGE), *row]
    session = Session(Kind.PC)
    assert fed(session, b"".join(map(frame, sent)), cuts) == sent
    assert session.buffered_bytes == 0


@settings(max_examples=20)
@given(ROWS)
def test_byte_by_byte(row: list[Message]) -> None:
    """A message is there with its last byte and not before; a cut stream is no error."""
    session = greeted(Kind.PC, Kind.EDGE)
    for message in row:
        *most, last = (bytes([byte]) for byte in frame(message))
        for byte in most:
            assert session.receive(byte) == []
        assert session.receive(last) == [message]


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES + 1, 1 << 24, (1 << 32) - 1])
def test_too_long_a_frame_is_refused_with_its_length(size: int) -> None:
    session = greeted(Kind.PC, Kind.EDGE)
    header = size.to_bytes(4, "big")
    assert session.receive(header[:3]) == []
    refused(session, header[3:], Reason.TOO_LARGE)


def test_the_longest_frame_is_waited_for_and_bounded() -> None:
    session = greeted(Kind.PC, Kind.EDGE)
    assert session.receive(MAX_MESSAGE_BYTES.to_bytes(4, "big")) == []
    for _ in range(MAX_MESSAGE_BYTES // 4096 - 1):
        assert session.receive(b"l" * 4096) == []
    assert session.receive(b"l" * 4095) == []
    assert session.buffered_bytes == FRAME_BYTES - 1
    refused(session, b"l", Reason.MALFORMED)


def test_an_empty_frame_is_no_message() -> None:
    refused(greeted(Kind.PC, Kind.EDGE), bytes(4), Reason.MALFORMED)


def test_a_message_too_long_for_a_frame_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.core.session.MAX_MESSAGE_BYTES", 100_000)
    session = greeted(Kind.TRACKER, Kind.PC)
    with pytest.raises(LocalError, match="Catalogue of [0-9]+ bytes is too long"):
        session.send(wire.extreme(Catalogue, least=False))


# -- fuzz ------------------------------------------------------------------------------------


@settings(max_examples=500)
@given(
    st.lists(wire.MESSAGES, min_size=1, max_size=3),
    st.sampled_from(Kind),
    st.sampled_from(Kind),
    st.integers(0, 1 << 20),
    st.binary(max_size=6),
    st.lists(st.integers(0, 1 << 20), max_size=3),
)
def test_changed_frames_raise_protocol_errors_only(
    row: list[Message], ours: Kind, theirs: Kind, place: int, patch: bytes, cuts: list[int]
) -> None:
    """Frames with bytes overwritten, from anybody to anybody, cost no more than a ProtocolError.

    What a session gives is what the table allows, and what it keeps is less than one frame.
    """
    session = Session(ours)
    stream = bytearray(b"".join(frame(message) for message in [hello(theirs), *row]))
    at = place % len(stream)
    stream[at : at + len(patch)] = patch
    try:
        heard = fed(session, bytes(stream), cuts)
    except ProtocolError as error:
        assert error.reason in (Reason.MALFORMED, Reason.UNEXPECTED, Reason.TOO_LARGE, Reason.VERSION)
    else:
        for number, message in enumerate(heard):
            said_by, heard_by = ORDER[type(message).__name__]
            assert isinstance(message, Hello) == (number == 0)
            assert session.theirs is not None
            assert session.theirs.kind in map(LETTERS.get, said_by)
            assert ours in map(LETTERS.get, heard_by)
    assert session.buffered_bytes < FRAME_BYTES + len(stream)


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_are_refused_or_waited_for(reads: list[bytes]) -> None:
    """Bytes that are no Hello never give a message."""
    session = Session(Kind.TRACKER)
    try:
        for data in reads:
            assert session.receive(data) == []
    except ProtocolError:
        assert session.theirs is None
    assert session.buffered_bytes <= FRAME_BYTES
