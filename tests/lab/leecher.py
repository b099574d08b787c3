"""Hungry leechers without a disk: `python -m tests.lab.leecher TRACKER INFOHASH LISTEN COUNT [STAY AWAY]`.

Each has an identity and an endpoint of its own, takes a real ticket from the tracker, joins the
one peer that the tracker names, and asks it for pieces without end, several at a time; what
arrives is counted and thrown away. With STAY and AWAY it comes and goes, so many seconds on
average. Says `ready` when all have joined for the first time, and when its input ends, the bytes
that each got, as JSON.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from random import Random
from typing import TypeVar

import trio

from shared.connection import Connection
from shared.core.bulk import PieceRequest
from shared.core.errors import ConnectionLost, Reason, RemoteError
from shared.core.ids import Address, InfoHash, Kind, Mode, parse_address, parse_host_port
from shared.core.messages import PROTOCOL_VERSION, Have, Hello, Join, Locate, Message, Redirect, Source
from shared.core.session import Session
from shared.core.shape import PIECE_BYTES
from shared.endpoint import Endpoint, open_endpoint
from shared.identity import Identity
from shared.stream import Stream

AT_A_TIME = 3  # requests of one leecher
LEAVES = 16
AGAIN_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 4.0
WHOLE = PIECE_BYTES + 32 * LEAVES + 1  # an answer: status, leaf hashes, a full piece
Heard = TypeVar("Heard", bound=Message)


class Leecher:
    """One of them."""

    def __init__(self, tracker: Address, infohash: InfoHash, listen: str, number: int) -> None:
        self.taken_bytes = 0
        self.joined = trio.Event()
        self._tracker = tracker
        self._infohash = infohash
        self._listen = listen
        self._random = Random(number)

    async def run(self, stay_seconds: float, away_seconds: float) -> None:
        """Takes part until cancelled."""
        async with open_endpoint(Identity.generate(), self._listen, 0) as endpoint:
            while True:
                with trio.move_on_after(self._random.expovariate(1 / stay_seconds) if stay_seconds else 1e9):
                    await self._take_part(endpoint)
                await trio.sleep(
                    self._random.expovariate(1 / away_seconds) if away_seconds else AGAIN_SECONDS
                )

    async def _take_part(self, endpoint: Endpoint) -> None:
        try:
            source, ticket = await self._locate(endpoint)
            connection = await endpoint.connect(
                source.node, parse_host_port(source.at), keep_alive_seconds=KEEP_ALIVE_SECONDS
            )
            try:
                pieces = await self._join(endpoint, connection, ticket)
                self.joined.set()
                async with trio.open_nursery() as nursery:
                    for _ in range(AT_A_TIME):
                        nursery.start_soon(self._take_pieces, connection, pieces)
            finally:
                connection.close(Reason.CANCELLED)
        except* RemoteError:
            pass  # gone, or it refused: later again

    async def _locate(self, endpoint: Endpoint) -> tuple[Source, bytes]:
        connection = await endpoint.connect(self._tracker.node, self._tracker.at)
        try:
            control, session = await self._greet(connection)
            while True:
                await control.send_all(session.send(Locate(1, self._infohash)))
                answer = await _hear(control, session, Redirect)
                for source in answer.sources:
                    if source.kind is Kind.PC:
                        return source, answer.ticket
                await trio.sleep(AGAIN_SECONDS)
        finally:
            connection.close(Reason.CANCELLED)

    async def _greet(self, connection: Connection) -> tuple[Stream, Session]:
        control, session = connection.open_stream(), Session(Kind.PC)
        seen = str(connection.remote)
        hello = Hello(PROTOCOL_VERSION, Kind.PC, Mode.DIRECT, "", "leecher", seen)
        await control.send_all(session.send(hello))
        await _hear(control, session, Hello)
        return control, session

    async def _join(self, endpoint: Endpoint, connection: Connection, ticket: bytes) -> list[int]:
        """The pieces that are held there."""
        control, session = await self._greet(connection)
        await control.send_all(session.send(Join(1, self._infohash, ticket)))
        bits = (await _hear(control, session, Have)).bitfield
        held = [at for at in range(8 * len(bits)) if bits[at // 8] >> (7 - at % 8) & 1]
        return held[:-1]  # the film's last piece is shorter, and asking for more than there is ends all

    async def _take_pieces(self, connection: Connection, pieces: list[int]) -> None:
        while True:
            piece = self._random.choice(pieces)
            with connection.open_stream() as stream:
                await stream.send_all(PieceRequest(self._infohash, piece, 0, LEAVES).encode())
                stream.send_eof()
                got = 0
                while data := await stream.receive_some(1 << 18):
                    got += len(data)
                    self.taken_bytes += len(data)
            if got < WHOLE:  # declined
                await trio.sleep(AGAIN_SECONDS)


async def _hear(control: Stream, session: Session, kind: type[Heard]) -> Heard:
    """The next message of that kind; others are passed over. Raises RemoteError."""
    while True:
        received = await control.receive_some()
        if not received:
            raise ConnectionLost(Reason.NONE, "control stream ended")
        for message in session.receive(received):
            if isinstance(message, kind):
                return message


async def main(tracker: str, infohash: str, listen: str, count: str, *churn: str) -> None:
    """Runs `count` leechers until standard input ends."""
    stay_seconds, away_seconds = (float(each) for each in churn or ("0", "0"))
    swarm = InfoHash(bytes.fromhex(infohash))
    leechers = [Leecher(parse_address(tracker), swarm, listen, number) for number in range(int(count))]
    async with trio.open_nursery() as nursery:
        for leecher in leechers:
            nursery.start_soon(leecher.run, stay_seconds, away_seconds)
        for leecher in leechers:
            await leecher.joined.wait()
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        print(json.dumps([leecher.taken_bytes for leecher in leechers]), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(partial(main, *sys.argv[1:]))
