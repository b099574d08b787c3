"""`penstock place`: titles on edges ahead of their release. What is heavy is imported when it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from tracker.group_commands import DEFAULT, PAGE, Json, TrackerApi

if TYPE_CHECKING:
    from tracker.api_client import Api
    from tracker.desk_views import PlanPage, PlanView

Flag = Parameter(negative=(), show_default=False)
HEAD = ("title", "before", "state", "edge", "region", "stage", "done")


def register(app: App) -> None:
    """Adds `penstock place`."""
    app.command(place)


def place(
    title: Annotated[str | None, Parameter(help="Its name, id or address.")] = None,
    /,
    *,
    before: Annotated[
        str | None, Parameter(help="When it must be there: 2026-12-24T20:00, or with +01:00 behind.")
    ] = None,
    regions: Annotated[str | None, Parameter(help="On edges of these regions: a,b.")] = None,
    edges: Annotated[int | None, Parameter(help="On so many edges; else as many as it deserves.")] = None,
    cancel: Annotated[bool, Flag, Parameter(help="Take the title's plan back.")] = False,
    tracker_api: TrackerApi = DEFAULT,
    json: Json = False,
) -> None:
    """Have a title on edges before its release, or list such plans.

    `penstock place "The Film" --before 2026-12-24T20:00` orders it in time, by how long it is and what
    the edges can send. Without a title all plans are listed, with every edge's progress. A plan ends by
    itself after the release: the title keeps its place as long as viewers want it.
    """
    from tracker.api_client import Api

    api = Api(tracker_api)
    if title is None:
        _no_title(before, regions, edges, cancel or None)
        _list(api, json)
    elif cancel:
        _cancel(api, title, (before, regions, edges), json)
    else:
        _add(api, title, before, regions, edges, json)


def _no_title(*others: object) -> None:
    from shared.core.errors import ConfigError

    if any(other is not None for other in others):
        raise ConfigError('penstock place: which title? penstock place "TITLE" --before 2026-12-24T20:00')


def _list(api: Api, json: bool) -> None:
    from tracker.desk_views import PlanPage
    from tracker.plain_table import table

    page = api.get("plans", PlanPage, limit=PAGE)
    if json:
        print(_encoded(page))
    elif not page.plans:
        print('no plans; penstock place "TITLE" --before 2026-12-24T20:00 makes one')
    else:
        print(table(HEAD, _rows(page)))
        if page.total > len(page.plans):
            print(f"... and {page.total - len(page.plans)} more; the API has pages")


def _rows(page: PlanPage) -> Iterator[tuple[str, ...]]:
    from tracker.moment import local

    for plan in page.plans:
        head = (plan.title, local(plan.release_at), plan.state)
        if not plan.copies:
            wanted = f"on {plan.edges} edges" if plan.edges else ", ".join(plan.regions)
            yield (*head, f"(orders from {local(plan.begins_at)})", wanted, "", "")
        for copy in plan.copies:
            stage = f"{copy.stage}: {copy.reason}" if copy.reason else copy.stage
            own = "" if copy.wanted else " (not planned)"
            yield (*head, copy.edge[:16], copy.region, stage + own, f"{copy.permille / 10:.0f} %")
            head = ("", "", "")


def _cancel(api: Api, title: str, others: Sequence[object], json: bool) -> None:
    from shared.core.errors import ConfigError
    from tracker.desk_views import PlanView

    if any(other is not None for other in others):
        raise ConfigError("--cancel: takes a plan back; leave --before, --regions and --edges away")
    plan = api.delete("plans", PlanView, title=title)
    print(_encoded(plan) if json else f"{plan.title} ({plan.title_id}) has no plan any more")


def _add(
    api: Api, title: str, before: str | None, regions: str | None, edges: int | None, json: bool
) -> None:
    import time

    from shared.core.errors import ConfigError
    from tracker.desk_views import PlanView
    from tracker.moment import local, parse_moment

    if before is None:
        raise ConfigError("--before: when must the title be there? Such as --before 2026-12-24T20:00")
    moment = parse_moment(before, "--before", time.time())
    if edges is not None and regions is not None:
        raise ConfigError("--edges: say how many, or which --regions, not both")
    if edges is not None and edges < 1:
        raise ConfigError("--edges: expected a number from 1")
    wish: dict[str, object] = {"title": title, "release_at": moment.at, "edges": edges or 0}
    wish["regions"] = [region.strip() for region in (regions or "").split(",") if region.strip()]
    plan = api.post("plans", PlanView, wish)
    if json:
        print(_encoded(plan))
        return
    begins = "now" if plan.begins_at <= time.time() else f"at {local(plan.begins_at)}"
    print(f"{plan.title} ({plan.title_id}) will be on edges before {moment.said}; orders begin {begins}")


def _encoded(view: PlanPage | PlanView) -> str:
    import msgspec

    return msgspec.json.encode(view).decode()
