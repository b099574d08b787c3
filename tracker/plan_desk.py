"""Plans of pre-distribution over HTTP: in the database first, then in the core, then answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import islice

import msgspec
import trio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from shared import clock
from shared.core.errors import StoreError
from tracker import query
from tracker.answers import route
from tracker.core.tracker import Tracker
from tracker.dbs import placement, plans
from tracker.dbs.refusals import NotSo, NotThere
from tracker.desk_views import PlacementPage, PlacementRowView, PlanPage, PlanView
from tracker.plan_view import ended_view, plan_view
from tracker.store import Store
from tracker.title_search import find_title

log = logging.getLogger("penstock.tracker")

MOST_AHEAD_SECONDS = 400 * 86400.0
MAX_EDGES = 10_000
MAX_REGIONS = 100
OVER_EVERY_SECONDS = 60.0


class PlanWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A title that is to be on edges before `release_at`, seconds since 1970."""

    title: str
    release_at: float
    edges: int = 0
    regions: list[str] = []


class PlanDesk:
    """Changes plans for whoever may ask; call `load` before anybody does."""

    def __init__(self, core: Tracker, store: Store, now: Callable[[], float] = clock.now) -> None:
        self._core = core
        self._store = store
        self._now = now
        self._turn = trio.Lock()  # the core hears of changes in the order in which they are stored

    async def load(self) -> None:
        """Tells the core what the database has. Raises StoreError."""
        for plan in await self._store.write(plans.read_plans):
            self._core.content.plans.put(plan)

    async def run(self) -> None:
        """Task: writes down which plans have ended by themselves."""
        while True:
            await trio.sleep(OVER_EVERY_SECONDS)
            for plan in self._core.content.plans.take_over():
                try:
                    await self._store.write(plans.end_plan, plan.number, self._now())
                except StoreError as error:  # it is loaded again at the next start, and ends again
                    log.warning("the end of plan %d is not recorded: %s", plan.number, error)

    def routes(self, *, may_change: bool) -> Sequence[Route]:
        """The doors."""
        return [
            route("/api/v1/plans", "GET", self._plans),
            route("/api/v1/plans", "POST", self._add, may_change=may_change),
            route("/api/v1/plans", "DELETE", self._cancel, may_change=may_change),
            route("/api/v1/placement/record", "GET", self._record),
        ]

    async def _plans(self, request: Request) -> PlanPage:
        query.only(request, "which", "skip", "limit")
        skip, limit = query.bounds(request)
        if query.choice(request, "which", ("open", "ended")) == "ended":
            total, ended = await self._store.read(plans.list_ended, skip, limit)
            return PlanPage(total, skip, limit, [ended_view(one) for one in ended])
        known = sorted(self._core.content.plans.open.values(), key=lambda plan: plan.release_at)
        page = islice(known, skip, skip + limit)
        return PlanPage(len(known), skip, limit, [plan_view(self._core, plan, self._now()) for plan in page])

    async def _record(self, request: Request) -> PlacementPage:
        query.only(request, "skip", "limit")
        skip, limit = query.bounds(request)
        total, rows = await self._store.read(placement.list_placement, skip, limit)
        views = [
            PlacementRowView(
                edge=row.edge.hex(),
                infohash=row.infohash.hex(),
                stage=row.change.stage,
                since_at=row.change.at,
                reason=row.change.reason,
                ordered_at=row.change.ordered_at,
                before_at=row.change.before_at,
            )
            for row in rows
        ]
        return PlacementPage(total, skip, limit, views)

    async def _add(self, request: Request) -> PlanView:
        query.only(request)
        wish = await query.body_of(request, PlanWish)
        now = self._now()
        self._check(wish, now)
        entry = find_title(self._core.titles, wish.title)
        arguments = (entry.title_id, wish.release_at, wish.edges, frozenset(wish.regions), now)
        async with self._turn:
            plan = await self._store.write(plans.add_plan, *arguments)
            self._core.content.plans.put(plan)
        return plan_view(self._core, plan, now)

    def _check(self, wish: PlanWish, now: float) -> None:
        if not wish.release_at > now:
            raise HTTPException(400, f"release_at: {wish.release_at:.0f} is past; it is {now:.0f} now")
        if wish.release_at > now + MOST_AHEAD_SECONDS:
            raise HTTPException(400, "release_at: more than 400 days ahead")
        if not 0 <= wish.edges <= MAX_EDGES:
            raise HTTPException(400, f"edges: expected a whole number from 0 to {MAX_EDGES}")
        if wish.edges and wish.regions:
            raise HTTPException(400, "edges: say how many, or which regions, not both")
        query.at_most(MAX_REGIONS, regions=wish.regions)
        known = {edge.region for edge in self._core.edges.states.values()}
        for region in wish.regions:
            if not region or region not in known:
                named = ", ".join(sorted(known - {""})[:MAX_REGIONS]) or "none that has a name"
                raise NotSo(f"regions: no edge is in region {region[:80]!r} now; edges are in: {named}")

    async def _cancel(self, request: Request) -> PlanView:
        query.only(request, "title")
        entry = find_title(self._core.titles, query.text_of(request, "title"))
        async with self._turn:
            plan = self._core.content.plans.open.get(entry.title_id)
            if plan is None:
                raise NotThere("the title has no plan; `penstock place` lists the plans")
            await self._store.write(plans.cancel_plan, entry.title_id, self._now())
            view = plan_view(self._core, plan, self._now())
            self._core.content.plans.cancel(entry.title_id)
        return view
