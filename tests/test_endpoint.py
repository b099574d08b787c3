from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import trio
import trio.testing
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from shared.connection import Connection
from shared.core.errors import ConnectionLost, LocalError, Reason
from shared.core.gate import HEADER_BYTES_V4, TURN_BYTES, Gate, burst_for
from shared.core.ids import HostPort
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.quic_settings import configure
from tests.quic_pair import FAR, LOOPBACK, NEAR, Relay, joined, read_all, stranger

RATE = 200_000.0


async def test_both_sides_know_each_other_and_where_they_are() -> None:
    async with joined() as pair:
        assert (pair.near.peer, pair.far.peer) == (FAR.id, NEAR.id)
        assert (pair.near.remote, pair.far.remote) == (pair.far_endpoint.local, pair.near_endpoint.local)
        assert (pair.near.is_client, pair.far.is_client) == (True, False)
        # One socket listens and dials: the other way round works beside it.
        back = await pair.far_endpoint.connect(NEAR.id, pair.near_endpoint.local)
        assert (await pair.near_endpoint.accept()).peer == FAR.id
        assert back.remote == pair.near_endpoint.local
        seen = pair.near_endpoint.statistics()
        assert (seen.connections, seen.half_open) == (2, 0)
        assert seen.bytes_sent > seen.datagrams_sent * HEADER_BYTES_V4


async def test_another_node_than_expected_is_refused_and_never_accepted() -> None:
    async with (
        open_endpoint(FAR, LOOPBACK) as far,
        open_endpoint(NEAR, LOOPBACK) as near,
    ):
        with pytest.raises(ConnectionLost, match=f"another node answered: {FAR.id.hex()}") as caught:
            await near.connect(NEAR.id, far.local)
        assert caught.value.reason is Reason.NOT_ALLOWED
        await near.connect(FAR.id, far.local)
        await far.accept()
        assert far.statistics().connections == 1


@pytest.mark.parametrize("liar", ["dialler", "listener"])
async def test_a_certificate_without_its_key_is_refused(liar: str) -> None:
    """A borrowed certificate has the right id; only the handshake's signature shows what is missing."""
    thief = replace(NEAR, private_key=Identity.generate().private_key)
    listener, dialler = (thief, FAR) if liar == "listener" else (FAR, thief)
    async with (
        open_endpoint(listener, LOOPBACK) as far,
        open_endpoint(dialler, LOOPBACK) as near,
    ):
        accepted = False

        async def accept() -> None:
            nonlocal accepted
            await far.accept()
            accepted = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            with pytest.raises(ConnectionLost, match="TLS alert 51") as caught:
                connection = await near.connect(listener.id, far.local)
                raise await connection.wait_closed()
            assert caught.value.reason is Reason.NOT_ALLOWED
            nursery.cancel_scope.cancel()
        assert not accepted


async def test_a_client_without_a_certificate_is_told_to_go() -> None:
    async with open_endpoint(FAR, LOOPBACK) as far:
        configuration = replace(configure(NEAR, True, 5.0), certificate=None, private_key=None)
        seen = await stranger(far.local, configuration)
        assert seen.has_shaken_hands
        assert seen.ended is not None
        assert (seen.ended.error_code, seen.ended.frame_type) == (Reason.NOT_ALLOWED, None)
        assert far.statistics().connections == 0


async def test_a_certificate_of_another_kind_is_told_to_go() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    own = NEAR.certificate
    builder = x509.CertificateBuilder(subject_name=own.subject, issuer_name=own.subject)
    builder = builder.not_valid_before(own.not_valid_before_utc).not_valid_after(own.not_valid_after_utc)
    certificate = builder.public_key(key.public_key()).serial_number(1).sign(key, SHA256())
    async with open_endpoint(FAR, LOOPBACK) as far:
        configuration = replace(configure(NEAR, True, 5.0), certificate=certificate, private_key=key)
        seen = await stranger(far.local, configuration)
        assert seen.ended is not None
        assert (seen.ended.error_code, seen.ended.frame_type) == (Reason.NOT_ALLOWED, None)


@pytest.mark.parametrize("protocols", [["h3"], None])
async def test_another_protocol_is_refused(protocols: list[str] | None) -> None:
    configuration: QuicConfiguration = replace(configure(NEAR, True, 5.0), alpn_protocols=protocols)
    async with open_endpoint(FAR, LOOPBACK) as far:
        seen = await stranger(far.local, configuration)
        assert seen.ended is not None
        assert not seen.has_shaken_hands
        assert seen.ended.error_code == 0x100 + 120


