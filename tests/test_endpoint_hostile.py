from __future__ import annotations

import logging
import random
import socket
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType, pull_quic_header
from aioquic.quic.packet_builder import QuicPacketBuilder
from hypothesis import given
from hypothesis import strategies as st

from shared import clock
from shared.core.errors import ConnectionLost, Reason
from shared.core.ids import HostPort
from shared.endpoint import Endpoint, open_endpoint
from shared.quic import QuicEngine
from shared.quic_settings import VERSIONS, configure
from shared.reception import Reception, Welcome
from tests.quic_pair import FAR, LOOPBACK, NEAR, Relay, ask, echo, joined, read_all, stranger

SENDER = (LOOPBACK, 40000)
SOME = random.Random(2).randbytes(600_000)


def first_datagram() -> bytes:
    """A good first datagram of a client nobody has seen."""
    client = QuicConnection(configuration=configure(NEAR, True, 5.0))
    client.connect(("far", 1), 0.0)
    return client.datagrams_to_send(0.0)[0][0]


def initial(write: Any) -> bytes:
    """An Initial packet, well sealed, with the frames that `write(builder)` puts into it."""
    crypto = CryptoPair()
    crypto.setup_initial(cid=b"12345678", is_client=True, version=VERSIONS[0])
    builder = QuicPacketBuilder(
        host_cid=b"abcdefgh",
        peer_cid=b"12345678",
        version=VERSIONS[0],
        is_client=True,
        max_datagram_size=1200,
    )
    builder.start_packet(QuicPacketType.INITIAL, crypto)
    write(builder)
    return builder.flush()[0][0]


