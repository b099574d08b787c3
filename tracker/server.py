"""The tracker as a process: one endpoint, one core, one database, one portal."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import TYPE_CHECKING

import trio

from shared import SOFTWARE, clock, web
from shared.connection import Stream
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import Address, HostPort, Kind, Mode, NodeId, parse_host_port
from shared.data_folder import locked
from shared.endpoint import open_endpoint
from shared.identity import Identity
from shared.node import Act, Introduction, Node, open_node
from shared.own_address import reachable
from shared.sockets import bind
from tracker import region_file, tiers
from tracker.config import Tier, TrackerConfig
from tracker.core.regions import RegionTable
from tracker.core.tracker import LogRedirect, Tracker, TrackerAction, TrackerSettings
from tracker.ledger import Ledger
from tracker.office import Office
from tracker.portal import Portal
from tracker.redirect_log import RedirectLog
from tracker.sealed_door import open_sealed_door
from tracker.store import open_store
from tracker.torrent_files import TorrentFiles
from tracker.torrent_portal import MAX_OF_ADDRESS, TorrentPortal

if TYPE_CHECKING:
    from tracker.torrent_crew import TorrentCrew
    from tracker.torrent_door import TorrentDoor


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a running tracker can be reached."""

    address: Address
    api: HostPort
    bittorrent: HostPort | None = None

    def __str__(self) -> str:
        torrents = "" if self.bittorrent is None else f" bittorrent http://{self.bittorrent}"
        return f"tracker ready {self.address} api http://{self.api}{torrents}"


async def serve(
    config: TrackerConfig, *, task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED
) -> None:
    """Runs a tracker until cancelled; `task_status` gets a Ready once it answers.

    Raises LocalError if the key, the database or an address cannot be used.
    """
    with locked(config.data, "tracker.data"):
        identity = await trio.to_thread.run_sync(load_identity, config)
        async with open_store(config.data / "tracker.db") as store:
            core = Tracker(identity.private_key, _settings(config), await store.entries(), _dice())
            office = Office(core, store)
            await office.load()
            await _serve(config, identity, core, office, task_status)


async def _serve(
    config: TrackerConfig,
    identity: Identity,
    core: Tracker,
    office: Office,
    task_status: trio.TaskStatus[Ready],
) -> None:
    at = parse_host_port(config.listen)
    introduction = Introduction(Kind.TRACKER, Mode.DIRECT, config.region, SOFTWARE)
    outer = tiers.core_of(config, core, _dice())
    sock = await bind(at, "tracker.listen")
    async with open_endpoint(identity, sock=sock) as endpoint:
        tracker = Address(identity.id, public_at(config, endpoint.local))
        async with (
            _side_files(config, core) as log,
            open_node(
                endpoint, outer, introduction, _acting(config, office.ledger, log), _refuse_stream
            ) as node,
            office.open(node.pump),
            _open_sealed(config, core, sock, node),
            _open_portal(config, core, outer, tracker, office) as api,
            _open_torrents(config, core, node) as torrents,
        ):
            task_status.started(Ready(tracker, api, torrents))
            await trio.sleep_forever()


@asynccontextmanager
async def _side_files(config: TrackerConfig, core: Tracker) -> AsyncIterator[RedirectLog | None]:
    """Follows the region table's file, and writes the log of redirects. Raises LocalError."""
    log = None if config.redirect_log is None else RedirectLog(config.redirect_log)
    if config.regions is not None:
        core.use_regions(await trio.to_thread.run_sync(load_regions, config.regions))
    try:
        async with trio.open_nursery() as nursery:
            if config.regions is not None:
                nursery.start_soon(region_file.watch, config.regions, core.use_regions)
            if log is not None:
                nursery.start_soon(log.run)
            yield log
            nursery.cancel_scope.cancel()
    finally:
        if log is not None:
            with trio.CancelScope(shield=True):
                await log.flush()


