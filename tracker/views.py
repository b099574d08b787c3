"""What the JSON API says, as types: the portal fills them in, the terminal view reads them.

Names, units and nesting here *are* the API. Ids and hashes are hexadecimal, `_at` is seconds
since 1970, `_rate` bytes per second, `_bytes` bytes since the node's start.
"""

from __future__ import annotations

from itertools import islice

import msgspec

from shared.core.ids import Address, InfoHash
from shared.core.messages import Entry, Rendition, Report
from tracker.core.nodes import Node
from tracker.core.swarm import Holder, Swarm
from tracker.core.tracker import Tracker

MAX_HOLDERS = 100  # listed per swarm; the counts beside them are of all
MAX_TITLES_HELD = 20  # listed per node


class Overview(msgspec.Struct, frozen=True):
    """The whole tracker in one glance."""

    address: str
    software: str
    started_at: float
    now_at: float
    nodes: int
    viewers: int
    edges: int
    swarms: int
    titles: int
    announces: int
    redirects: int
    refusals: int
    edge_bytes: int
    peer_bytes: int
    uploaded_bytes: int
    up_rate: int
    down_rate: int
    stalls: int
    offload: float  # share of delivered bytes that came from peers, 0 to 1
    records: int  # parts of nodes in swarms
    record_bytes: int  # what they occupy
    region_prefixes: int  # in the region table
    orders: int  # to edges, to hold titles
    datagrams: dict[str, int]  # sealed ones: answered by sort, passed over by reason
    tier: str = "single"  # regional, central
    alone: bool = False  # a regional tracker that does not reach the central one


class ShareView(msgspec.Struct, frozen=True):
    """Bytes a node took from one source."""

    node: str
    taken_bytes: int


class ReportView(msgspec.Struct, frozen=True):
    """A node's last report of itself."""

    up_rate: int
    down_rate: int
    cap_rate: int  # 0: no cap
    edge_bytes: int
    peer_bytes: int
    uploaded_bytes: int
    held_bytes: int
    connections: int
    stalls: int
    shares: list[ShareView]


class NodeView(msgspec.Struct, frozen=True):
    """One connected node."""

    id: str
    kind: str
    mode: str
    region: str
    at: str
    software: str
    since_at: float
    heard_at: float
    swarms: int
    titles: list[str]  # of the first swarms it is in
    report: ReportView | None


class HolderView(msgspec.Struct, frozen=True):
    """One node in one swarm."""

    node: str
    kind: str
    region: str
    held: int
    total: int
    spare: int


class SwarmView(msgspec.Struct, frozen=True):
    """Who holds a rendition."""

    infohash: str
    title_id: str
    title: str
    name: str
    length: int
    seeders: int
    leechers: int
    viewers: int  # holders that are terminals
    viewers_held: float  # mean share of the pieces that viewers hold, 0 to 1
    holders: list[HolderView]


class RenditionView(msgspec.Struct, frozen=True):
    """One encoding of a title."""

    infohash: str
    name: str
    length: int
    bandwidth: int  # peak bits per second; 0: a plain file
    codecs: str
    width: int
    height: int
    duration_seconds: float
    seeders: int
    leechers: int


class TitleView(msgspec.Struct, frozen=True):
    """A published work and the string that opens it."""

    id: str
    title: str
    address: str
    signer: str
    renditions: list[RenditionView]


class NodePage(msgspec.Struct, frozen=True):
    """Part of the nodes, in the order they connected."""

    total: int
    skip: int
    limit: int
    nodes: list[NodeView]


class SwarmPage(msgspec.Struct, frozen=True):
    """Part of the swarms, in the order they began."""

    total: int
    skip: int
    limit: int
    swarms: list[SwarmView]


class TitlePage(msgspec.Struct, frozen=True):
    """Part of the catalogue, newest first."""

    total: int
    skip: int
    limit: int
    titles: list[TitleView]


def overview(core: Tracker, address: Address, software: str, started_at: float, now: float) -> Overview:
    """Counters and sums over all nodes."""
    counts = core.statistics()
    sums = counts.totals
    return Overview(
        address=str(address),
        software=software,
        started_at=started_at,
        now_at=now,
        nodes=counts.nodes,
        viewers=counts.viewers,
        edges=counts.edges,
        swarms=counts.swarms,
        titles=counts.titles,
        announces=counts.announces,
        redirects=counts.redirects,
        refusals=counts.refusals,
        edge_bytes=sums.edge_bytes,
        peer_bytes=sums.peer_bytes,
        uploaded_bytes=sums.uploaded_bytes,
        up_rate=sums.up_rate,
        down_rate=sums.down_rate,
        stalls=sums.stalls,
        offload=sums.offload,
        records=counts.records,
        record_bytes=counts.record_bytes,
        region_prefixes=counts.prefixes,
        orders=counts.placement.orders,
        datagrams=dict(core.sealed.statistics()),
    )


