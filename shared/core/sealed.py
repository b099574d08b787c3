"""Sealed datagrams: an announce, a locate or a report for one datagram each way, once a seal was agreed.

A *seal* is a number, two AES-128-GCM keys and a lifetime. The tracker makes one for a node over its
connection (WantSeal, Seal), and it ends with that connection. Numbers are big-endian.

    ask, answer       kind(1) number(7) counter(u64) sealed body, tag(16)
                      kind: 8 from the node, 9 from the tracker; neither can begin a QUIC packet
                      nonce: 0(4) counter(8); additional data: the 16 bytes before the body
    announce          01 event(1) spare(1) 00 infohash(32) held(u32) total(u32) summary(u32)
                      in a datagram of 80 bytes; event: 0 started, 1 update, 2 completed, 3 stopped
    locate            02 stretch(1) ticket(1) 00 infohash(32) 00 to a datagram of 1200 bytes
                      ticket: 1 a new one is wanted, 0 the asker has one that runs for a while yet
    report            03 shares(1) uses(1) 00 up, down and cap rate, bytes of edges, of peers, uploaded,
                      held (u64 each) connections(u32) stalls(u32) run(u64), shares (40 each), uses (56 each),
                      as in Report; one that does not fit 1200 bytes goes over the connection
    share, use        node(32) taken(u64); infohash(32) edge, peer and uploaded bytes (u64 each)
    accepted          01 000000, the answer to an announce or a report
    redirect          02 connections(1) sources(1) ticket(1) signer(32) [ticket(177)] sources (54 each)
                      names(1), each length(1) text; ticket: 1 there is one
    source            node(32) address(16, IPv4 mapped into IPv6) port(u16) kind(1) spare(1) why(1)
                      region(1): a place among the names, 255 if it was left out
                      kind: 0 pc, 1 stb, 2 mobile, 3 edge; why: its place in the list of words, from 0
    refusal           03 reason(1) length(u16) text

The node counts every datagram it seals, from 0, also when it asks again because no answer came; a
counter is used once. The answer has the counter of its ask, under a key of its own, and since the tracker
takes each counter once (a window of the last 192, as RFC 6479) no nonce is ever used twice. A
seal ends after 2^32 datagrams at the latest.

No answer is longer than its ask, which is why a locate is padded. So nobody can use the tracker to send
a third party more than they spend themselves, whatever sender they claim, and the
tracker need not know which addresses are proven: a node whose address changes goes on under its seal.
Whoever catches an ask on its way and sends it on from elsewhere gets the answer, which it cannot read,
and the node none, as if the datagram had been lost: it asks again, and after a few times over its
connection. What is said of the node's own address is not read from datagrams: sources are
named at the address of their connection.

An accepted report says to both sides that the connection it belongs to is alive, as a packet of it would:
neither counts it as idle, and no ping is sent for a while. So reports go by the seal of a door at the
connection's own port only.

An unknown or ended seal, a wrong tag, a counter seen before or too old, a length that no ask has: silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct

from shared.core.errors import ProtocolError, Reason
from shared.core.ids import HostPort, InfoHash, Kind, NodeId, parse_host_port
from shared.core.messages import Announce, Event, Locate, Redirect, Refusal, Report, Source, Why
from shared.core.sealed_report import LEAST_BYTES, SAYS_REPORT, read_report, report_body
from shared.core.tickets import TICKET_BYTES

ASK, ANSWER = 8, 9  # first bytes; 64 to 127 and 192 to 255 are QUIC's (RFC 9443)
HEAD_BYTES, TAG_BYTES, NUMBER_BYTES = 16, 16, 7
ANNOUNCE_BYTES, LOCATE_BYTES = 80, 1200  # whole datagrams
REPORT_BYTES = HEAD_BYTES + LEAST_BYTES + TAG_BYTES  # at least; LOCATE_BYTES at most
REPORT_STEP_BYTES = 8  # between its lengths
MOST_SOURCES = 14
MOST_COUNTER = (1 << 32) - 1

HEAD = Struct(">B7sQ")
NONCE = Struct(">4xQ")
CARD = Struct(">32s16sHB")  # of a source: what does not depend on who asks
_ANNOUNCE = Struct(">BBBx32sIII")
_LOCATE = Struct(">BBBx32s")
_REDIRECT = Struct(">BBBB32s")
_SOURCE = Struct(">32s16sHBBBB")
SOURCE_BYTES = _SOURCE.size
_REFUSAL = Struct(">BBH")
_MAPPED = b"\0" * 10 + b"\xff\xff"

EVENTS = (Event.STARTED, Event.UPDATE, Event.COMPLETED, Event.STOPPED)
KINDS = (Kind.PC, Kind.STB, Kind.MOBILE, Kind.EDGE)
WHYS = tuple(Why)
SAYS_ANNOUNCE, SAYS_LOCATE = 1, 2
_REPORT_BYTE = bytes([SAYS_REPORT])
_SAYS_ACCEPTED, _SAYS_REDIRECT, _SAYS_REFUSAL = 1, 2, 3
_NO_NAME, _MOST_NAME_BYTES = 255, 32
_ROOM = LOCATE_BYTES - HEAD_BYTES - TAG_BYTES  # of the longest answer's body
_PADDING = bytes(_ROOM - _LOCATE.size)
ACCEPTED = bytes([_SAYS_ACCEPTED, 0, 0, 0])

_EVENT_NUMBERS = {event: number for number, event in enumerate(EVENTS)}
_KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
WHY_NUMBERS = {why: number for number, why in enumerate(WHYS)}


@dataclass(frozen=True, slots=True)
class LocateAsk:
    """A locate as a datagram has it."""

    infohash: InfoHash
    stretch: int
    wants_ticket: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """An announce or a report was taken."""


@dataclass(frozen=True, slots=True)
class Refused:
    """An ask was declined."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Sources:
    """A redirect as a datagram has it; the ticket is empty if none was wanted."""

    signer: NodeId
    ticket: bytes
    connections: int
    sources: tuple[Source, ...]

    def redirect(self, asked: Locate, ticket: bytes) -> Redirect:
        """As the answer to a locate, with the ticket that the asker has."""
        return Redirect(
            asked.request, asked.infohash, self.signer, self.ticket or ticket, self.connections, self.sources
        )


