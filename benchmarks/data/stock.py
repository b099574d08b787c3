"""aioquic as its own asyncio examples drive it: the yardstick below. It verifies nothing."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.data.orders import Order, Ready, play, say
from benchmarks.data.readings import Tally, block

WRITE_BYTES = 1 << 16
READ_BYTES = 1 << 18
AHEAD_BYTES = 4 << 20  # its writer knows no back-pressure: so much is written before it is looked at
LOOK_SECONDS = 0.002
ALPN = ["bench"]


def write_certificate(folder: Path) -> None:
    """`cert.pem` and `key.pem` for localhost, self-signed (nginx takes the same)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(pem)


async def send(order: Order) -> None:
    """Write on every stream until killed."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=ALPN)
    configuration.load_cert_chain(Path(order.folder) / "cert.pem", Path(order.folder) / "key.pem")
    tasks: set[asyncio.Task[None]] = set()

    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(_write(writer)))

    server = await serve(order.host, 0, configuration=configuration, stream_handler=answer)
    port = server._transport.get_extra_info("sockname")[1]  # type: ignore[union-attr]  # it has no other way
    say(Ready(port, os.getpid()))
    await asyncio.Event().wait()


async def _write(writer: asyncio.StreamWriter) -> None:
    """Keep AHEAD_BYTES written; the transport does not say, so its stream's buffer is looked at."""
    stream = writer.transport.protocol._quic._streams[writer.transport.stream_id]  # type: ignore[attr-defined]
    parts = [block()[at : at + WRITE_BYTES] for at in range(0, len(block()), WRITE_BYTES)]
    with suppress(ConnectionError):
        while True:
            for part in parts:
                while len(stream.sender._buffer) > AHEAD_BYTES:  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(LOOK_SECONDS)
                writer.write(part)


async def receive(order: Order) -> None:
    """Take bytes on so many connections, and measure."""
    tally = Tally(order)
    begun = asyncio.Event()
    configuration = QuicConfiguration(is_client=True, alpn_protocols=ALPN, verify_mode=ssl.CERT_NONE)
    async with AsyncExitStack() as open_connections:
        protocols = [
            await open_connections.enter_async_context(
                connect(order.host, order.port, configuration=configuration)
            )
            for _ in range(order.connections)
        ]
        streams = [await protocol.create_stream() for protocol in protocols]
        tasks = []
        for reader, writer in streams:
            writer.write(b"go")
            tasks.append(asyncio.create_task(_take(reader, tally, begun)))
        await begun.wait()
        await asyncio.sleep(order.warm_seconds)
        first = tally.read()
        await asyncio.sleep(order.seconds)
        say(first.until(tally.read()))
        os._exit(0)  # closing would first take in what is on its way


async def _take(reader: asyncio.StreamReader, tally: Tally, begun: asyncio.Event) -> None:
    while some := await reader.read(READ_BYTES):
        tally.count += len(some)
        begun.set()


def _run(role: Callable[[Order], Coroutine[Any, Any, None]], order: Order) -> None:
    asyncio.run(role(order))


if __name__ == "__main__":
    play({role.__name__: partial(_run, role) for role in (send, receive)})
