from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import trio
import trio.testing

from shared.core.gate import Gate, Pass
from shared.core.ids import HostPort
from shared.endpoint import open_endpoint
from shared.outlet import Outlet
from shared.sockets import DatagramSocket, bind, split
from tests.quic_pair import FAR, LOOPBACK, NEAR, joined, read_all

SOME = random.Random(3).randbytes(400_000)


async def bound(plain: bool) -> DatagramSocket:
    return DatagramSocket(await bind(HostPort(LOOPBACK, 0), "listen"), plain=plain)


def drained(sock: DatagramSocket) -> Iterator[bytes]:
    while True:
        try:
            data, segment_bytes, _ = sock.receive()
        except BlockingIOError:
            return
        yield from split(data, segment_bytes) or [b""]


@pytest.mark.parametrize("sends_plain", [False, True])
@pytest.mark.parametrize("receives_plain", [False, True])
async def test_datagrams_arrive_as_they_were_cut(sends_plain: bool, receives_plain: bool) -> None:
    sender, receiver = await bound(sends_plain), await bound(receives_plain)
    with closing(sender.raw), closing(receiver.raw):
        to = receiver.raw.getsockname()
        for size, segment_bytes in ((1, 1350), (1350, 1350), (5400, 1350), (59_000, 1350), (7000, 1200)):
            assert sender.send(memoryview(SOME)[:size], segment_bytes, to) == size
            wanted = [SOME[at : min(size, at + segment_bytes)] for at in range(0, size, segment_bytes)]
            assert list(drained(receiver)) == wanted
        assert sender.send(b"", 1350, to) == 0
        assert list(drained(receiver)) == [b""]
        assert receiver.joins is not receives_plain or receives_plain


class Fake:
    """A socket whose segmented sends fail, or whose buffer is full."""

    def __init__(self, sock: socket.socket, error: int) -> None:
        self._sock, self._error = sock, error
        self.segmented = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendmsg(self, *arguments: Any) -> int:
        self.segmented += 1
        raise OSError(self._error, "no")


async def test_a_device_that_cannot_segment_is_sent_to_in_the_plain_way() -> None:
    sender, receiver = await bound(False), await bound(False)
    with closing(sender.raw), closing(receiver.raw):
        if not sender.segments:
            pytest.skip("this kernel has no UDP_SEGMENT")
        fake: Any = Fake(sender.raw, errno.EIO)
        sender.raw = fake
        for _ in range(2):
            assert sender.send(SOME[:4000], 1350, receiver.raw.getsockname()) == 4000
            assert b"".join(drained(receiver)) == SOME[:4000]
        assert fake.segmented == 1
        sender.segments, fake._error = True, errno.ENETUNREACH
        with pytest.raises(OSError, match="no"):
            sender.send(SOME[:4000], 1350, receiver.raw.getsockname())


async def test_what_the_system_has_no_room_for_leaves_later_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, receiver = await bound(False), await bound(False)
    with closing(sender.raw), closing(receiver.raw):
        to, gate = receiver.raw.getsockname(), Gate[Any](1e6)
        outlet = Outlet(sender, gate)
        send, room = sender.send, [2700, 0, 1350]

        def tight(data: bytes | memoryview, segment_bytes: int, recipient: Any) -> int:
            taken = min(len(data), room.pop(0)) if room else len(data)
            return send(data[:taken], segment_bytes, recipient) if taken else 0

        monkeypatch.setattr(sender, "send", tight)
        assert outlet.send(SOME[:5400], 1350, to, Pass.AT_ONCE)
        assert outlet.is_full
        assert outlet.send(SOME[5400:6000], 1350, to, Pass.AT_ONCE)
        for is_full in (True, True, False):
            outlet.flush()
            assert outlet.is_full is is_full
        assert b"".join(drained(receiver)) == SOME[:6000]
        assert (outlet.datagrams, outlet.bytes, outlet.refused) == (5, 6000 + 5 * 28, 0)
        assert gate.statistics(0.0).at_once_bytes == outlet.bytes


@pytest.mark.parametrize("plain_at", ["near", "far", "both", "neither"])
async def test_a_transfer_with_and_without_the_kernels_help(
    plain_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = {"near": [False, True], "far": [True, False], "both": [True, True], "neither": [False, False]}
    order = plain[plain_at]  # the far endpoint is opened first
    monkeypatch.setattr("shared.endpoint.DatagramSocket", lambda raw: DatagramSocket(raw, plain=order.pop(0)))
    async with joined() as pair, trio.open_nursery() as nursery:
        stream = pair.near.open_stream()

        async def send() -> None:
            await stream.send_all(SOME)
            stream.send_eof()

        nursery.start_soon(send)
        with trio.fail_after(20):
            assert await read_all(await pair.far.accept_stream()) == SOME


async def test_a_full_system_holds_a_transfer_up_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    send = DatagramSocket.send
    calls = 0

    def tight(sock: DatagramSocket, data: bytes | memoryview, segment_bytes: int, recipient: Any) -> int:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            data = data[: len(data) // 2 // segment_bytes * segment_bytes]
        return send(sock, data, segment_bytes, recipient) if len(data) else 0

    monkeypatch.setattr(DatagramSocket, "send", tight)
    async with open_endpoint(FAR, LOOPBACK) as far, open_endpoint(NEAR, LOOPBACK) as near:
        connection = await near.connect(FAR.id, far.local)
        other = await far.accept()
        async with trio.open_nursery() as nursery:
            stream = connection.open_stream()

            async def write() -> None:
                await stream.send_all(SOME)
                stream.send_eof()

            nursery.start_soon(write)
            with trio.fail_after(20):
                assert await read_all(await other.accept_stream()) == SOME
        assert connection.statistics().lost_datagrams == 0