async def test_nobody_there_is_a_timeout() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind((LOOPBACK, 0))
        async with open_endpoint(NEAR, LOOPBACK) as near:
            with pytest.raises(ConnectionLost, match="did not answer in 0.2 s") as caught:
                await near.connect(FAR.id, HostPort(*deaf.getsockname()), timeout=0.2)
            assert caught.value.reason is Reason.TIMEOUT
            with pytest.raises(ConnectionLost, match="cannot be resolved"):
                await near.connect(FAR.id, HostPort("::1", 9))  # from an IPv4 socket


async def test_a_port_in_use_names_the_address_and_the_setting() -> None:
    async with open_endpoint(FAR, LOOPBACK) as far:
        with pytest.raises(LocalError, match=rf"cannot listen on {far.local} .* set peer\.listen") as caught:
            async with open_endpoint(NEAR, LOOPBACK, far.local.port, setting="peer.listen"):
                pass
        assert "\n" not in str(caught.value)
    with pytest.raises(LocalError, match="cannot listen on 192.0.2.7:0"):
        async with open_endpoint(NEAR, "192.0.2.7"):
            pass


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_ipv6_and_ipv4_on_one_socket() -> None:
    async with (
        open_endpoint(FAR, "::") as far,
        open_endpoint(NEAR, "::1") as six,
        open_endpoint(NEAR, LOOPBACK) as four,
        open_endpoint(NEAR, "::") as both,
    ):
        port = far.local.port
        for endpoint, host in ((six, "::1"), (four, LOOPBACK), (both, LOOPBACK), (both, "::1")):
            connection = await endpoint.connect(FAR.id, HostPort(host, port))
            assert connection.remote == HostPort(host, port)
            assert (await far.accept()).remote.host == host
        seen = four.statistics()
        assert seen.bytes_sent - seen.datagrams_sent * HEADER_BYTES_V4 > 1200


async def test_leaving_tells_every_peer_and_lets_errors_through_as_they_are() -> None:
    async with open_endpoint(NEAR, LOOPBACK) as near:
        with pytest.raises(KeyError, match="on its way"):
            async with open_endpoint(FAR, LOOPBACK) as far:
                connection = await near.connect(FAR.id, far.local)
                await far.accept()
                raise KeyError("on its way")
        with trio.fail_after(5):
            assert (await connection.wait_closed()).reason is Reason.SHUTDOWN
    with pytest.raises(ConnectionLost, match="shutdown"):
        await near.accept()


async def test_a_peer_that_vanishes_is_noticed() -> None:
    async with (
        open_endpoint(FAR, LOOPBACK, idle_timeout_seconds=0.8) as far,
        open_endpoint(NEAR, LOOPBACK, idle_timeout_seconds=0.8) as near,
        trio.open_nursery() as nursery,
    ):
        relay = Relay(far.local)
        nursery.start_soon(relay.run)
        connection = await near.connect(FAR.id, relay.at, keep_alive_seconds=0.2)
        # Longer than the idle timeout: the pings keep it.
        with trio.move_on_after(1.5) as quiet:
            await connection.wait_closed()
        assert quiet.cancelled_caught
        relay.is_cut = True
        with trio.fail_after(5):
            loss = await connection.wait_closed()
        assert loss.reason is Reason.TIMEOUT
        nursery.cancel_scope.cancel()


async def test_a_close_that_was_lost_is_repeated() -> None:
    async with (
        open_endpoint(FAR, LOOPBACK) as far,
        open_endpoint(NEAR, LOOPBACK) as near,
        trio.open_nursery() as nursery,
    ):
        relay = Relay(far.local)
        nursery.start_soon(relay.run)
        connection = await near.connect(FAR.id, relay.at)
        other = await far.accept()
        relay.is_cut = True
        other.close(Reason.BUSY)
        await trio.testing.wait_all_tasks_blocked(0.02)
        relay.is_cut = False
        await connection.open_stream().send_all(b"are you still there?")
        with trio.fail_after(5):
            assert (await connection.wait_closed()).reason is Reason.BUSY
        nursery.cancel_scope.cancel()


async def test_a_full_endpoint_says_so() -> None:
    async with (
        open_endpoint(FAR, LOOPBACK, max_connections=1) as far,
        open_endpoint(NEAR, LOOPBACK) as near,
    ):
        await near.connect(FAR.id, far.local)
        with pytest.raises(ConnectionLost) as caught:
            await near.connect(FAR.id, far.local)
        assert caught.value.reason is Reason.BUSY


async def test_a_client_that_must_show_its_address_first_still_connects() -> None:
    async with joined(retry_above=0) as pair:
        assert pair.far_endpoint.statistics().unwanted_datagrams == 1  # the first Initial, answered by Retry
        stream = pair.near.open_stream()
        await stream.send_all(b"through")
        assert await (await pair.far.accept_stream()).receive_some() == b"through"


@dataclass(slots=True)
class Uploader:
    """A gated endpoint that sends without end to three peers, each behind a relay of its own."""

    endpoint: Endpoint
    relays: list[Relay]


