from __future__ import annotations

import random
from functools import partial
from hashlib import sha256
from typing import Any

import pytest
import trio
import trio.lowlevel
from aioquic.quic.events import ConnectionTerminated

from shared.connection import MAX_UNACCEPTED_STREAMS, Connection
from shared.core.errors import ConnectionLost, PenstockError, ProtocolError, Reason, Refused
from shared.losses import loss_of, reason_of
from shared.quic_settings import CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES
from shared.stream import Stream
from tests.quic_pair import ask, echo, joined, read_all

MIB = 1 << 20
SOME = random.Random(1).randbytes(3 * MIB)


async def _echoing(connection: Connection) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:  # the end of the connection ends the echo
        await echo(connection)
    assert caught.group_contains(ConnectionLost)


async def test_echo() -> None:
    async with joined() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(_echoing, pair.far)
        assert await ask(pair.near, b"hello") == b"hello"
        assert await ask(pair.near, b"") == b""
        pair.near.close()


async def test_twenty_streams_at_once_do_not_mix() -> None:
    answers: dict[int, bytes] = {}

    async def one(connection: Connection, number: int) -> None:
        answers[number] = await ask(connection, bytes([number]) * 50_000)

    async with joined() as pair, trio.open_nursery() as outer:
        outer.start_soon(_echoing, pair.far)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, pair.near, number)
        pair.near.close()
    assert answers == {number: bytes([number]) * 50_000 for number in range(20)}


async def test_eight_mebibytes_arrive_whole() -> None:
    async with joined() as pair, trio.open_nursery() as nursery:
        sending = pair.near.open_stream()

        async def send() -> None:
            for _ in range(8):
                await sending.send_all(memoryview(SOME)[:MIB])
            sending.send_eof()
            await sending.wait_acknowledged()

        nursery.start_soon(send)
        received = await read_all(await pair.far.accept_stream())
        assert sha256(received).digest() == sha256(SOME[:MIB] * 8).digest()
        seen = pair.near.statistics()
        assert seen.bytes_sent > 8 * MIB
        assert 0 < seen.rtt_seconds < 5
        assert seen.datagrams_sent * seen.datagram_bytes >= seen.bytes_sent


async def _write_for(seconds: float, *streams: Stream) -> None:
    """Write without end to all streams; each must still have to wait when the time is over."""
    with trio.move_on_after(seconds) as waited:
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_all, SOME)
    assert waited.cancelled_caught


async def test_a_writer_waits_for_a_reader() -> None:
    async with joined() as pair:
        stream = pair.near.open_stream()
        await _write_for(0.4, stream)
        overhead = 60_000
        assert pair.far.statistics().bytes_received < STREAM_WINDOW_BYTES + overhead
        # Nothing sent before the cancellation is lost or doubled.
        unread = await pair.far.accept_stream()
        assert await unread.receive_exactly(100_000) == SOME[:100_000]
        # The window follows what was read, and grows by as much again.
        await _write_for(0.4, stream)
        assert pair.far.statistics().bytes_received < STREAM_WINDOW_BYTES + 200_000 + overhead


async def test_unread_streams_together_stay_bounded() -> None:
    async with joined() as pair:
        streams = [pair.near.open_stream() for _ in range(8)]
        await _write_for(0.4, *streams)
        assert pair.far.statistics().bytes_received < CONNECTION_WINDOW_BYTES + 100_000
        unread = [await pair.far.accept_stream() for _ in streams]
        await unread[0].receive_exactly(1000)
        await _write_for(0.2, *streams)
        assert pair.far.statistics().bytes_received < CONNECTION_WINDOW_BYTES + 110_000
        # Giving up on all of them gives the whole window back.
        for other in unread:
            other.stop(Reason.BUSY)
        stream = pair.near.open_stream()
        with trio.fail_after(5):
            await stream.send_all(SOME[:200_000])
            assert await (await pair.far.accept_stream()).receive_exactly(200_000) == SOME[:200_000]


async def test_a_reset_carries_its_reason() -> None:
    async with joined() as pair:
        stream = pair.near.open_stream()
        await stream.send_all(b"some")
        other = await pair.far.accept_stream()
        assert await other.receive_exactly(4) == b"some"
        stream.reset(Reason.BUSY)
        with pytest.raises(Refused) as caught:
            await other.receive_some()
        assert caught.value.reason is Reason.BUSY
        with pytest.raises(Refused):
            await stream.send_all(b"more")
        await other.send_all(b"the other way is still open")
        assert await stream.receive_some() == b"the other way is still open"


async def test_a_stop_carries_its_reason_to_a_waiting_writer() -> None:
    async with joined() as pair, trio.open_nursery() as nursery:
        stream = pair.near.open_stream()
        stopped = trio.Event()

        async def write() -> None:
            with pytest.raises(Refused) as caught:
                await stream.send_all(SOME)
            assert caught.value.reason is Reason.NOT_SHARING
            stopped.set()

        nursery.start_soon(write)
        other = await pair.far.accept_stream()
        await other.receive_some()
        other.stop(Reason.NOT_SHARING)
        with pytest.raises(Refused, match="stopped here"):
            await other.receive_some()
        with trio.fail_after(5):
            await stopped.wait()


