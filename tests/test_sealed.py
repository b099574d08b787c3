"""Invariant: what is sealed is read as it was written, and nothing but that encoding is read at all."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import sealed
from shared.core.errors import ProtocolError, Reason
from shared.core.ids import HostPort, InfoHash, Kind, NodeId
from shared.core.messages import Announce, Event, Locate, Report, Share, Source, Use, Why
from shared.core.sealed import Accepted, LocateAsk, Refused, Sources
from shared.core.sealed_report import report_body
from shared.core.tickets import TICKET_BYTES
from tests import wire

IDS = st.binary(min_size=32, max_size=32)
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
PORTS = st.integers(1, 65535)
NAMES = st.text(wire.PRINTABLE, max_size=10)
SOURCES = st.builds(
    lambda node, host, port, kind, name, level, why: Source(
        NodeId(node), str(HostPort(_plain(host), port)), kind, name, level, why
    ),
    IDS, ADDRESSES, PORTS, st.sampled_from(sealed.KINDS), NAMES, st.integers(0, 7), st.sampled_from(Why),
)  # fmt: skip
REDIRECTS = st.builds(
    Sources,
    IDS.map(NodeId),
    st.sampled_from([b"", b"t" * TICKET_BYTES]),
    st.integers(1, 32),
    st.lists(SOURCES, max_size=14).map(tuple),
)
ANNOUNCES = wire.spoken(Announce)
REPORTS = wire.spoken(Report)
LOCATES = st.builds(LocateAsk, IDS.map(InfoHash), st.integers(0, 32), st.booleans())


def _plain(host: str) -> str:
    """An IPv4 address in IPv6 is one of IPv4, as sockets report it here."""
    found = ip_address(host)
    return str(getattr(found, "ipv4_mapped", None) or found)


@given(ANNOUNCES)
def test_an_announce_comes_through(message: Announce) -> None:
    body = sealed.announce_body(message)
    assert len(body) + 32 == sealed.ANNOUNCE_BYTES
    assert sealed.read_ask(body) == message


@given(LOCATES)
def test_a_locate_comes_through(ask: LocateAsk) -> None:
    body = sealed.locate_body(ask)
    assert len(body) + 32 == sealed.LOCATE_BYTES
    assert sealed.read_ask(body) == ask


@given(REPORTS)
@settings(deadline=None)
def test_a_report_comes_through_or_is_said_to_be_too_long(message: Report) -> None:
    body = sealed.asked_body(message)
    if body is None:
        assert 40 * len(message.shares) + 56 * len(message.uses) > 1200 - 108
        return
    assert len(body) + 32 <= sealed.LOCATE_BYTES
    assert (len(body) + 32 - sealed.REPORT_BYTES) % sealed.REPORT_STEP_BYTES == 0
    assert sealed.read_ask(body) == message


@given(REDIRECTS)
@settings(deadline=None)
def test_a_redirect_comes_through_and_is_no_longer_than_its_ask(found: Sources) -> None:
    body = sealed.sources_body(found)
    assert body is not None
    assert len(body) + 32 <= sealed.LOCATE_BYTES
    heard = sealed.read_answer(body)
    assert isinstance(heard, Sources)
    for said, written in zip(heard.sources, found.sources, strict=True):
        assert said.region in (written.region, "")  # a name for which there was no room
        assert Source(said.node, said.at, said.kind, written.region, said.spare, said.why) == written
    assert (heard.signer, heard.ticket, heard.connections) == (found.signer, found.ticket, found.connections)


def test_the_fullest_redirect_fits_with_the_names_of_six_regions() -> None:
    source = Source(NodeId(bytes(32)), "[2001:db8::1]:65535", Kind.EDGE, "", 7, Why.EDGE_SPARE)
    named = [
        Source(source.node, source.at, source.kind, f"{n:032}", source.spare, source.why) for n in range(14)
    ]
    body = sealed.sources_body(Sources(NodeId(bytes(32)), b"t" * TICKET_BYTES, 8, tuple(named)))
    assert body is not None
    heard = sealed.read_answer(body)
    assert isinstance(heard, Sources)
    assert [source.region for source in heard.sources] == [f"{n:032}" for n in range(6)] + [""] * 8


@pytest.mark.parametrize("at", ["tracker.example.org:1", "[fe80::1%eth0]:1"])
def test_what_no_datagram_can_name_is_left_to_the_connection(at: str) -> None:
    host = at.rpartition(":")[0].strip("[]")
    assert sealed.card(NodeId(bytes(32)), HostPort(host, 1), Kind.PC) is None


@given(st.sampled_from(Reason), st.text(wire.PRINTABLE, max_size=400), st.integers(4, 1168))
def test_a_refusal_comes_through_as_far_as_there_is_room(reason: Reason, detail: str, room: int) -> None:
    body = sealed.refusal_body(reason, detail[:130], room)
    assert len(body) <= room
    heard = sealed.read_answer(body)
    assert isinstance(heard, Refused)
    assert heard.reason is reason
    assert detail.startswith(heard.detail)


def test_accepted_comes_through() -> None:
    assert sealed.read_answer(sealed.ACCEPTED) == Accepted()


# -- nothing else is read --------------------------------------------------------------------

SHARES, USES = (Share(NodeId(b"n" * 32), 1),), (Use(InfoHash(b"i" * 32), 1, 2, 3),)
EXAMPLES: list[bytes] = [
    sealed.announce_body(Announce(InfoHash(b"i" * 32), Event.UPDATE, 3, 10, 4, 7)),
    sealed.locate_body(LocateAsk(InfoHash(b"i" * 32), 5, True)),
    report_body(Report(1, 2, 3, 4, 5, 6, 7, 8, 9, SHARES, 9, USES), 1200) or b"",
]


@given(st.binary(max_size=1300))
def test_noise_is_refused_or_read_as_what_it_encodes(noise: bytes) -> None:
    _read_or_refused(noise)


@given(st.data())
@settings(max_examples=400)
def test_a_changed_ask_is_refused_or_read_as_what_it_encodes(data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(EXAMPLES)))
    body[data.draw(st.integers(0, min(47, len(body) - 1)))] = data.draw(st.integers(0, 255))
    _read_or_refused(bytes(body[: data.draw(st.sampled_from([len(body), len(body) - 1, 3, 0]))]))


def _read_or_refused(body: bytes) -> None:
    try:
        ask = sealed.read_ask(body)
    except ProtocolError:
        return
    again = sealed.locate_body(ask) if isinstance(ask, LocateAsk) else sealed.asked_body(ask)
    assert again == body


@given(REDIRECTS, st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_answer_is_refused_or_read(found: Sources, data: st.DataObject) -> None:
    body = sealed.sources_body(found)
    assert body is not None
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(body), len(body) - 1, len(body) // 2, 37, 36, 1, 0]))
    try:
        sealed.read_answer(bytes(changed[:cut]))
    except ProtocolError as error:
        assert error.reason is Reason.MALFORMED


@given(st.binary(max_size=1300))
def test_noise_is_no_answer(noise: bytes) -> None:
    for first in (b"\1", b"\2", b"\3"):
        try:
            sealed.read_answer(first + noise)
        except ProtocolError as error:
            assert error.reason is Reason.MALFORMED


WRONG: list[tuple[str, bytes]] = [
    ("no sources though one is said", struct.pack(">BBBB32s", 2, 3, 1, 0, bytes(32)) + b"\0"),
    ("fifteen sources", struct.pack(">BBBB32s", 2, 3, 15, 0, bytes(32)) + bytes(54 * 15 + 1)),
    ("no connections", struct.pack(">BBBB32s", 2, 0, 0, 0, bytes(32)) + b"\0"),
    ("a name that nobody has", struct.pack(">BBBB32s", 2, 3, 0, 0, bytes(32)) + b"\1\1a"),
    ("something after the names", struct.pack(">BBBB32s", 2, 3, 0, 0, bytes(32)) + b"\0\0"),
    ("a cut refusal", b"\3\1\0"),
    ("a refusal with less text than it says", b"\3\1\0\5abc"),
    ("an unknown reason", b"\3\xff\0\0"),
    ("a terminal escape", b"\3\1\0\2\x1b["),
    ("accepted and more", sealed.ACCEPTED + b"\0"),
]


@pytest.mark.parametrize("body", [body for _, body in WRONG], ids=[name for name, _ in WRONG])
def test_a_wrong_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        sealed.read_answer(body)


def test_an_answer_becomes_the_message_that_was_waited_for() -> None:
    asked = Locate(7, InfoHash(b"i" * 32), 3)
    found: Any = Sources(NodeId(b"s" * 32), b"", 4, ())
    said = found.redirect(asked, b"held")
    assert (said.request, said.infohash, said.ticket, said.connections) == (7, asked.infohash, b"held", 4)
    refused = sealed.refusal(asked, Refused(Reason.UNKNOWN_TITLE, "no"))
    assert (refused.request, refused.reason, refused.detail) == (7, Reason.UNKNOWN_TITLE, "no")
