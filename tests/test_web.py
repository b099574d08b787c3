"""The HTTP server: who may ask, what is bounded, and how it stops."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx2
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from shared.core.errors import LocalError
from shared.web import GeneratorResponse, LocalOnly, serve

EMPTY_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # the HTTP/2 frame
CHUNKED_POST = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Mill:
    """An app that notes what happens to its handlers."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.cancelled = trio.Event()
        self.finished = trio.Event()
        self.let_go = trio.Event()
        self.app = Starlette(
            routes=[
                Route("/", self.hello, methods=["GET", "HEAD", "POST"]),
                Route("/echo", self.echo, methods=["POST"]),
                Route("/wait", self.wait),
                Route("/stream", self.stream),
                Route("/later", self.later),
                Route("/bug", self.bug),
                WebSocketRoute("/talk", self.talk),
            ]
        )

    async def hello(self, request: Request) -> Response:
        return PlainTextResponse("hello")

    async def echo(self, request: Request) -> Response:
        return Response(await request.body())

    async def wait(self, request: Request) -> Response:
        await self._linger()
        return PlainTextResponse("waited")

    async def stream(self, request: Request) -> Response:
        async def water() -> AsyncGenerator[bytes, None]:
            yield b"first"
            await self._linger()
            while True:
                yield bytes(65536)

        return GeneratorResponse(water())

    async def later(self, request: Request) -> Response:
        return PlainTextResponse("soon", background=BackgroundTask(self._linger))

    async def bug(self, request: Request) -> Response:
        raise KeyError("a bug")

    async def talk(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    async def _linger(self) -> None:
        self.started.set()
        try:
            await self.let_go.wait()
            self.finished.set()
        except trio.Cancelled:
            self.cancelled.set()
            raise


@asynccontextmanager
async def serving(app: ASGIApp, **options: Any) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(partial(serve, app, "127.0.0.1", 0, **options))
        yield port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def talking(mill: Mill, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        serving(mill.app, **options) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield client


async def exchange(port: int, request: bytes) -> bytes:
    """Send bytes as they are; everything that comes back until the server closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        with trio.fail_after(20):
            return b"".join([part async for part in stream])


async def test_bound_address_is_told() -> None:
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(serve, Mill().app, "127.0.0.1", 0)
        assert bound[0] == "127.0.0.1"
        assert bound[1] > 0
        nursery.cancel_scope.cancel()


async def test_get_and_post() -> None:
    async with talking(Mill()) as client:
        assert (await client.get("/")).text == "hello"
        assert (await client.post("/echo", content=b"x" * 100_000)).content == b"x" * 100_000
        assert (await client.get("/nothing")).status_code == 404
        assert "server" not in (await client.get("/")).headers


async def test_ipv6() -> None:
    async with trio.open_nursery() as nursery:
        try:
            host, port = await nursery.start(serve, LocalOnly(Mill().app), "::1", 0)
        except BaseExceptionGroup as group:  # a machine without IPv6
            assert group.subgroup(LocalError) is not None
            pytest.skip("no IPv6 loopback here")
        assert host == "::1"
        async with httpx2.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://[::1]:{port}/")).status_code == 200
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("127.0.0.1", None, r"peer\.player: cannot listen on 127\.0\.0\.1 port \d+: the port is in use;"),
        ("192.0.2.7", 0, r"peer\.player: .* this machine does not have that address"),
        ("no such host", 0, r"peer\.player: 'no such host' is not an address of this machine"),
        ("127.0.0.1", 70_000, r"peer\.player: 70000 is not a port"),
    ],
)
async def test_unusable_address_names_the_setting(host: str, port: int | None, text: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LocalError, match=text):
        await serve(Mill().app, host, taken.getsockname()[1] if port is None else port, what="peer.player")


@pytest.mark.parametrize("path", ["/wait", "/stream"])
async def test_handler_is_cancelled_when_its_client_goes(path: str, caplog: pytest.LogCaptureFixture) -> None:
    mill = Mill()
    async with serving(mill.app) as port:
        with trio.fail_after(20):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
                await mill.started.wait()
                assert path == "/wait" or b"HTTP/1.1 200 " in await stream.receive_some()
            await mill.cancelled.wait()
    assert not _warnings(caplog)


async def test_handler_behind_a_slow_reader_ends_with_its_client(caplog: pytest.LogCaptureFixture) -> None:
    mill = Mill()
    mill.let_go.set()
    async with serving(mill.app, max_connections=1) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await mill.finished.wait()
        await trio.testing.wait_all_tasks_blocked(0.1)  # all buffers are full now
        await stream.aclose()
        await _wait_served(port)
    assert not _warnings(caplog)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


async def _wait_served(port: int) -> None:
    """Ask until the only connection slot is free again."""
    with trio.fail_after(20):
        while not (await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")):
            await trio.testing.wait_all_tasks_blocked()


async def test_background_task_outlives_its_client() -> None:
    mill = Mill()
    async with serving(mill.app) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /later HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(20):
            await mill.started.wait()
            await stream.aclose()
            await trio.testing.wait_all_tasks_blocked(0.05)
            mill.let_go.set()
            await mill.finished.wait()
    assert not mill.cancelled.is_set()


async def test_a_bug_in_a_handler_costs_its_answer_only(caplog: pytest.LogCaptureFixture) -> None:
    async with talking(Mill()) as client:
        assert (await client.get("/bug")).status_code == 500
        assert (await client.get("/")).status_code == 200
    assert any(record.exc_info and record.exc_info[0] is KeyError for record in caplog.records)


async def test_stopping_lets_a_quick_answer_finish() -> None:
    mill = Mill()
    async with trio.open_nursery() as nursery:
        answers = await nursery.start(_stop_with_a_request_open, mill)
        await trio.testing.wait_all_tasks_blocked(0.05)
        mill.let_go.set()
    assert b"".join(answers).endswith(b"waited")


async def _stop_with_a_request_open(mill: Mill, *, task_status: trio.TaskStatus[list[bytes]]) -> None:
    answers: list[bytes] = []

    async def ask(port: int) -> None:
        answers.append(await exchange(port, b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"))

    async with trio.open_nursery() as clients, serving(mill.app, grace_seconds=20) as port:
        clients.start_soon(ask, port)
        await mill.started.wait()
        task_status.started(answers)


async def test_stopping_does_not_wait_for_a_paused_player() -> None:
    mill = Mill()
    mill.let_go.set()
    async with serving(mill.app, grace_seconds=0.1) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await mill.finished.wait()
        await trio.testing.wait_all_tasks_blocked(0.1)  # all buffers are full now
        before = trio.current_time()
    assert trio.current_time() - before < 5
    await stream.aclose()


async def test_stopping_closes_idle_connections_at_once() -> None:
    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(partial(serve, Mill().app, "127.0.0.1", 0, grace_seconds=60))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(4):  # the keep-alive time is 5 s
                while await stream.receive_some():
                    pass


async def test_connections_are_bounded() -> None:
    mill = Mill()
    async with serving(mill.app, max_connections=1) as port:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
            await mill.started.wait()
            assert await exchange(port, b"") == b""
        await _wait_served(port)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"y" * 200_000, b"431"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", b"413"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", b"413"),
        (CHUNKED_POST + b"3e9\r\n" + b"x" * 1001, b"413"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET /%ff%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"40"),
    ],
)
async def test_bad_requests_are_answered_and_closed(request_bytes: bytes, status: bytes) -> None:
    async with serving(Mill().app, max_body_bytes=1000) as port:
        assert (await exchange(port, request_bytes)).startswith(b"HTTP/1.1 " + status)


async def test_a_body_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.web_guards.Bounded.__init__.__defaults__", (0.05,))
    async with serving(Mill().app) as port:
        request = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx"
        assert (await exchange(port, request)).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n"
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EMPTY_SETTINGS,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + EMPTY_SETTINGS
        # HEADERS, END_STREAM and END_HEADERS, stream 1: GET, http, /, :authority x
        + b"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01x",
    ],
)
async def test_http2_is_refused(opening: bytes) -> None:
    async with serving(Mill().app) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(opening)
        received = b""
        with trio.fail_after(20):
            while b"only HTTP/1.1" not in received:
                assert (part := await stream.receive_some())
                received += part
        assert b"hello" not in received


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "127.0.0.1:PORT"}, 200),
        ({"Host": "localhost:PORT"}, 200),
        ({"Host": "LOCALHOST:PORT"}, 200),
        ({"Host": "[::1]:PORT"}, 200),
        ({"Host": "evil.example:PORT"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Host": "127.0.0.1:PORT.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://127.0.0.1:PORT"}, 200),
        ({"Origin": "http://localhost:PORT"}, 200),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://127.0.0.1:PORT"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "video"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
    ],
)
async def test_local_only(headers: dict[str, str], status: int) -> None:
    mill = Mill()
    mill.app = LocalOnly(mill.app)  # type: ignore[assignment]
    async with talking(mill) as client:
        port = str(client.base_url.port)
        sent = {name: text.replace("PORT", port) for name, text in headers.items()}
        answer = await client.get("/", headers=sent)
        assert answer.status_code == status
        if status == 403:
            assert answer.headers["content-type"].startswith("text/plain")
            assert answer.text.count("\n") == 1


async def test_local_only_refuses_a_form_posted_by_a_link() -> None:
    mill = Mill()
    mill.app = LocalOnly(mill.app)  # type: ignore[assignment]
    async with talking(mill) as client:
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await client.post("/", headers=headers)).status_code == 403


async def test_local_only_knows_other_names() -> None:
    mill = Mill()
    mill.app = LocalOnly(mill.app, ["box.lan", "proxy.lan:80"])  # type: ignore[assignment]
    async with talking(mill) as client:
        port = client.base_url.port
        for host, status in ((f"box.lan:{port}", 200), ("proxy.lan:80", 200), (f"127.0.0.1:{port}", 403)):
            assert (await client.get("/", headers={"Host": host})).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"), [("http://127.0.0.1:PORT", b"101"), ("http://evil.example", b"403")]
)
async def test_local_only_guards_websockets(origin: str, status: bytes) -> None:
    async with serving(LocalOnly(Mill().app)) as port:
        request = (
            f"GET /talk HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {origin.replace('PORT', str(port))}\r\n"
            "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(request.encode())
            with trio.fail_after(20):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 " + status)
