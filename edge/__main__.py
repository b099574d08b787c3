"""`python -m edge FD`: one process of an edge that has several; the supervisor is at FD."""

from __future__ import annotations

import logging
import pickle
import signal
import socket
import sys

import trio

from edge.channel import Channel, ChannelEnded
from edge.config import EdgeConfig
from edge.core.crew import Begin, Drain, Failed, Finish, Inherit, LeadLost, Meet, PassOn, Ready, StandFor
from edge.server import open_server, trackers_of
from edge.worker import WorkerServer, wait_read
from shared.cli import configure_logging
from shared.core.errors import LocalError
from shared.endpoint import open_endpoint
from shared.identity import Identity
from shared.node import IDLE_SECONDS
from shared.piece_store import PieceStore
from shared.steering import Berth

log = logging.getLogger(__name__)


def main() -> None:
    """Runs until the supervisor says so, or is gone; signals are for it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    trio.run(_obey, socket.socket(fileno=int(sys.argv[1])))


async def _obey(sock: socket.socket) -> None:
    supervisor = Channel(sock)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervisor.write_forever)
            begin, port = await supervisor.receive()
            if not isinstance(begin, Begin) or port is None:
                raise ChannelEnded(f"the supervisor begins with {type(begin).__name__}")
            config: EdgeConfig = pickle.loads(begin.config)  # of the process that started us
            configure_logging(config.log_level)
            try:
                identity = await trio.to_thread.run_sync(Identity.load, config.data / "key")
                run = _lead if begin.is_lead else _work
                await run(config, identity, supervisor, port, Berth(begin.berth, begin.berths))
            except* ChannelEnded as group:
                log.debug("%s", group.exceptions[0])
            except* LocalError as group:
                supervisor.send(Failed(str(_first(group))))
            await supervisor.flush()
            nursery.cancel_scope.cancel()
    finally:
        supervisor.close()


def _first(group: BaseExceptionGroup[LocalError]) -> LocalError:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner


async def _lead(
    config: EdgeConfig, identity: Identity, supervisor: Channel, port: socket.socket, berth: Berth
) -> None:
    server = await open_server(config, identity)
    async with open_endpoint(identity, sock=port, berth=berth, idle_timeout_seconds=IDLE_SECONDS) as endpoint:
        endpoint.pass_on = server.crew.pass_on
        async with server.run(endpoint), trio.open_nursery() as nursery:
            supervisor.send(Ready())
            while True:
                word, sock = await supervisor.receive()
                match word:
                    case Meet() if sock is not None:
                        nursery.start_soon(server.crew.lead, word.name, sock)
                    case Drain():
                        server.set_draining(word.draining)
                    case Finish():
                        break
                    case _:
                        raise ChannelEnded(f"the supervisor said {type(word).__name__}")
            await wait_read(port)
            nursery.cancel_scope.cancel()


async def _work(
    config: EdgeConfig, identity: Identity, supervisor: Channel, port: socket.socket, berth: Berth
) -> None:
    store = PieceStore(config.data / "pieces", int(config.quota), durable=True, reads_only=True)
    server = WorkerServer(config, trackers_of(config)[0], store)
    async with trio.open_nursery() as nursery:
        finish = trio.Event()
        nursery.start_soon(_listen, config, server, supervisor, nursery, finish)
        await server.caught_up.wait()
        async with (
            open_endpoint(identity, sock=port, berth=berth, idle_timeout_seconds=IDLE_SECONDS) as endpoint,
            server.run(endpoint),
        ):
            supervisor.send(Ready())
            await finish.wait()
            await wait_read(port)
            await server.flush()
            had = endpoint.statistics()
            log.info(
                "this worker ends: %d datagrams came, %d for nobody here, %d of them astray",
                had.datagrams_received,
                had.unwanted_datagrams,
                had.astray_datagrams,
            )
        nursery.cancel_scope.cancel()


async def _follow(server: WorkerServer, lead: int, sock: socket.socket, supervisor: Channel) -> None:
    """Task: one lead, to its end. Whether that was the lead's end or only the channel's, we cannot see."""
    await server.follow(sock)
    supervisor.send(LeadLost(lead))


async def _listen(
    config: EdgeConfig,
    server: WorkerServer,
    supervisor: Channel,
    nursery: trio.Nursery,
    finish: trio.Event,
) -> None:
    """Task: what the supervisor wants of a worker."""
    while True:
        word, sock = await supervisor.receive()
        match word:
            case Meet() if sock is not None:
                nursery.start_soon(_follow, server, word.name, sock, supervisor)
            case Inherit() if sock is not None:
                nursery.start_soon(server.inherit, sock)
            case PassOn() if sock is not None:
                heir = Channel(sock)
                nursery.start_soon(heir.write_forever)
                nursery.start_soon(server.leave, heir, float(config.worker_grace), supervisor)
            case StandFor():
                server.stand_for(word.berth)
            case Finish():
                finish.set()
            case _:
                raise ChannelEnded(f"the supervisor said {type(word).__name__}")


if __name__ == "__main__":
    main()
