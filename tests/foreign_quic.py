"""QUIC stacks of other people, set up as nodes: qh3 in this process, ngtcp2's programs beside it."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared import clock
from shared.core.ids import HostPort
from shared.identity import Identity
from shared.quic import QuicEngine
from tests.quic_pair import LOOPBACK

SIGNATURES = [0x0403, 0x0804, 0x0807]  # ECDSA, RSA and Ed25519
H3 = "h3"
_H3_DATA, _H3_HEADERS = b"\x00", b"\x01"
_QPACK_STATUS_200 = b"\x00\x00\xd9"
_QPACK_GET_ROOT = b"\x00\x00\xd1\xd7\xc1\x50\x09localhost"  # GET https / localhost, from the static table


class Hospitable(QuicEngine):
    """Our engine for peers that speak HTTP/3, who insist on three one-way streams."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 3


def pem_files(identity: Identity, folder: Path) -> tuple[Path, Path]:
    """A node's certificate and key as other programs read them."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


def h3_request() -> bytes:
    """GET / as one HEADERS frame."""
    return _H3_HEADERS + bytes([len(_QPACK_GET_ROOT)]) + _QPACK_GET_ROOT


def h3_response(body: bytes) -> bytes:
    """200 and a body: a HEADERS and a DATA frame."""
    headers = _H3_HEADERS + bytes([len(_QPACK_STATUS_200)]) + _QPACK_STATUS_200
    return headers + _H3_DATA + (len(body) | 2 << 30).to_bytes(4, "big") + body


@contextmanager
def running(*command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is ended at the end, whatever happens."""
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    """A UDP port that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        port: int = sock.getsockname()[1]
    return port


class Qh3:
    """A connection of qh3's on a socket of its own; either role."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.quic: Any = None
        self.has_shaken_hands = trio.Event()
        self.ended: Any = None
        self.received: dict[int, bytearray] = {}
        self.has_all = trio.Event()

    @classmethod
    async def bound(cls) -> Qh3:
        """With a socket on loopback."""
        sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        await sock.bind((LOOPBACK, 0))
        return cls(sock)

    @property
    def at(self) -> HostPort:
        """Where it is."""
        return HostPort(*self.sock.getsockname())

    def configuration(self, is_client: bool, folder: Path, identity: Identity | None, alpn: str) -> Any:
        """As a node would be set up."""
        from qh3.quic.configuration import QuicConfiguration

        configuration = QuicConfiguration(
            alpn_protocols=[alpn], is_client=is_client, verify_mode=0, signature_algorithms=SIGNATURES,
            server_name="localhost", probe_datagram_size=False,
        )  # fmt: skip
        if identity is not None:
            configuration.load_cert_chain(*pem_files(identity, folder))
        return configuration

    async def dial(self, at: HostPort, configuration: Any) -> None:
        """Begin a handshake as the client."""
        from qh3.quic.connection import QuicConnection

        self.quic = QuicConnection(configuration=configuration)
        self.quic.connect((at.host, at.port), clock.now())

    async def answer(self, configuration: Any) -> None:
        """Wait for a client's first datagram and be its server."""
        from qh3.quic.connection import QuicConnection

        first, sender = await self.sock.recvfrom(65536)
        original_id = first[6 : 6 + first[5]]
        self.quic = QuicConnection(
            configuration=configuration, original_destination_connection_id=original_id
        )
        self.quic.receive_datagram(first, sender, clock.now())

    async def run(self) -> None:
        """Task: drive it until it ends; echoes what others' streams bring."""
        self._take_events()
        while self.ended is None:
            await self.flush()
            due = self.quic.get_timer()
            with trio.move_on_after(60 if due is None else max(0.0, due - clock.now())) as waiting:
                datagram, sender = await self.sock.recvfrom(65536)
                self.quic.receive_datagram(datagram, sender, clock.now())
            if waiting.cancelled_caught:
                self.quic.handle_timer(clock.now())
            self._take_events()

    async def flush(self) -> None:
        """Send what is to be sent."""
        for datagram, recipient in self.quic.datagrams_to_send(clock.now()):
            with suppress(BlockingIOError):
                await self.sock.sendto(datagram, recipient)

    def _take_events(self) -> None:
        while (event := self.quic.next_event()) is not None:
            match type(event).__name__:
                case "HandshakeCompleted":
                    self.has_shaken_hands.set()
                case "ConnectionTerminated":
                    self.ended = event
                case "StreamDataReceived":
                    self.received.setdefault(event.stream_id, bytearray()).extend(event.data)
                    if event.end_stream:
                        self.has_all.set()
                    if event.stream_id % 2 == self.quic.configuration.is_client:
                        self.quic.send_stream_data(event.stream_id, event.data, event.end_stream)
