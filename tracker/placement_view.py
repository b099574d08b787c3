"""What the JSON API says of edges, heat and orders; names and units as in `tracker/views.py`."""

from __future__ import annotations

from heapq import nlargest
from itertools import islice

import msgspec

from tracker.core.tracker import Tracker

MAX_LISTED = 500


class EdgeView(msgspec.Struct, frozen=True):
    """One admitted edge as redirects see it."""

    node: str
    region: str
    capacity_rate: float
    load_rate: float
    promised_rate: float  # by redirects since its last report
    quota_bytes: int
    held_bytes: int
    trouble: str  # why nobody new is sent there; empty if all is well
    threshold: float  # heat per byte of the hottest title that found no room; 0: there is room


class HeatView(msgspec.Struct, frozen=True):
    """How much a rendition is wanted."""

    infohash: str
    name: str
    heat: float
    planned_heat: float
    planned_release_at: float  # 0: no plan
    edges: int  # that hold all of it


class OrderView(msgspec.Struct, frozen=True):
    """One order to an edge."""

    number: int
    edge: str
    infohash: str
    stage: str  # empty: not acknowledged yet
    permille: int
    reason: str
    given_at: float
    before_at: float  # 0: as soon as it can


class PlacementView(msgspec.Struct, frozen=True):
    """Edges, the hottest titles, the latest orders."""

    orders: int
    held: int
    declined: int
    lost: int
    hints: int
    edges: list[EdgeView]
    heat: list[HeatView]
    latest: list[OrderView]


def placement(core: Tracker, now: float) -> PlacementView:
    """At most MAX_LISTED of each."""
    counts = core.content.placement.statistics()
    return PlacementView(
        orders=counts.orders,
        held=counts.held,
        declined=counts.declined,
        lost=counts.lost,
        hints=counts.hints,
        edges=_edges(core, now),
        heat=_heat(core, now),
        latest=_orders(core),
    )


def _edges(core: Tracker, now: float) -> list[EdgeView]:
    thresholds = core.content.placement.thresholds
    return [
        EdgeView(
            node=edge.node.hex(),
            region=edge.region,
            capacity_rate=edge.capacity_rate,
            load_rate=edge.load_rate,
            promised_rate=edge.promised_rate,
            quota_bytes=edge.quota_bytes,
            held_bytes=edge.held_bytes,
            trouble=edge.trouble(now),
            threshold=thresholds.get(edge.node, 0.0),
        )
        for edge in islice(core.edges.states.values(), MAX_LISTED)
    ]


def _heat(core: Tracker, now: float) -> list[HeatView]:
    heat = core.content.heat
    views = []
    for infohash in nlargest(MAX_LISTED, heat.warm(now), key=lambda infohash: heat.of(infohash, now)):
        rendition, planned = core.titles.rendition_of(infohash), heat.planned.get(infohash)
        if rendition is None:
            continue
        views.append(
            HeatView(
                infohash=infohash.hex(),
                name=rendition.name,
                heat=heat.of(infohash, now),
                planned_heat=planned.heat if planned else 0.0,
                planned_release_at=planned.release_at if planned else 0.0,
                edges=len(core.content.holders_of(infohash)),
            )
        )
    return views


def _orders(core: Tracker) -> list[OrderView]:
    orders = core.content.placement.orders.values()
    return [
        OrderView(
            number=order.number,
            edge=order.edge.hex(),
            infohash=order.infohash.hex(),
            stage=order.stage.value if order.stage else "",
            permille=order.permille,
            reason=order.reason.name.lower(),
            given_at=order.given_at,
            before_at=order.before,
        )
        for order in nlargest(MAX_LISTED, orders, key=lambda order: order.number)
    ]