# -- asks ------------------------------------------------------------------------------------


def announce_body(message: Announce) -> bytes:
    """What stands under the seal."""
    return _ANNOUNCE.pack(
        SAYS_ANNOUNCE, _EVENT_NUMBERS[message.event], message.spare,
        message.infohash, message.held, message.total, message.summary,
    )  # fmt: skip


def asked_body(message: Announce | Report) -> bytes | None:
    """What stands under the seal; None if it does not fit."""
    return announce_body(message) if isinstance(message, Announce) else report_body(message, _ROOM)


def locate_body(ask: LocateAsk) -> bytes:
    """What stands under the seal, padding and all."""
    return _LOCATE.pack(SAYS_LOCATE, ask.stretch, ask.wants_ticket, ask.infohash) + _PADDING


def read_ask(body: bytes) -> Announce | LocateAsk | Report:
    """What a node asks. Raises ProtocolError for anything not exactly right."""
    if len(body) == _ANNOUNCE.size and body[0] == SAYS_ANNOUNCE:
        _, event, level, infohash, held, total, summary = _ANNOUNCE.unpack(body)
        if event >= len(EVENTS) or level > 7 or body[3]:
            raise ProtocolError(Reason.MALFORMED, "not an announce")
        return Announce(InfoHash(infohash), EVENTS[event], held, total, level, summary)
    if len(body) == _ROOM and body[0] == SAYS_LOCATE:
        _, stretch, ticket, infohash = _LOCATE.unpack_from(body)
        if stretch > 32 or ticket > 1 or body[3] or not body.endswith(_PADDING):
            raise ProtocolError(Reason.MALFORMED, "not a locate")
        return LocateAsk(InfoHash(infohash), stretch, bool(ticket))
    if body[:1] == _REPORT_BYTE and len(body) <= _ROOM:
        return read_report(body)
    raise ProtocolError(Reason.MALFORMED, "not an ask")


# -- answers ---------------------------------------------------------------------------------


def refusal_body(reason: Reason, detail: str, room: int) -> bytes:
    """A refusal, its text cut so that all of it has at most `room` bytes."""
    text = detail.encode()[: max(0, room - _REFUSAL.size)].decode(errors="ignore").encode()
    return _REFUSAL.pack(_SAYS_REFUSAL, reason, len(text)) + text


def card(node: NodeId, at: HostPort, kind: Kind) -> bytes | None:
    """A source's id, address and kind as they stand in a redirect; None if no answer can name it."""
    try:
        address = ip_address(at.host)
    except ValueError:
        return None  # a name
    number = _KIND_NUMBERS.get(kind)
    if number is None or (isinstance(address, IPv6Address) and address.scope_id):
        return None
    mapped = _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed
    return CARD.pack(node, mapped, at.port, number)