async def still_serves(endpoint: Endpoint) -> None:
    """The endpoint makes and uses a connection as if nothing had happened."""
    async with open_endpoint(NEAR, LOOPBACK) as near:
        connection = await near.connect(FAR.id, endpoint.local)
        other = await endpoint.accept()
        stream = connection.open_stream()
        await stream.send_all(b"hello")
        assert await (await other.accept_stream()).receive_some() == b"hello"
        connection.close()
        with trio.fail_after(5):
            await other.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of: datagrams on their way through the kernel."""
    with trio.fail_after(10):
        while not condition():
            await trio.testing.wait_all_tasks_blocked(0.001)


async def settled(endpoint: Endpoint, datagrams: int) -> None:
    """Wait until the endpoint has taken so many datagrams."""
    await until(lambda: endpoint.statistics().datagrams_received >= datagrams)


def _reception(**limits: int) -> Reception:
    usual: dict[str, Any] = {"max_connections": 10, "max_half_open": 5, "retry_above": 2}
    return Reception(**usual | limits, reset_key=FAR.reset_key)


def judge(reception: Reception, datagram: bytes, connections: int = 0, half_open: int = 0) -> Any:
    return reception.judge(datagram, SENDER, 1.0, connections=connections, half_open=half_open)


@given(
    datagram=st.one_of(
        st.binary(max_size=1500),
        st.binary(max_size=60).map(lambda head: head.ljust(1200, b"\0")),
        st.binary(max_size=40).map(lambda rest: (b"\xc0\0\0\0\x01" + rest).ljust(1300, b"\x08")),
    ),
    half_open=st.integers(0, 6),
)
def test_first_datagrams(datagram: bytes, half_open: int) -> None:
    """Whatever a stranger sends: silence, a welcome, or a reply no longer than what it answers."""
    verdict = judge(_reception(), datagram, half_open=half_open)
    assert verdict is None or isinstance(verdict, (bytes, Welcome))
    if verdict is not None:
        assert len(datagram) >= 1200
    if isinstance(verdict, bytes):
        assert len(verdict) <= len(datagram)


def test_the_order_of_the_reception() -> None:
    good, reception = first_datagram(), _reception()
    header = pull_quic_header(Buffer(data=good), host_cid_length=8)
    assert judge(reception, good) == Welcome(header.destination_cid, None)
    assert judge(reception, good[:1199]) is None
    retry = judge(reception, good, half_open=2)
    assert pull_quic_header(Buffer(data=retry), host_cid_length=8).packet_type is QuicPacketType.RETRY
    for full in ({"half_open": 5}, {"connections": 10}):
        refusal = judge(reception, good, **full)
        assert pull_quic_header(Buffer(data=refusal), host_cid_length=8).packet_type is QuicPacketType.INITIAL
        assert len(refusal) < 100


def test_a_token_of_somebody_else_is_refused() -> None:
    client = QuicConnection(configuration=configure(NEAR, True, 5.0))
    client.connect(SENDER, 0.0)
    retry = judge(_reception(), client.datagrams_to_send(0.0)[0][0], half_open=2)
    client.receive_datagram(retry, SENDER, 0.0)
    with_token = client.datagrams_to_send(0.0)[0][0]
    verdict = judge(_reception(), with_token)  # another reception has another key
    assert pull_quic_header(Buffer(data=verdict), host_cid_length=8).packet_type is QuicPacketType.INITIAL


def test_an_unknown_version_is_told_ours_and_a_version_negotiation_nothing() -> None:
    unknown = b"\xc0\x0a\x0a\x0a\x0a" + b"\x04dest" + b"\x03src" + bytes(1200)
    reply = judge(_reception(), unknown)
    header = pull_quic_header(Buffer(data=reply), host_cid_length=8)
    assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
    assert (header.destination_cid, header.source_cid) == (b"src", b"dest")
    assert header.supported_versions == VERSIONS
    assert judge(_reception(), b"\xc0\0\0\0\0" + unknown[5:]) is None  # or two of us would never stop
    assert judge(_reception(), unknown[:100]) is None


async def test_garbage_costs_nothing() -> None:
    dice = random.Random(3)
    good = first_datagram()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        async with open_endpoint(FAR, LOOPBACK) as far:
            target = (far.local.host, far.local.port)
            for number in range(600):
                datagram = bytearray(dice.randbytes(dice.choice([0, 1, 5, 6, 20, 1200, 1400, 3000])))
                if number % 3 == 0:
                    datagram = bytearray(good)
                    for _ in range(dice.randrange(1, 5)):
                        datagram[dice.randrange(len(datagram))] = dice.randrange(256)
                    del datagram[dice.choice([50, 1199, 1200, 1350]) :]
                sock.sendto(datagram, target)
                if number % 50 == 0:
                    await trio.lowlevel.checkpoint()
            await settled(far, 500)
            await still_serves(far)
            assert far.statistics().half_open < 64


async def test_unfinished_handshakes_are_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.endpoint.HANDSHAKE_SECONDS", 0.5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        async with open_endpoint(FAR, LOOPBACK, retry_above=8) as far:
            for _ in range(40):
                sock.sendto(first_datagram(), (far.local.host, far.local.port))
            await settled(far, 40)
            assert far.statistics().half_open == 8
            assert far.statistics().unwanted_datagrams == 32  # each answered by a Retry
            await still_serves(far)
            await until(lambda: far.statistics().half_open == 0)


def _far_crypto(builder: QuicPacketBuilder) -> None:
    frame = builder.start_frame(QuicFrameType.CRYPTO, capacity=20)
    frame.push_uint_var(500_000)  # a gap that would have to be kept free
    frame.push_uint_var(4)
    frame.push_bytes(b"oops")


def _unknown_frame(builder: QuicPacketBuilder) -> None:
    builder.start_frame(QuicFrameType.CRYPTO, capacity=20).push_uint_var(0)
    builder._buffer.push_uint_var(0)
    builder._buffer.push_uint_var(0x1F)


def _bad_hello(builder: QuicPacketBuilder) -> None:
    frame = builder.start_frame(QuicFrameType.CRYPTO, capacity=200)
    frame.push_uint_var(0)
    frame.push_uint_var(104)
    frame.push_bytes(b"\x01\0\0\x64" + b"\x03\x03" + bytes(32) + b"\xff" * 66)


@pytest.mark.parametrize("write", [_far_crypto, _unknown_frame, _bad_hello])
async def test_a_malformed_handshake_ends_at_once(write: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        async with open_endpoint(FAR, LOOPBACK) as far:
            sock.sendto(initial(write), (far.local.host, far.local.port))
            await settled(far, 1)
            assert far.statistics().half_open == 0
            await still_serves(far)


def _open_one_way(quic: QuicConnection) -> None:
    quic._remote_max_streams_uni = 10
    quic._remote_max_stream_data_uni = quic._remote_max_data = 1 << 20
    quic.send_stream_data(2, b"one way")


def _overrun_the_window(quic: QuicConnection) -> None:
    quic._remote_max_data = quic._remote_max_stream_data_bidi_remote = 1 << 40
    quic.send_stream_data(0, bytes(4 << 20))


def _open_too_many(quic: QuicConnection) -> None:
    quic._remote_max_streams_bidi = 1 << 20
    quic.send_stream_data(4 * 5000, b"the five thousandth")


def _datagram_frame(quic: QuicConnection) -> None:
    quic.send_datagram_frame(b"not negotiated")


@pytest.mark.parametrize("act", [_open_one_way, _overrun_the_window, _open_too_many, _datagram_frame])
async def test_a_peer_that_breaks_the_rules_loses_its_connection_only(act: Any) -> None:
    async with open_endpoint(FAR, LOOPBACK) as far:
        seen = await stranger(far.local, configure(NEAR, True, 5.0), act)
        assert seen.ended is not None
        assert seen.ended.frame_type is not None  # the engine's verdict, not a reason of ours
        assert seen.ended.error_code != 0
        await until(lambda: far.statistics().connections == 0)
        await still_serves(far)


async def test_an_engine_that_fails_costs_one_connection_and_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with joined() as pair:
        other = await pair.near_endpoint.connect(FAR.id, pair.far_endpoint.local)
        other_far = await pair.far_endpoint.accept()
        doomed = pair.far._engine
        receive = QuicEngine.receive_batch

        def fail(engine: QuicEngine, *arguments: Any) -> list[bytes]:
            if engine is doomed:
                raise AssertionError("never thought of")
            return receive(engine, *arguments)

        monkeypatch.setattr(QuicEngine, "receive_batch", fail)
        with caplog.at_level(logging.WARNING):
            await pair.near.open_stream().send_all(b"x")
            with trio.fail_after(5):
                loss = await pair.far.wait_closed()
            await pair.near.open_stream().send_all(b"y")
        assert loss.reason is Reason.INTERNAL
        assert [record.exc_info for record in caplog.records] == [None]
        stream = other.open_stream()
        await stream.send_all(b"alive")
        assert await (await other_far.accept_stream()).receive_some() == b"alive"


async def test_mangled_datagrams_on_the_way_do_no_harm() -> None:
    dice = random.Random(4)
    kept: list[bytes] = []

    def mangle(datagram: bytes) -> list[bytes]:
        """One in eight is damaged, cut, doubled, held back or lost."""
        out = [datagram]
        match dice.randrange(40):
            case 0:
                out = [bytes([datagram[0] ^ (1 << dice.randrange(8))]) + datagram[1:]]
            case 1:
                at = dice.randrange(len(datagram))
                out = [datagram[:at] + bytes([datagram[at] ^ 0x55]) + datagram[at + 1 :], datagram]
            case 2:
                out = [datagram[: dice.randrange(len(datagram))]]
            case 3:
                out = [datagram, datagram]
            case 4:
                kept.append(datagram)
                out = []
        if kept and dice.random() < 0.3:
            out.append(kept.pop())
        return out

    async with (
        open_endpoint(FAR, LOOPBACK) as far,
        open_endpoint(NEAR, LOOPBACK) as near,
        trio.open_nursery() as nursery,
    ):
        relay = Relay(far.local)
        relay.mangle = mangle
        nursery.start_soon(relay.run)
        connection = await near.connect(FAR.id, relay.at)
        other = await far.accept()

        async def send() -> None:
            stream = connection.open_stream()
            await stream.send_all(SOME)
            stream.send_eof()

        nursery.start_soon(send)
        with trio.fail_after(30):
            received = await read_all(await other.accept_stream())
        assert sha256(received).digest() == sha256(SOME).digest()
        nursery.cancel_scope.cancel()


async def test_somebody_elses_datagrams_do_not_end_a_connection() -> None:
    """Copies of a client's own datagrams from another address, and forged ones to its ids, change nothing."""
    async with (
        open_endpoint(FAR, LOOPBACK) as far,
        open_endpoint(NEAR, LOOPBACK) as near,
        trio.open_nursery() as nursery,
    ):
        relay = Relay(far.local)
        seen: list[bytes] = []

        def record(datagram: bytes) -> list[bytes]:
            seen.append(datagram)
            return [datagram]

        relay.mangle = record
        nursery.start_soon(relay.run)
        connection = await near.connect(FAR.id, relay.at)
        other = await far.accept()
        nursery.start_soon(_echo_quietly, other)
        assert await ask(connection, b"before") == b"before"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
            for datagram in list(seen):
                for target in (far.local, near.local):
                    forger.sendto(datagram, (target.host, target.port))
                    forger.sendto(datagram[:9] + bytes(40), (target.host, target.port))
        assert await ask(connection, b"after") == b"after"
        assert (connection.loss, other.loss) == (None, None)
        assert other.remote == HostPort(LOOPBACK, relay.at.port)
        nursery.cancel_scope.cancel()


async def _echo_quietly(connection: Any) -> None:
    try:
        await echo(connection)
    except* ConnectionLost:
        pass


def test_a_first_datagram_that_cannot_be_read_leaves_no_connection() -> None:
    datagram = bytearray(first_datagram())
    datagram[200] ^= 1
    header = pull_quic_header(Buffer(data=bytes(datagram)), host_cid_length=8)
    engine = QuicEngine(
        FAR,
        is_client=False,
        idle_timeout_seconds=5,
        original_destination_connection_id=header.destination_cid,
    )
    engine.receive_datagram(bytes(datagram), SENDER, clock.now())
    assert engine.is_stillborn