@asynccontextmanager
async def _open_sealed(
    config: TrackerConfig, core: Tracker, quic: socket.socket, node: Node
) -> AsyncIterator[None]:
    """Takes announces, locates and reports by sealed datagrams, where that is wanted."""
    if not config.sealed_datagrams or config.tier is Tier.CENTRAL:  # which serves trackers only
        yield
        return
    async with open_sealed_door(core.sealed, quic, node.pump, node.vouch):
        yield


@asynccontextmanager
async def _open_torrents(config: TrackerConfig, core: Tracker, node: Node) -> AsyncIterator[HostPort | None]:
    """Lets stock BitTorrent clients in to titles that are for everybody, where that is wanted."""
    if config.bittorrent is None:
        yield None
        return
    from tracker.torrent_crew import open_torrent_crew
    from tracker.torrent_door import open_torrent_door  # with numpy's generators, which few trackers need

    setting, at = "tracker.bittorrent", parse_host_port(config.bittorrent)
    opening: AbstractAsyncContextManager[TorrentDoor | TorrentCrew] = (
        open_torrent_door(at, setting)
        if config.workers == 1
        else open_torrent_crew(at, setting, config.workers, config.log_level)
    )
    async with opening as door, trio.open_nursery() as nursery:
        public = None if config.public is None else HostPort(parse_host_port(config.public).host, door.port)
        portal = TorrentPortal(core, door, TorrentFiles(core, node), public)
        await nursery.start(
            partial(web.serve, portal.app(), at.host, door.port, what=setting, max_of_address=MAX_OF_ADDRESS)
        )
        nursery.start_soon(door.follow, core.open_titles.torrents)
        yield public or reachable(HostPort(at.host, door.port))
        nursery.cancel_scope.cancel()


def _acting(config: TrackerConfig, ledger: Ledger, log: RedirectLog | None) -> Act:
    return partial(tiers.act, config.data, partial(_act, ledger, log))


def _act(ledger: Ledger, log: RedirectLog | None, action: TrackerAction) -> None:
    if isinstance(action, LogRedirect):
        if log is not None:
            log.add(action.answer)
    else:
        ledger.act(action)


def load_regions(path: Path) -> RegionTable:
    """The region table at the start. Raises LocalError that names the setting, file and line."""
    try:
        return region_file.load(path)
    except LocalError as error:
        raise LocalError(f"tracker.regions: {error}") from None


def load_identity(config: TrackerConfig) -> Identity:
    """The tracker's key, made at the first start. Raises LocalError."""
    return Identity.load(config.data / "key")


def public_at(config: TrackerConfig, bound: HostPort) -> HostPort:
    """The address that stands in address strings: the setting, else what is listened on."""
    if config.public is not None:
        return parse_host_port(config.public)
    return reachable(bound)


def _settings(config: TrackerConfig) -> TrackerSettings:
    return TrackerSettings(
        announce_seconds=config.announce_seconds,
        report_seconds=config.report_seconds,
        edges=config.edge_ids(),
        open_to_edges=config.open_to_edges,
        log_redirects=config.redirect_log is not None,
        bittorrent=config.bittorrent is not None,
    )


def _dice() -> Random:
    return Random(SystemRandom().getrandbits(256))


async def _refuse_stream(node: NodeId, stream: Stream) -> None:
    raise ProtocolError(Reason.UNEXPECTED, "a tracker takes no bulk streams")


@asynccontextmanager
async def _open_portal(
    config: TrackerConfig, core: Tracker, outer: tiers.Core, tracker: Address, office: Office
) -> AsyncIterator[HostPort]:
    at = parse_host_port(config.api)
    app = Portal(core, tracker, SOFTWARE, clock.now(), office.desks, outer).app(at.host)
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(partial(web.serve, app, at.host, at.port, what="tracker.api"))
        yield HostPort(host, port)
        nursery.cancel_scope.cancel()
