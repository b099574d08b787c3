"""What stands between the network and an ASGI app: limits, and who may ask at all."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address

import trio
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
BODY_SECONDS = 30.0  # the longest wait for the next part of a body
# Parts of a body, up to 64 KiB each, taken in before the handler asks. With none, a disconnect
# would stay unseen behind the body of a handler that does not read it.
PARTS_AHEAD = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a door at `host`, an address or a name."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class LocalOnly:
    """Refuses (403) what a web page elsewhere made the browser ask.

    A page can point its own host name at 127.0.0.1 (DNS rebinding) or post a form to us
    (CSRF); the browser then tells the truth in Host, Origin and Sec-Fetch-Site. `allowed_hosts`
    are host names; one without a port means the port that the request came in on.
    Players and scripts that send no Origin pass; following a link to us passes too.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = LOOPBACK_HOSTS) -> None:
        self.app = app
        self.allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        reason = self._refusal(scope)
        if reason is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = self._authorities(scope)
        if any(host.lower() not in hosts for host in headers.getlist("host") or [""]):
            return f"Host is not one of {', '.join(sorted(hosts))}; this address answers this machine only"
        origins = {f"http://{host}" for host in hosts}
        if any(origin.lower() not in origins for origin in headers.getlist("origin")):
            return "Origin is another site; this address answers its own pages only"
        if _is_foreign_fetch(scope, headers):
            return "the request comes from another site's page; open this address itself"
        return None

    def _authorities(self, scope: Scope) -> frozenset[str]:
        """The values of Host that mean us; a browser leaves out port 80."""
        port = (scope.get("server") or ("", 0))[1]
        bare = {host for host in self.allowed_hosts if not host.rpartition("]")[2].count(":")}
        ported = {f"{host}:{port}" for host in bare}
        return (self.allowed_hosts - bare) | ported | (bare if port == 80 else frozenset())


def _is_foreign_fetch(scope: Scope, headers: Headers) -> bool:
    """An image, script or frame in a foreign page sends no Origin, but browsers mark it."""
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return False
    followed_link = (
        headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    )
    return not (followed_link and scope.get("method") in ("GET", "HEAD"))


class Bounded:
    """HTTP/1.1 only, bodies up to `max_body_bytes`, and no handler outlives its client.

    Answers 505, 413 or 408 where the handler has not answered yet. A handler that is waiting,
    for a piece from the swarm say, is cancelled when its client disconnects.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, body_seconds: float = BODY_SECONDS) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, receive, send)
        if scope["http_version"] not in ("1.0", "1.1"):
            exchange.refusal = (505, "only HTTP/1.1 is spoken here")
        elif int(Headers(scope=scope).get("content-length", "0")) > self.max_body_bytes:
            exchange.refuse_body()
        else:
            await exchange.run(self.app, scope)
        if exchange.refusal and not exchange.started:
            status, reason = exchange.refusal
            await PlainTextResponse(f"{reason}\n", status)(scope, receive, send)


@dataclass(slots=True)
class _Exchange:
    """One request and its answer: what came in, what went out, who has had enough."""

    bounds: Bounded
    receive: Receive
    send: Send
    started: bool = False
    finished: bool = False
    refusal: tuple[int, str] | None = None

    def refuse_body(self) -> None:
        self.refusal = (413, f"the body is over {self.bounds.max_body_bytes} bytes")

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        to_app, from_client = trio.open_memory_channel[Message](PARTS_AHEAD)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, to_app, nursery.cancel_scope)
            try:
                await app(scope, from_client.receive, self._send)
            except Exception as error:
                failure = error  # raised below, so that it arrives alone and not in a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _pump(self, to_app: trio.MemorySendChannel[Message], scope: trio.CancelScope) -> None:
        """Hand on what the client sends; cancel `scope` when it may not go on."""
        received = 0
        more_body = True
        while True:
            with trio.move_on_after(self.bounds.body_seconds if more_body else math.inf) as patience:
                message = await self.receive()
            if patience.cancelled_caught:
                self.refusal = (408, "the body did not arrive in time")
            elif message["type"] == "http.request":
                received += len(message.get("body", b""))
                more_body = message.get("more_body", False)
                if received > self.bounds.max_body_bytes:
                    self.refuse_body()
            if self.refusal or (message["type"] == "http.disconnect" and not self.finished):
                scope.cancel()
                return
            await to_app.send(message)

    async def _send(self, message: Message) -> None:
        self.started = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finished = True  # anycorn reports a disconnect now: background tasks go on
        await self.send(message)
