"""Other people's QUIC at the other end: agreement with the standard, not only with ourselves."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import trio

from shared.core.errors import ConnectionLost, Reason
from shared.core.ids import HostPort
from shared.endpoint import open_endpoint
from shared.identity import Identity
from shared.quic_settings import ALPN
from tests.foreign_quic import H3, Hospitable, Qh3, free_port, h3_request, h3_response, pem_files, running
from tests.quic_pair import FAR, LOOPBACK, NEAR, Relay, ask, echo, read_all

SOME = random.Random(5).randbytes(2 << 20)
needs_qh3 = pytest.mark.skipif(find_spec("qh3") is None, reason="qh3 is not installed")
needs_client = pytest.mark.skipif(shutil.which("gtlsclient") is None, reason="ngtcp2-client is not installed")
GTLSSERVER = shutil.which("gtlsserver", path="/usr/sbin:/usr/bin:/usr/local/bin")
needs_server = pytest.mark.skipif(GTLSSERVER is None, reason="ngtcp2-server is not installed")


def losing(share: float) -> Callable[[bytes], list[bytes]]:
    """Of the datagrams, so many are lost; always the same ones."""
    dice = random.Random(6)
    return lambda datagram: [] if dice.random() < share else [datagram]


async def _echo_quietly(connection: Any) -> None:
    try:
        await echo(connection)
    except* ConnectionLost:
        pass


@pytest.fixture
def h3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our endpoint under the only protocol name that ngtcp2's programs know."""
    monkeypatch.setattr("shared.quic_settings.ALPN", H3)
    monkeypatch.setattr("shared.connection.ALPN", H3)
    monkeypatch.setattr("shared.endpoint.QuicEngine", Hospitable)


@needs_qh3
@pytest.mark.parametrize("loss", [0.0, 0.01])
async def test_qh3_dials_us(tmp_path: Path, loss: float) -> None:
    """It shows its certificate, and 2 MB come back as they went, over a path that loses, too."""
    async with open_endpoint(FAR, LOOPBACK) as far, trio.open_nursery() as nursery:
        relay = Relay(far.local)
        relay.mangle = losing(loss)
        nursery.start_soon(relay.run)
        client = await Qh3.bound()
        with client.sock, trio.fail_after(40):
            await client.dial(relay.at, client.configuration(True, tmp_path, NEAR, ALPN))
            nursery.start_soon(client.run)
            connection = await far.accept()
            assert connection.peer == NEAR.id
            nursery.start_soon(_echo_quietly, connection)
            await client.has_shaken_hands.wait()
            client.quic.send_stream_data(0, SOME, True)
            await client.flush()
            await client.has_all.wait()
            assert client.received[0] == SOME
            nursery.cancel_scope.cancel()


@needs_qh3
@pytest.mark.xfail(
    reason="qh3 2.1.0's server fails with clients of aioquic, stock ones too: builder capacity"
)
@pytest.mark.parametrize("loss", [0.0])
async def test_we_dial_qh3(tmp_path: Path, loss: float) -> None:
    """We know who answers by its key, and 2 MB come back as they went."""
    server = await Qh3.bound()
    with server.sock:
        async with open_endpoint(NEAR, LOOPBACK) as near, trio.open_nursery() as nursery:
            relay = Relay(server.at)
            relay.mangle = losing(loss)
            nursery.start_soon(relay.run)

            async def serve() -> None:
                await server.answer(server.configuration(False, tmp_path, FAR, ALPN))
                await server.run()

            nursery.start_soon(serve)
            with trio.fail_after(40):
                connection = await near.connect(FAR.id, relay.at)
                assert connection.peer == FAR.id
                assert await ask(connection, SOME) == SOME
            nursery.cancel_scope.cancel()


