"""Strangers on real QUIC who break every rule: each costs itself the connection, and nobody else anything."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from peer.config import Sharing
from shared import clock, node, serving
from shared.core import messages, tickets
from shared.core.bulk import ManifestRequest, PieceRequest, UploadRequest
from shared.core.errors import ConnectionLost, Reason, Refused
from shared.core.ids import Address, InfoHash, Kind, Mode, NodeId
from shared.core.merkle import LEAF_BYTES, leaves_of
from shared.core.messages import (
    PROTOCOL_VERSION,
    Browse,
    Catalogue,
    Have,
    Hello,
    Join,
    Leave,
    Refusal,
    Schedule,
    UploadState,
)
from shared.core.tickets import Ticket
from shared.identity import Identity
from tests.node_parts import (
    House,
    Published,
    Stranger,
    Viewer,
    framed,
    open_house,
    published_once,
    spoken,
    stranger,
)

ELSEWHERE = InfoHash(bytes(32))
Attack = Callable[[Stranger], Awaitable[None]]


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


def hello(version: int = PROTOCOL_VERSION) -> bytes:
    return spoken(Hello(version, Kind.PC, Mode.SHARED, "", "stranger", "127.0.0.1:1"))


async def holder(house: House, film: Published) -> Viewer:
    """A peer that holds the whole film."""
    viewer = await house.start_peer("holder")
    assert await viewer.download(film) == film.data
    return viewer


# -- control streams ------------------------------------------------------------------------------

GREETED = {
    "garbage": (b"\xff" * 100, Reason.TOO_LARGE),
    "text": (framed(b"hello"), Reason.MALFORMED),
    "too long": ((messages.MAX_MESSAGE_BYTES + 1).to_bytes(4, "big"), Reason.TOO_LARGE),
    "nothing": (framed(b""), Reason.MALFORMED),
    "unknown code": (framed(b"d1:ti99ee"), Reason.MALFORMED),
    "no code": (framed(b"de"), Reason.MALFORMED),
    "second Hello": (hello(), Reason.UNEXPECTED),
    "word of a tracker": (spoken(Schedule(1, 1)), Reason.UNEXPECTED),
    "word of an edge": (spoken(UploadState(1, bytes(32), messages.Stage.RECEIVING, 0)), Reason.UNEXPECTED),
    "huge integer": (framed(b"d1:ti3e7:requesti" + b"9" * 50 + b"ee"), Reason.MALFORMED),
    "negative integer": (framed(b"d7:requesti-1e1:ti3ee"), Reason.MALFORMED),
    "deep nest": (framed(b"l" * 100_000), Reason.MALFORMED),
    "endless loop": (framed(b"d0:i1e-6:e"), Reason.MALFORMED),
    "unsorted keys": (framed(b"d1:ti3e7:requesti1ee"), Reason.MALFORMED),
    "key twice": (framed(b"d7:requesti1e7:requesti1e1:ti3ee"), Reason.MALFORMED),
}

UNGREETED = {
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", Reason.TOO_LARGE),
    "message before Hello": (spoken(Browse(1)), Reason.UNEXPECTED),
    "another version": (hello(PROTOCOL_VERSION + 1), Reason.VERSION),
    "silence": (b"\0", Reason.TIMEOUT),
    "half a Hello": (hello()[:20], Reason.TIMEOUT),
}


async def attack(at: Address, raw: bytes, *, greets: bool) -> Reason:
    """Why a node hangs up on who says this."""
    async with stranger(at, greets=greets) as one:
        await one.say_raw(raw)
        return (await one.end()).reason


async def attack_all(
    house: House, film: Published, cases: dict[str, tuple[bytes, Reason]], *, greets: bool
) -> dict[str, list[Reason]]:
    """What tracker, edge and peer say to each case, all at once; then they must go on."""
    viewer = await holder(house, film)
    said: dict[str, list[Reason]] = {}

    async def try_case(name: str, raw: bytes) -> None:
        said[name] = [await attack(at, raw, greets=greets) for at in everybody]

    everybody = (house.tracker.ready.address, house.edge.ready.address, viewer.service.ready.address)
    async with trio.open_nursery() as nursery:
        for name, (raw, _) in cases.items():
            nursery.start_soon(try_case, name, raw)
    assert await viewer.download(film) == film.data
    await house.assert_serves(film)
    return said


async def test_a_broken_message_costs_the_connection(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        said = await attack_all(house, film, GREETED, greets=True)
    assert said == {name: [reason] * 3 for name, (_, reason) in GREETED.items()}


async def test_who_does_not_greet_is_hung_up_on(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path, film) as house:
        monkeypatch.setattr(node, "HELLO_SECONDS", 1.0)
        said = await attack_all(house, film, UNGREETED, greets=False)
    assert said == {name: [reason] * 3 for name, (_, reason) in UNGREETED.items()}


async def test_a_hello_that_comes_byte_by_byte_is_heard(tmp_path: Path, film: Published) -> None:
    async with (
        open_house(tmp_path, film) as house,
        stranger(house.tracker.ready.address, greets=False) as one,
    ):
        for byte in hello():
            await one.say_raw(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()  # it has left, and was read
        await one.hear(Schedule)


async def test_a_flood_of_small_messages_is_borne(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house, stranger(house.edge.ready.address) as one:
        await one.say(*[Leave(ELSEWHERE)] * 5000)
        assert (await one.join(house, film)).infohash == film.infohash
        await house.assert_serves(film)


async def test_who_asks_and_never_reads_is_hung_up_on(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house, stranger(house.tracker.ready.address) as one:
        with suppress(ConnectionLost):
            while True:
                await one.say(*[Browse(1)] * 1000)
        assert (await one.end()).reason is Reason.BUSY
        async with stranger(house.tracker.ready.address) as another:
            await another.say(Browse(7))
            assert (await another.hear(Catalogue)).total == 1


# -- bulk streams ---------------------------------------------------------------------------------


def piece_request(film: Published, piece: int, first: int = 0, count: int = 1) -> bytes:
    """Without the checks of the real one."""
    return struct.pack(">B32sIHHI", 1, film.infohash, piece, first, count, 1000)


BROKEN_REQUESTS: dict[str, Callable[[Published], bytes]] = {
    "unknown type": lambda film: b"\x09" + bytes(50),
    "zero type": lambda film: b"\0",
    "piece beyond the last": lambda film: piece_request(film, film.manifest.piece_count),
    "largest piece": lambda film: piece_request(film, (1 << 32) - 1),
    "leaves beyond the last": lambda film: piece_request(film, 0, 15, 2),
    "no leaves": lambda film: piece_request(film, 0, 0, 0),
    "too many leaves": lambda film: piece_request(film, 0, 0, 65535),
    "cut short": lambda film: piece_request(film, 0)[:-1],
    "empty": lambda film: b"",
}


async def sources(house: House, film: Published) -> tuple[Address, Address]:
    """The edge, and a peer that holds everything."""
    return house.edge.ready.address, (await holder(house, film)).service.ready.address


async def test_a_broken_request_costs_the_connection(tmp_path: Path, film: Published) -> None:
    said: dict[str, list[Reason]] = {}
    async with open_house(tmp_path, film) as house:
        for at in await sources(house, film):
            for name, make in BROKEN_REQUESTS.items():
                async with stranger(at) as one:
                    await one.join(house, film)
                    with pytest.raises((Refused, ConnectionLost)):
                        await one.ask(make(film))
                    said.setdefault(name, []).append((await one.end()).reason)
        await house.assert_serves(film)
    assert said == dict.fromkeys(BROKEN_REQUESTS, [Reason.MALFORMED] * 2)


async def test_a_request_that_never_comes_costs_the_connection(
    tmp_path: Path, film: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path, film) as house:
        monkeypatch.setattr(serving, "HEADER_SECONDS", 0.3)
        async with stranger(house.edge.ready.address) as one:
            await one.connection.open_stream().send_all(piece_request(film, 0)[:5])
            assert (await one.end()).reason is Reason.TIMEOUT
        await house.assert_serves(film)


async def test_what_may_not_be_asked_is_declined(tmp_path: Path, film: Published) -> None:
    manifest, piece = ManifestRequest(film.infohash).encode(), PieceRequest(film.infohash, 0, 0, 1).encode()
    async with open_house(tmp_path, film) as house:
        for at in await sources(house, film):
            async with stranger(at) as one:
                assert await one.ask(manifest) == bytes([Reason.TICKET_INVALID])
                assert await one.ask(piece) == bytes([Reason.TICKET_INVALID])
                assert await one.ask(ManifestRequest(ELSEWHERE).encode()) == bytes([Reason.UNKNOWN_TITLE])
                await one.join(house, film)
                unknown = PieceRequest(ELSEWHERE, 0, 0, 1).encode()
                assert await one.ask(unknown) == bytes([Reason.UNKNOWN_TITLE])
                assert (await one.ask(piece))[-LEAF_BYTES:] == film.data[:LEAF_BYTES]
                assert (await one.ask(manifest))[5:] == film.manifest.raw
                await one.say(Leave(film.infohash), Leave(film.infohash), Join(2, ELSEWHERE, b"?"))
                await one.hear(Refusal)
                assert await one.ask(piece) == bytes([Reason.TICKET_INVALID])


async def test_bytes_of_no_upload_are_refused(tmp_path: Path, film: Published) -> None:
    upload = UploadRequest(bytes(32), 0, 5).encode() + b"hello"
    async with open_house(tmp_path, film) as house:
        edge, peer = await sources(house, film)
        async with stranger(edge, Kind.TOOL) as one:
            with pytest.raises(Refused):
                await one.ask(upload)
        async with stranger(peer) as one:
            with pytest.raises((Refused, ConnectionLost)):
                await one.ask(upload)
            assert (await one.end()).reason is Reason.UNEXPECTED
        async with stranger(house.tracker.ready.address) as one:
            with pytest.raises((Refused, ConnectionLost)):
                await one.ask(upload)
            assert (await one.end()).reason is Reason.UNEXPECTED


async def test_hundreds_of_requests_at_once_get_bytes_or_busy(tmp_path: Path, film: Published) -> None:
    answers: list[bytes] = []

    async def ask(one: Stranger, piece: int) -> None:
        count = film.manifest.leaf_count(piece)
        answers.append(await one.ask(PieceRequest(film.infohash, piece, 0, count).encode()))

    async with open_house(tmp_path, film) as house, stranger(house.edge.ready.address) as one:
        await one.join(house, film)
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(ask, one, number % film.manifest.piece_count)
        assert {answer[0] for answer in answers} == {Reason.NONE, Reason.BUSY}
        whole = [answer for answer in answers if answer[0] == Reason.NONE]
        pieces = {film.piece(index) for index in range(film.manifest.piece_count)}
        for answer in whole:
            assert any(answer.endswith(leaves_of(piece) + piece) for piece in pieces)
        await house.assert_serves(film)


async def test_streams_beyond_all_bounds_cost_the_connection(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house, stranger(house.edge.ready.address) as one:
        with suppress(Refused, ConnectionLost):
            for _ in range(1000):  # none of them ever says what it wants
                await one.connection.open_stream().send_all(b"\x01")
        await house.assert_serves(film)


async def test_giving_up_in_the_middle_frees_the_slot(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house, stranger(house.edge.ready.address) as one:
        await one.join(house, film)
        request = PieceRequest(film.infohash, 0, 0, film.manifest.leaf_count(0)).encode()
        for _ in range(40):
            with one.connection.open_stream() as stream:
                await stream.send_all(request)
                assert await stream.receive_exactly(1) in (b"\0", bytes([Reason.BUSY]))
        while (answer := await one.ask(request))[0] == Reason.BUSY:
            await trio.lowlevel.checkpoint()
        assert answer.endswith(film.piece(0))
        await house.assert_serves(film)


# -- tickets --------------------------------------------------------------------------------------


def flipped(ticket: bytes) -> bytes:
    return ticket[:50] + bytes([ticket[50] ^ 1]) + ticket[51:]


BAD_TICKETS: dict[str, tuple[Callable[[House, NodeId, InfoHash], bytes], Reason]] = {
    "none": (lambda house, me, film: b"\0", Reason.TICKET_INVALID),
    "expired": (lambda house, me, film: house.ticket(me, film, seconds=-60), Reason.TICKET_EXPIRED),
    "forged": (lambda house, me, film: flipped(house.ticket(me, film)), Reason.TICKET_INVALID),
    "of another": (lambda house, me, film: house.ticket(NodeId(bytes(32)), film), Reason.TICKET_INVALID),
    "of another film": (lambda house, me, film: house.ticket(me, ELSEWHERE), Reason.TICKET_INVALID),
    "of a foreign tracker": (lambda house, me, film: foreign(me, film), Reason.TICKET_INVALID),
}


def foreign(viewer: NodeId, infohash: InfoHash) -> bytes:
    ticket = Ticket(viewer, infohash, int(clock.now()) + 600, tickets.UNLIMITED)
    return tickets.issue(Identity.generate().private_key, ticket)


async def test_a_bad_ticket_opens_nothing(tmp_path: Path, film: Published) -> None:
    said: dict[str, list[Reason]] = {}
    async with open_house(tmp_path, film) as house:
        for at in await sources(house, film):
            for name, (make, _) in BAD_TICKETS.items():
                async with stranger(at) as one:
                    await one.say(Join(5, film.infohash, make(house, one.id, film.infohash)))
                    said.setdefault(name, []).append((await one.hear(Refusal)).reason)
                    assert await one.ask(piece_request(film, 0)) == bytes([Reason.TICKET_INVALID])
                    assert (await one.join(house, film)).infohash == film.infohash
    assert said == {name: [reason] * 2 for name, (_, reason) in BAD_TICKETS.items()}


async def test_a_ticket_is_good_for_so_many_bytes(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        for at in await sources(house, film):
            async with stranger(at) as one:
                ticket = house.ticket(one.id, film.infohash, quota=3 * LEAF_BYTES)
                await one.say(Join(1, film.infohash, ticket))
                await one.hear(Have)
                assert (await one.ask(piece_request(film, 0, 0, 3)))[0] == Reason.NONE
                await one.say(Join(2, film.infohash, ticket))  # coming in again starts no new count
                await one.hear(Have)
                assert await one.ask(piece_request(film, 0, 3, 1)) == bytes([Reason.NOT_ALLOWED])


async def test_a_direct_peer_serves_nobody(tmp_path: Path, film: Published) -> None:
    async with open_house(tmp_path, film) as house:
        viewer = await house.start_peer("direct", mode=Sharing.DIRECT)
        assert await viewer.download(film) == film.data
        async with stranger(viewer.service.ready.address) as one:
            await one.say(Join(9, film.infohash, house.ticket(one.id, film.infohash)))
            assert (await one.hear(Refusal)).reason is Reason.NOT_SHARING
            answer = await one.ask(piece_request(film, 0))
            assert answer == bytes([Reason.NOT_SHARING])
        assert (await viewer.statistics(film))["uploaded_bytes"] == 0
