"""HTTP/1.1 on trio for any ASGI app: bounded, quiet, and stopped without waiting for players.

anycorn parses and frames; listening and stopping are done here, because a paused player keeps
its connection open with full buffers, and anycorn shields that blocked send from cancellation.
Shutting the socket down under it is what ends it, as if the player had gone.

Apps get no ASGI lifespan: what they need lives in the caller's nursery, around `serve`.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

import anyio.abc
import trio
from anycorn.app_wrappers import ASGIWrapper
from anycorn.config import Config
from anycorn.tcp_server import TCPServer
from anycorn.typing import LifespanState
from anycorn.worker_context import WorkerContext
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Send

from shared.core.errors import LocalError
from shared.web_guards import LOOPBACK_HOSTS, Bounded, LocalOnly

__all__ = ["LOOPBACK_HOSTS", "GeneratorResponse", "LocalOnly", "serve"]

MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 1 << 20
MAX_CONNECTIONS = 256
BACKLOG = 128
GRACE_SECONDS = 1.0  # for answers in flight; a film would take hours

log = logging.getLogger("penstock.web")


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    what: str = "listen",
    max_body_bytes: int = MAX_BODY_BYTES,
    max_connections: int = MAX_CONNECTIONS,
    max_of_address: int = MAX_CONNECTIONS,
    stalled_seconds: float | None = None,
    grace_seconds: float = GRACE_SECONDS,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until cancelled; `task_status` gets the bound (host, port), `port` may be 0.

    `what` is the setting that chose the address. `max_of_address` are connections of one address,
    or of 64 bits of an IPv6 one. Who takes nothing of what is sent for `stalled_seconds` is cut
    off; without it nobody is: a player may pause. Handlers are cancelled when their client goes.
    When `serve` is cancelled, answers in flight get `grace_seconds` to finish, then their
    connections are closed. Raises LocalError, starting with `what`, if the address is unusable.
    """
    raw = await _listen(host, port, what)
    bounds = _Bounds(max_connections, max_of_address, stalled_seconds)
    server = _Server(Bounded(app, max_body_bytes), bounds)
    async with trio.SocketListener(trio.socket.from_stdlib_socket(raw)) as listener:
        bound_host, bound_port = raw.getsockname()[:2]
        async with trio.open_nursery() as connections:
            try:
                task_status.started((bound_host, bound_port))
                await trio.serve_listeners(server.handle, [listener], handler_nursery=connections)
            finally:
                with trio.CancelScope(shield=True):
                    await listener.aclose()
                    await server.stop(grace_seconds)


class GeneratorResponse(StreamingResponse):
    """A StreamingResponse that closes its generator when the client goes before its end.

    Starlette's own leaves it to the garbage collector, so its `finally` runs late and may not
    await. `content` yields bytes.
    """

    async def stream_response(self, send: Send) -> None:
        if not isinstance(self.body_iterator, AsyncGenerator):
            raise TypeError("content must be an async generator")
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


@dataclass(frozen=True, slots=True)
class _Bounds:
    connections: int
    of_address: int
    stalled_seconds: float | None


class _Server:
    """The open connections of one listener."""

    def __init__(self, app: ASGIApp, bounds: _Bounds) -> None:
        self.app = ASGIWrapper(app)  # type: ignore[arg-type]  # Starlette's ASGI types are looser
        self.bounds = bounds
        self.of_address: Counter[str] = Counter()
        self.config = _config()
        self.context = WorkerContext(None)
        self.connections: dict[socket.socket, trio.CancelScope] = {}
        self.last_gone = trio.Event()

    async def handle(self, accepted: trio.SocketStream) -> None:
        """Serve one connection; whatever goes wrong costs this connection only."""
        host = _home(accepted)
        if host is None or not self._has_room(host):
            log.info("a connection is refused: %d are open", len(self.connections))
            await accepted.aclose()
            return
        raw = socket.socket(fileno=accepted.socket.detach())
        if self.bounds.stalled_seconds is not None:
            # The kernel's own: anycorn shields a blocked send from cancellation.
            raw.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * self.bounds.stalled_seconds)
            )
        with trio.CancelScope(shield=True) as scope:  # ended by `stop`, in its order
            self.connections[raw] = scope
            self.of_address[host] += 1
            try:
                await self._converse(raw)
            except Exception:
                log.exception("a connection failed")
            finally:
                raw.close()
                del self.connections[raw]
                self.of_address -= Counter([host])
                if not self.connections:
                    self.last_gone.set()

    def _has_room(self, host: str) -> bool:
        if len(self.connections) >= self.bounds.connections or self.context.terminated.is_set():
            return False
        return self.of_address[host] < self.bounds.of_address

    async def _converse(self, raw: socket.socket) -> None:
        try:
            stream = await anyio.abc.SocketStream.from_socket(raw)
        except (OSError, ValueError):  # gone before it was looked at
            return
        await _Connection(self.app, self.config, self.context, LifespanState(), stream).run()

    async def stop(self, grace_seconds: float) -> None:
        """End all connections: first idle ones, then after the grace all, then by force."""
        await self.context.terminated.set()
        await self._wait_gone(grace_seconds)
        for raw in list(self.connections):
            with suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)
        await self._wait_gone(grace_seconds)
        for scope in list(self.connections.values()):
            scope.cancel()

    async def _wait_gone(self, seconds: float) -> None:
        self.last_gone = trio.Event()
        if self.connections:
            with trio.move_on_after(seconds):
                await self.last_gone.wait()


class _Connection(TCPServer):
    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()  # else a closed connection lingers for the keep-alive timeout


def _home(accepted: trio.SocketStream) -> str | None:
    """Whose connection it is; None if it is gone already."""
    try:
        found = ip_address(accepted.socket.getpeername()[0].partition("%")[0])
    except OSError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return found.exploded[:19]  # its first 64 bits: who has one address there has all of them
    return str(found)


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("penstock.web.anycorn")
    config.h11_max_incomplete_size = MAX_HEADER_BYTES
    config.h2_max_concurrent_streams = 1  # HTTP/2 is only ever answered with a refusal
    config.include_server_header = False
    config.websocket_max_message_size = MAX_BODY_BYTES
    return config


async def _listen(host: str, port: int, what: str) -> socket.socket:
    if not 0 <= port <= 65535:  # getaddrinfo takes it modulo 65536
        raise LocalError(f"{what}: {port} is not a port; give a number from 1 to 65535, or 0 for any")
    try:
        family, kind, number, _, address = (
            await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        )[0]
    except (socket.gaierror, UnicodeError):
        raise LocalError(f"{what}: {host!r} is not an address of this machine; try 127.0.0.1") from None
    raw = socket.socket(family, kind, number)
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
        raw.bind(address)
        raw.listen(BACKLOG)
    except OSError as error:
        raw.close()
        raise LocalError(f"{what}: cannot listen on {host} port {port}: {_cure(error)}") from None
    return raw


def _cure(error: OSError) -> str:
    cures = {
        errno.EADDRINUSE: "the port is in use; choose another, or stop the program that has it",
        errno.EACCES: "ports below 1024 need privileges; choose a higher one",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
    }
    return cures.get(error.errno or 0, error.strerror or str(error))
