"""How far plans are, as the API tells it."""

from __future__ import annotations

from shared.core.ids import InfoHash, NodeId
from shared.core.messages import PlaceStage
from tracker.core.plans import Plan
from tracker.core.tracker import Tracker
from tracker.dbs.plans import EndedPlan
from tracker.desk_views import CopyView, PlanView

# The least advanced of a title's renditions is how far an edge is.
STAGES = ("declined", "waiting", "ordered", "accepted", "fetching", "held")
MAX_COPIES = 500


def plan_view(core: Tracker, plan: Plan, now: float) -> PlanView:
    """An open plan, with every edge that it wants the title on or that has it."""
    entry = core.entries.get(plan.title_id)
    renditions = entry.renditions if entry else ()
    sizes = {rendition.infohash: rendition.length for rendition in renditions}
    wanted = {node for infohash in sizes for node in core.content.placement.planned_for.get(infohash, ())}
    holding = (
        frozenset.intersection(*(core.content.whole_on(name) for name in sizes)) if sizes else frozenset()
    )
    nodes = sorted(wanted)[:MAX_COPIES] + sorted(holding - wanted)[: MAX_COPIES - len(wanted)]
    copies = [_copy(core, node, sizes, node in wanted, now) for node in nodes]
    begins_at = plan.release_at - core.content.plans.lead_seconds(plan)
    return PlanView(
        number=plan.number,
        title_id=plan.title_id.hex(),
        title=entry.title if entry else "",
        release_at=plan.release_at,
        made_at=plan.made_at,
        edges=plan.edges,
        regions=sorted(plan.regions),
        state=_state(plan, copies, now),
        begins_at=begins_at,
        ended_at=0.0,
        length_bytes=sum(sizes.values()),
        copies=copies,
    )


def _state(plan: Plan, copies: list[CopyView], now: float) -> str:
    if now >= plan.release_at:
        return "released"
    wanted = [copy for copy in copies if copy.wanted]
    if not wanted:
        return "waiting"
    enough = len(wanted) >= plan.edges and all(copy.stage == "held" for copy in wanted)
    return "placed" if enough else "placing"


def _copy(core: Tracker, node: NodeId, sizes: dict[InfoHash, int], wanted: bool, now: float) -> CopyView:
    edge = core.edges.states.get(node)
    if edge is None:
        return CopyView(node.hex(), "", wanted, "away", 0, "")
    stages = [_stage(core, node, infohash, now) for infohash in sizes]
    worst = min(stages, key=lambda stage: STAGES.index(stage[0]))
    done = sum(size * stage[1] for size, stage in zip(sizes.values(), stages, strict=True))
    return CopyView(node.hex(), edge.region, wanted, worst[0], done // max(sum(sizes.values()), 1), worst[2])


def _stage(core: Tracker, node: NodeId, infohash: InfoHash, now: float) -> tuple[str, int, str]:
    """Stage, permille and reason of one edge and rendition."""
    if node in core.content.whole_on(infohash):
        return "held", 1000, ""
    order = core.content.placement.orders.get((node, infohash))
    if order is None:
        return "waiting", 0, ""
    if order.stage is PlaceStage.DECLINED:
        return "declined", 0, order.reason.name.lower()
    if not order.is_open(now):
        return "waiting", order.permille, ""
    return (order.stage.value if order.stage else "ordered"), order.permille, ""


def ended_view(ended: EndedPlan) -> PlanView:
    """A plan that is over."""
    plan = ended.plan
    return PlanView(
        number=plan.number,
        title_id=plan.title_id.hex(),
        title=ended.title,
        release_at=plan.release_at,
        made_at=plan.made_at,
        edges=plan.edges,
        regions=sorted(plan.regions),
        state=ended.how_ended,
        begins_at=0.0,
        ended_at=ended.ended_at,
        length_bytes=0,
        copies=[],
    )