def sources_body(found: Sources) -> bytes | None:
    """A redirect under the seal; None if it does not fit, or names what no datagram can."""
    sources = found.sources
    if len(sources) > MOST_SOURCES or len(found.ticket) not in (0, TICKET_BYTES):
        return None
    places, names = name_places([source.region for source in sources], len(found.ticket))
    parts = [redirect_head(found.signer, found.ticket, found.connections, len(sources))]
    for source, place in zip(sources, places, strict=True):
        known = card(source.node, parse_host_port(source.at), source.kind)
        if known is None:
            return None
        parts += (known, bytes((source.spare, WHY_NUMBERS[source.why], place)))
    return b"".join((*parts, names))


def redirect_head(signer: NodeId, ticket: bytes, connections: int, count: int) -> bytes:
    """What stands before the sources."""
    return _REDIRECT.pack(_SAYS_REDIRECT, connections, count, len(ticket) > 0, signer) + ticket


def name_places(regions: Sequence[str], ticket_bytes: int = TICKET_BYTES) -> tuple[bytes, bytes]:
    """The places of sources' regions among the names of a redirect, and these as they stand at its end."""
    room = _ROOM - _REDIRECT.size - ticket_bytes - len(regions) * SOURCE_BYTES - 1
    known: dict[str, int] = {}
    tail, places = b"", bytearray()
    for region in regions:
        place = known.get(region)
        if place is None:
            name = region.encode()
            if len(tail) + 1 + len(name) <= room:
                place = known[region] = len(known)
                tail += bytes([len(name)]) + name
            else:
                place = _NO_NAME
        places.append(place)
    return bytes(places), bytes([len(known)]) + tail


def read_answer(body: bytes) -> Accepted | Refused | Sources:
    """What the tracker answers. Raises ProtocolError for anything not exactly right."""
    if body == ACCEPTED:
        return Accepted()
    try:
        if body[:1] == bytes([_SAYS_REFUSAL]):
            return _read_refusal(body)
        if body[:1] == bytes([_SAYS_REDIRECT]):
            return _read_sources(body)
    except (ValueError, IndexError):
        pass
    raise ProtocolError(Reason.MALFORMED, "not an answer")


def _read_refusal(body: bytes) -> Refused:
    if len(body) < _REFUSAL.size:
        raise ValueError("cut")
    _, reason, size = _REFUSAL.unpack_from(body)
    text = body[_REFUSAL.size :].decode()
    if size != len(body) - _REFUSAL.size or size > 400 or not text.isprintable():
        raise ValueError("not a text")
    return Refused(Reason(reason), text)


def _read_sources(body: bytes) -> Sources:
    if not _REDIRECT.size < len(body) <= _ROOM:
        raise ValueError("no redirect is as long")
    _, connections, count, has_ticket, signer = _REDIRECT.unpack_from(body)
    if not 1 <= connections <= 32 or count > MOST_SOURCES or has_ticket > 1:
        raise ValueError("out of bounds")
    at = _REDIRECT.size + has_ticket * TICKET_BYTES
    end = at + count * _SOURCE.size
    names = _read_names(body[end:])
    sources = tuple(_read_source(body, at + n * _SOURCE.size, names) for n in range(count))
    if len({*names} & {source.region for source in sources}) != len(names):
        raise ValueError("a name that nobody has, or has twice")
    return Sources(NodeId(signer), body[_REDIRECT.size : at], connections, sources)


def _read_names(tail: bytes) -> list[str]:
    names, at = [], 1
    for _ in range(tail[0]):
        size = tail[at]
        name = tail[at + 1 : at + 1 + size].decode()
        if size > _MOST_NAME_BYTES or len(tail) < at + 1 + size or not name.isprintable():
            raise ValueError("not a name")
        names.append(name)
        at += 1 + size
    if at != len(tail):
        raise ValueError("something follows")
    return names


def _read_source(body: bytes, at: int, names: Sequence[str]) -> Source:
    node, address, port, kind, level, why, region = _SOURCE.unpack_from(body, at)
    if level > 7 or not port:
        raise ValueError("out of bounds")
    host: IPv4Address | IPv6Address = IPv6Address(address)
    if address.startswith(_MAPPED):
        host = IPv4Address(address[12:])
    name = "" if region == _NO_NAME else names[region]
    return Source(NodeId(node), str(HostPort(str(host), port)), KINDS[kind], name, level, WHYS[why])


def refusal(asked: Locate, refused: Refused) -> Refusal:
    """A refusal as it comes over the connection."""
    return Refusal(asked.request, refused.reason, refused.detail)
