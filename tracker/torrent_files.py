"""Manifests of open renditions, fetched from the edges that hold them, for .torrent files."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field

import trio

from shared.core.errors import Reason, Refused, RemoteError
from shared.core.ids import InfoHash, NodeId
from shared.core.manifest import Manifest
from shared.node import Node
from shared.requesting import ask_manifest
from tracker.core.tracker import Tracker

log = logging.getLogger(__name__)

FETCH_SECONDS = 10.0  # from one edge
FETCHES_AT_ONCE = 4
MAX_CACHED_BYTES = 32 << 20  # a film of four hours has one of a megabyte


@dataclass(slots=True)
class TorrentFiles:
    """Keeps the latest manifests in memory; which may be given away is not decided here."""

    core: Tracker
    node: Node
    _cached: OrderedDict[InfoHash, Manifest] = field(default_factory=OrderedDict)
    _cached_bytes: int = 0
    _turns: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(FETCHES_AT_ONCE))

    async def manifest(self, infohash: InfoHash, signer: NodeId) -> Manifest:
        """A rendition's manifest. Raises Refused if no edge that holds it gives it."""
        async with self._turns:
            known = self._cached.get(infohash)
            if known is None:
                known = await self._fetch(infohash, signer)
                self._keep(known)
            self._cached.move_to_end(infohash)
        return known

    async def _fetch(self, infohash: InfoHash, signer: NodeId) -> Manifest:
        for edge in self.core.edges_with(infohash):
            try:
                with trio.move_on_after(FETCH_SECONDS):
                    return await ask_manifest(self.node.connection(edge), infohash, signer)
            except RemoteError as error:
                log.warning("no manifest of %s from edge %s: %s", infohash.hex()[:12], edge.hex()[:8], error)
        raise Refused(Reason.NOT_HELD, "no edge that holds this title answers; try again later")

    def _keep(self, manifest: Manifest) -> None:
        if manifest.infohash not in self._cached:
            self._cached[manifest.infohash] = manifest
            self._cached_bytes += len(manifest.raw)
        while self._cached_bytes > MAX_CACHED_BYTES and len(self._cached) > 1:
            self._cached_bytes -= len(self._cached.popitem(last=False)[1].raw)
