"""The tracker as a process: one endpoint, one core, one database, one portal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random, SystemRandom

import trio

from shared import __version__, clock, web
from shared.connection import Stream
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import Address, HostPort, Kind, Mode, NodeId, parse_host_port
from shared.data_folder import locked
from shared.endpoint import open_endpoint
from shared.identity import Identity
from shared.node import Act, Introduction, open_node
from shared.own_address import reachable
from tracker import region_file, tiers
from tracker.config import TrackerConfig
from tracker.core.regions import RegionTable
from tracker.core.tracker import LogRedirect, Tracker, TrackerAction, TrackerSettings
from tracker.ledger import Ledger
from tracker.portal import Portal
from tracker.redirect_log import RedirectLog
from tracker.store import open_store

SOFTWARE = f"penstock {__version__}"


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a running tracker can be reached."""

    address: Address
    api: HostPort

    def __str__(self) -> str:
        return f"tracker ready {self.address} api http://{self.api}"


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
            await _serve(config, identity, core, Ledger(core, store), task_status)


async def _serve(
    config: TrackerConfig,
    identity: Identity,
    core: Tracker,
    ledger: Ledger,
    task_status: trio.TaskStatus[Ready],
) -> None:
    at = parse_host_port(config.listen)
    introduction = Introduction(Kind.TRACKER, Mode.DIRECT, config.region, SOFTWARE)
    outer = tiers.core_of(config, core, _dice())
    async with open_endpoint(identity, at.host, at.port, setting="tracker.listen") as endpoint:
        tracker = Address(identity.id, public_at(config, endpoint.local))
        async with (
            _side_files(config, core) as log,
            open_node(endpoint, outer, introduction, _acting(config, ledger, log), _refuse_stream) as node,
            ledger.open(node.pump),
            _open_portal(config, core, outer, tracker) as api,
            _open_torrents(config, core),
        ):
            task_status.started(Ready(tracker, api))
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
async def _open_torrents(config: TrackerConfig, core: Tracker) -> AsyncIterator[None]:
    """Lets stock BitTorrent clients announce titles that are for everybody, where that is wanted."""
    if config.bittorrent is None:
        yield
        return
    from tracker.torrent_door import open_torrent_door  # with numpy's generators, which few trackers need

    async with (
        open_torrent_door(parse_host_port(config.bittorrent), "tracker.bittorrent") as door,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(door.follow, core.open_torrents)
        yield
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
    )


def _dice() -> Random:
    return Random(SystemRandom().getrandbits(256))


async def _refuse_stream(node: NodeId, stream: Stream) -> None:
    raise ProtocolError(Reason.UNEXPECTED, "a tracker takes no bulk streams")


@asynccontextmanager
async def _open_portal(
    config: TrackerConfig, core: Tracker, outer: tiers.Core, tracker: Address
) -> AsyncIterator[HostPort]:
    at = parse_host_port(config.api)
    app = Portal(core, tracker, SOFTWARE, clock.now(), outer).app(at.host)
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(partial(web.serve, app, at.host, at.port, what="tracker.api"))
        yield HostPort(host, port)
        nursery.cancel_scope.cancel()