def node_page(core: Tracker, skip: int, limit: int) -> NodePage:
    """`limit` nodes after the first `skip`."""
    page = islice(core.nodes.values(), skip, skip + limit)
    return NodePage(len(core.nodes), skip, limit, [_node(core, node) for node in page])


def swarm_page(core: Tracker, skip: int, limit: int) -> SwarmPage:
    """`limit` swarms after the first `skip`."""
    swarms = core.swarms.swarms
    page = islice(swarms.items(), skip, skip + limit)
    views = [view for infohash, swarm in page if (view := _swarm(core, infohash, swarm)) is not None]
    return SwarmPage(len(swarms), skip, limit, views)


def title_page(core: Tracker, tracker: Address, skip: int, limit: int) -> TitlePage:
    """`limit` titles after the newest `skip`."""
    page = islice(reversed(core.entries.values()), skip, skip + limit)
    return TitlePage(len(core.entries), skip, limit, [title_view(core, tracker, entry) for entry in page])


def title_view(core: Tracker, tracker: Address, entry: Entry) -> TitleView:
    """One title, with the address string that viewers paste."""
    return TitleView(
        id=entry.title_id.hex(),
        title=entry.title,
        address=str(Address(tracker.node, tracker.at, entry.title_id)),
        signer=entry.signer.hex(),
        renditions=[_rendition(core, rendition) for rendition in entry.renditions],
    )


def _node(core: Tracker, node: Node) -> NodeView:
    held = islice(core.swarms.of_node(node.id), MAX_TITLES_HELD)
    entries = (core.title_of(infohash) for infohash, _ in held)
    return NodeView(
        id=node.id.hex(),
        kind=node.kind.value,
        mode=node.mode.value,
        region=node.region,
        at=str(node.at),
        software=node.software,
        since_at=node.since,
        heard_at=node.heard_at,
        swarms=core.swarms.count_of(node.id),
        titles=[entry.title for entry in entries if entry is not None],
        report=None if node.report is None else _report(node.report),
    )


def _report(report: Report) -> ReportView:
    return ReportView(
        up_rate=report.up_rate,
        down_rate=report.down_rate,
        cap_rate=report.cap_rate,
        edge_bytes=report.edge_bytes,
        peer_bytes=report.peer_bytes,
        uploaded_bytes=report.uploaded_bytes,
        held_bytes=report.held_bytes,
        connections=report.connections,
        stalls=report.stalls,
        shares=[ShareView(share.node.hex(), share.taken_bytes) for share in report.shares],
    )


def _swarm(core: Tracker, infohash: InfoHash, swarm: Swarm) -> SwarmView | None:
    entry = core.title_of(infohash)
    if entry is None:
        return None
    rendition = next(r for r in entry.renditions if r.infohash == infohash)
    return SwarmView(
        infohash=infohash.hex(),
        title_id=entry.title_id.hex(),
        title=entry.title,
        name=rendition.name,
        length=rendition.length,
        seeders=swarm.seeders,
        leechers=swarm.count - swarm.seeders,
        viewers=swarm.viewers,
        viewers_held=swarm.viewers_share / swarm.viewers if swarm.viewers else 0.0,
        holders=[_holder(holder) for holder in islice(core.swarms.members(swarm), MAX_HOLDERS)],
    )


def _holder(holder: Holder) -> HolderView:
    return HolderView(
        node=holder.node.hex(),
        kind=holder.kind.value,
        region=holder.region,
        held=holder.held,
        total=holder.total,
        spare=holder.spare,
    )


def _rendition(core: Tracker, rendition: Rendition) -> RenditionView:
    swarm = core.swarms.swarms.get(rendition.infohash, Swarm())
    return RenditionView(
        infohash=rendition.infohash.hex(),
        name=rendition.name,
        length=rendition.length,
        bandwidth=rendition.bandwidth,
        codecs=rendition.codecs,
        width=rendition.width,
        height=rendition.height,
        duration_seconds=rendition.duration_ms / 1000,
        seeders=swarm.seeders,
        leechers=swarm.count - swarm.seeders,
    )