@needs_qh3
@pytest.mark.parametrize(
    ("alpn", "identity", "alert"),
    [("other/1", NEAR, 0x178), (ALPN, None, None)],
    ids=["another protocol", "no certificate"],
)
async def test_qh3_is_refused(
    tmp_path: Path, alpn: str, identity: Identity | None, alert: int | None
) -> None:
    """With TLS's own alert where TLS has one; with a reason of ours where the rule is ours."""
    async with open_endpoint(FAR, LOOPBACK) as far:
        client = await Qh3.bound()
        with client.sock, trio.fail_after(10):
            await client.dial(far.local, client.configuration(True, tmp_path, identity, alpn))
            await client.run()
        assert client.ended.error_code == (alert or Reason.NOT_ALLOWED)


@needs_client
async def test_ngtcp2_is_refused_for_its_protocol(tmp_path: Path) -> None:
    """It knows HTTP/3 only: TLS alert 120, and our endpoint goes on."""
    losses: list[ConnectionLost] = []
    async with open_endpoint(FAR, LOOPBACK) as far, trio.open_nursery() as nursery:
        lose = far.settle

        def settle(connection: Any) -> None:
            losses.append(connection.loss)
            lose(connection)

        far.settle = settle  # type: ignore[method-assign]
        with running("gtlsclient", "-q", LOOPBACK, str(far.local.port)) as client, trio.fail_after(10):
            assert await trio.to_thread.run_sync(client.wait, abandon_on_cancel=True) is not None
        nursery.cancel_scope.cancel()
    assert losses[0].reason is Reason.VERSION
    assert "no_application_protocol" in str(losses[0]) or "120" in str(losses[0])


@needs_client
@pytest.mark.parametrize("loss", [0.0, 0.01])
async def test_ngtcp2_fetches_from_us(h3: None, tmp_path: Path, loss: float) -> None:
    """A client in C over GnuTLS shows its Ed25519 certificate and gets 2 MB, lost packets or not."""
    certificate, key = pem_files(NEAR, tmp_path)
    (tmp_path / "got").mkdir()
    async with open_endpoint(FAR, LOOPBACK) as far:
        command = [
            "gtlsclient", "-q",
            f"--rx-loss={loss}", f"--tx-loss={loss}",
            f"--key={key}", f"--cert={certificate}",
            f"--download={tmp_path / 'got'}", "--exit-on-all-streams-close",
            LOOPBACK, str(far.local.port), "https://localhost/film",
        ]  # fmt: skip
        with running(*command) as client, trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                connection = await far.accept()
                assert connection.peer == NEAR.id
                nursery.start_soon(_answer_requests, connection)
                await trio.to_thread.run_sync(client.wait, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()
    assert (tmp_path / "got" / "film").read_bytes() == SOME


async def _answer_requests(connection: Any) -> None:
    with suppress(ConnectionLost):  # it has what it wanted
        while True:
            stream = await connection.accept_stream()
            if stream.id % 4 == 0:  # a request; the others are HTTP/3's own affairs
                await read_all(stream)
                await stream.send_all(h3_response(SOME))
                stream.send_eof()


@needs_server
@pytest.mark.parametrize("loss", [0.0, 0.01])
async def test_we_fetch_from_ngtcp2(h3: None, tmp_path: Path, loss: float) -> None:
    """A server in C over GnuTLS proves its Ed25519 key, sees ours, and sends 2 MB, lost packets or not."""
    certificate, key = pem_files(FAR, tmp_path)
    (tmp_path / "index.html").write_bytes(SOME)
    port = free_port()
    assert GTLSSERVER is not None
    command = [
        GTLSSERVER, "-q", f"--rx-loss={loss}", f"--tx-loss={loss}", "--verify-client", "-d", str(tmp_path),
        LOOPBACK, str(port), str(key), str(certificate),
    ]  # fmt: skip
    with running(*command), trio.fail_after(30):
        async with open_endpoint(NEAR, LOOPBACK) as near:
            connection = await near.connect(FAR.id, HostPort(LOOPBACK, port))
            answer = await ask(connection, h3_request())
    assert answer.endswith(SOME[-65536:])
    assert answer.count(SOME[:1000]) == 1