@asynccontextmanager
async def _uploading(nursery: trio.Nursery) -> AsyncIterator[Uploader]:
    async with AsyncExitStack() as stack:
        gate: Gate[Connection] = Gate(None)
        far = await stack.enter_async_context(open_endpoint(FAR, LOOPBACK, gate=gate))
        relays = [Relay(far.local) for _ in range(3)]
        for relay in relays:
            nursery.start_soon(relay.run)
            near = await stack.enter_async_context(open_endpoint(Identity.generate(), LOOPBACK))
            connection = await near.connect(FAR.id, relay.at)
            nursery.start_soon(_swallow, connection)
            nursery.start_soon(_send_without_end, await far.accept())
        far.set_rate(RATE)
        for relay in relays:
            relay.from_target.clear()
        yield Uploader(far, relays)
        nursery.cancel_scope.cancel()


async def _send_without_end(connection: Connection) -> None:
    stream = connection.open_stream()
    while True:
        await stream.send_all(bytes(65536))


async def _swallow(connection: Connection) -> None:
    stream = await connection.accept_stream()
    while await stream.receive_some():
        pass


async def test_every_window_keeps_to_the_gate_and_connections_share_it_fairly() -> None:
    """Counted from outside by the kernel's receive times, with UDP and IP headers."""
    async with trio.open_nursery() as nursery, _uploading(nursery) as uploader:
        await trio.sleep(3.2)  # what is measured is time
        counted = [[(at, size + HEADER_BYTES_V4) for at, size in r.from_target] for r in uploader.relays]
        debt = uploader.endpoint.gate.statistics(0.0).debt_bytes
    # The first datagrams left before the rate was set.
    start = max(passed[0][0] for passed in counted) + 0.3
    counted = [[(at, size) for at, size in passed if at >= start] for passed in counted]
    everything = sorted(datagram for passed in counted for datagram in passed)
    for window in (0.1, 1.0):
        held, first = 0, 0
        for at, size in everything:
            held += size
            while everything[first][0] <= at - window:
                held -= everything[first][1]
                first += 1
            assert held <= RATE * window + burst_for(RATE) + 2 * TURN_BYTES, window
    shares = [sum(size for _, size in passed) for passed in counted]
    mean = sum(shares) / len(shares)
    assert all(abs(share - mean) < 0.1 * mean for share in shares), shares
    seconds = everything[-1][0] - everything[0][0]
    assert sum(shares) > 0.75 * RATE * seconds, "late timers may cost something, but not much"
    assert debt < TURN_BYTES


async def test_a_saturated_gate_does_not_slow_what_comes_in() -> None:
    wanted = 4 << 20
    async with (
        trio.open_nursery() as nursery,
        open_endpoint(NEAR, LOOPBACK) as source,
        _uploading(nursery) as uploader,
    ):
        connection = await uploader.endpoint.connect(NEAR.id, source.local)
        serving = (await source.accept()).open_stream()
        nursery.start_soon(serving.send_all, bytes(wanted))
        stream = await connection.accept_stream()
        with trio.fail_after(20):
            started = trio.current_time()
            await stream.receive_exactly(wanted)
        # Acknowledgements that waited for turns would hold it near the gate's own rate.
        assert wanted / (trio.current_time() - started) > 4 * RATE


async def test_a_paused_gate_holds_data_but_not_acknowledgements_and_windows() -> None:
    wanted = 6 << 20  # more than any window
    async with joined() as pair, trio.open_nursery() as nursery:
        pair.near_endpoint.set_rate(0)
        before = pair.near_endpoint.gate.statistics(0.0)
        held = pair.near.open_stream()
        await held.send_all(b"held")
        serving = pair.far.open_stream()
        nursery.start_soon(serving.send_all, bytes(wanted))
        stream = await pair.near.accept_stream()
        with trio.fail_after(20):
            await stream.receive_exactly(wanted)
        after = pair.near_endpoint.gate.statistics(0.0)
        assert after.turn_bytes == before.turn_bytes == 0
        assert after.at_once_bytes > before.at_once_bytes
        assert after.waiting == 1
        with trio.move_on_after(0.2) as waited:
            await pair.far.accept_stream()
        assert waited.cancelled_caught
        pair.near_endpoint.set_rate(50_000.0)
        with trio.fail_after(5):
            assert await (await pair.far.accept_stream()).receive_some() == b"held"


async def test_opening_a_paused_gate_lets_go_what_waits() -> None:
    async with joined() as pair:
        pair.near_endpoint.set_rate(0)
        stream = pair.near.open_stream()
        await stream.send_all(bytes(100_000))
        stream.send_eof()
        await trio.testing.wait_all_tasks_blocked(0.02)
        pair.near_endpoint.set_rate(None)
        with trio.fail_after(5):
            assert len(await read_all(await pair.far.accept_stream())) == 100_000