async def test_a_stream_that_is_left_is_closed_both_ways() -> None:
    async with joined() as pair:
        with pair.near.open_stream() as stream:
            await stream.send_all(b"question")
        other = await pair.far.accept_stream()
        with pytest.raises(Refused) as caught:
            await read_all(other)
        assert caught.value.reason is Reason.CANCELLED
        with pytest.raises(Refused):
            await other.wait_acknowledged()


async def test_a_short_stream_is_not_mistaken_for_a_whole_one() -> None:
    async with joined() as pair:
        stream = pair.near.open_stream()
        await stream.send_all(b"12345")
        stream.send_eof()
        other = await pair.far.accept_stream()
        with pytest.raises(ProtocolError, match="5 of 6 bytes") as caught:
            await other.receive_exactly(6)
        assert caught.value.reason is Reason.MALFORMED
        with pytest.raises(RuntimeError, match="after send_eof"):
            await stream.send_all(b"6")
        with pytest.raises(ValueError, match="cannot receive"):
            await other.receive_some(0)


async def test_a_cancelled_task_leaves_the_connection_sound() -> None:
    async with joined() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(_echoing, pair.far)
        for _ in range(5):
            with trio.move_on_after(0.02):
                await ask(pair.near, SOME)
        assert await ask(pair.near, b"still here") == b"still here"
        pair.near.close()


async def test_a_close_ends_every_wait_on_both_sides_with_its_reason() -> None:
    waits = 0

    async def wait(step: Any) -> None:
        nonlocal waits
        with pytest.raises(ConnectionLost) as caught:
            while True:
                await step()
        assert caught.value.reason is Reason.NO_SPACE
        waits += 1

    async with joined() as pair, trio.open_nursery() as nursery:
        stream = pair.near.open_stream()
        await stream.send_all(b"x")
        await pair.far.accept_stream()
        quiet = pair.far.open_stream()
        for step in (
            pair.near.accept_stream,
            pair.far.accept_stream,
            stream.receive_some,
            partial(quiet.receive_exactly, 10),
            partial(stream.send_all, SOME),
            stream.wait_acknowledged,
        ):
            nursery.start_soon(wait, step)
        await trio.testing.wait_all_tasks_blocked()
        pair.far.close(Reason.NO_SPACE, "full\n\x1b[31mdisk")
        with trio.fail_after(5):
            loss = await pair.near.wait_closed()
        assert (loss.reason, loss.detail) == (Reason.NO_SPACE, "full??[31mdisk")
        with pytest.raises(ConnectionLost):
            pair.near.open_stream()
    assert waits == 6
    stream.close()  # closing after the end is no error


async def test_streams_over_the_peers_limit_wait_for_others_to_end() -> None:
    async with joined() as pair, trio.open_nursery() as nursery:
        streams = [pair.near.open_stream() for _ in range(200)]

        async def serve() -> None:
            for _ in streams:
                stream = await pair.far.accept_stream()
                await read_all(stream)
                stream.send_eof()

        for number, stream in enumerate(streams):
            await stream.send_all(b"%d" % number)
            stream.send_eof()
        nursery.start_soon(serve)
        with trio.fail_after(10):
            for stream in streams:
                assert await stream.receive_some() == b""


async def test_too_many_unaccepted_streams_cost_the_connection() -> None:
    async with joined() as pair:
        with pytest.raises(ConnectionLost) as caught, trio.fail_after(20):
            for _ in range(MAX_UNACCEPTED_STREAMS + 200):
                with pair.near.open_stream() as stream:
                    await stream.send_all(b"x")
                await trio.lowlevel.checkpoint()
            raise (await pair.near.wait_closed())
        assert caught.value.reason is Reason.TOO_LARGE


async def test_many_finished_streams_leave_nothing_behind() -> None:
    async with joined() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(_echoing, pair.far)
        for number in range(300):
            assert await ask(pair.near, b"%d" % number) == b"%d" % number
        await ask(pair.near, b"and the last acknowledgements")
        assert pair.near.statistics().streams < 100  # those of the last few milliseconds
        assert pair.far.statistics().streams < 100
        pair.near.close()


def test_every_ending_has_a_reason() -> None:
    ended = ConnectionTerminated
    assert loss_of(ended(9, None, "slots")).reason is Reason.BUSY
    assert loss_of(ended(999, None, "")).reason is Reason.UNEXPECTED
    assert loss_of(ended(1, 0, "Idle timeout")).reason is Reason.TIMEOUT
    assert loss_of(ended(0x100 + 120, 6, "")).reason is Reason.VERSION
    assert loss_of(ended(0x100 + 51, 6, "")).reason is Reason.NOT_ALLOWED
    assert loss_of(ended(0x2, 0, "")).reason is Reason.BUSY
    assert loss_of(ended(0xC, 0, "")).reason is Reason.CANCELLED
    assert loss_of(ended(0x7, 0, "bad\nframe")).detail == "QUIC error 0x7 bad?frame"
    assert [reason_of(int(reason)) for reason in Reason] == list(Reason)
    assert issubclass(ConnectionLost, PenstockError)
