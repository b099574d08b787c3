"""`penstock group`: publishers, groups, who may watch what. What is heavy is imported when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from msgspec import Struct

    from shared.core.ids import NodeId
    from tracker.api_client import Api

AT_ONCE = 5000  # members in one request

TrackerApi = Annotated[str, Parameter(help="The tracker's API.")]
Json = Annotated[bool, Parameter(negative=(), show_default=False, help="One line of JSON.")]
Nodes = Annotated[
    list[str] | None,
    Parameter(
        negative=(), show_default=False, help="Node ids, as `penstock publish --print-id` prints them."
    ),
]
Names = Annotated[list[str], Parameter(negative=())]
Csv = Annotated[
    Path | None, Parameter(help="A file of node ids, one a line; what follows a comma is for people.")
]
DEFAULT = "http://127.0.0.1:8430"
PAGE = 500


def register(app: App) -> None:
    """Adds `penstock group`."""
    group = App(
        name="group",
        help="Say who may watch what: groups of viewers, and the titles kept to them.\n\n"
        "`penstock group create family`, `penstock group add family --csv family.csv`, then "
        '`penstock group keep "The Film" family`. Others get no ticket from then on.',
    )
    group.default(show)
    for command in (create, remove, add, drop, members, keep, open_, kept, publishers, publisher):
        group.command(command, name=command.__name__.rstrip("_"))
    app.command(group)


def show(*, tracker_api: TrackerApi = DEFAULT, json: Json = False) -> None:
    """List the groups."""
    from tracker.desk_views import GroupPage

    page = _api(tracker_api).get("groups", GroupPage, limit=PAGE)
    rows = [(g.name, g.publisher_name or g.publisher, str(g.members), str(g.titles)) for g in page.groups]
    _say(page, json, ("group", "publisher", "members", "titles kept to it"), rows, page.total)


def create(
    name: Annotated[str, Parameter(help="The group's name.")],
    /,
    *,
    publisher: Annotated[str, Parameter(help="Whose it is, name or id, if there are several.")] = "",
    tracker_api: TrackerApi = DEFAULT,
) -> None:
    """Make a group, without members."""
    from tracker.desk_views import GroupView

    made = _api(tracker_api).post("groups", GroupView, {"name": name, "publisher": publisher})
    _print(f"group {made.name} of publisher {made.publisher_name or made.publisher}")


def remove(name: str, /, *, tracker_api: TrackerApi = DEFAULT) -> None:
    """End a group to which no title is kept. NAME, or PUBLISHER/NAME."""
    from tracker.desk_views import GroupView

    _print(f"group {_api(tracker_api).delete('groups', GroupView, group=name).name} is no more")


def add(group: str, nodes: Nodes = None, /, *, csv: Csv = None, tracker_api: TrackerApi = DEFAULT) -> None:
    """Put viewers into a group, by their node ids or from a CSV file."""
    _change(tracker_api, group, "add", _nodes(nodes, csv))


def drop(group: str, nodes: Nodes = None, /, *, csv: Csv = None, tracker_api: TrackerApi = DEFAULT) -> None:
    """Take viewers out of a group. They get no new ticket; the one they have runs out in ten minutes."""
    _change(tracker_api, group, "remove", _nodes(nodes, csv))


def members(group: str, /, *, tracker_api: TrackerApi = DEFAULT, json: Json = False) -> None:
    """List a group's members, one a line."""
    from tracker.desk_views import MemberPage

    api, skip = _api(tracker_api), 0
    while True:
        page = api.get("members", MemberPage, group=group, skip=skip, limit=PAGE)
        if json:
            _print(_encoded(page))
        elif page.members:
            _print("\n".join(page.members))
        skip += len(page.members)
        if skip >= page.total or not page.members:
            return


def keep(title: str, groups: Names, /, *, tracker_api: TrackerApi = DEFAULT) -> None:
    """Keep a title to these groups of its publisher, instead of to others."""
    from tracker.desk_views import KeptView

    made = _api(tracker_api).post("kept", KeptView, {"title": title, "groups": groups})
    _print(f"{made.title} ({made.title_id}) is kept to {', '.join(made.groups)}")


def open_(title: str, /, *, tracker_api: TrackerApi = DEFAULT) -> None:
    """Let everybody watch a title."""
    from tracker.desk_views import KeptView

    made = _api(tracker_api).post("kept", KeptView, {"title": title, "groups": None})
    _print(f"{made.title} ({made.title_id}) is for everybody")


def kept(*, tracker_api: TrackerApi = DEFAULT, json: Json = False) -> None:
    """List the titles that are kept to groups."""
    from tracker.desk_views import KeptPage

    page = _api(tracker_api).get("kept", KeptPage, limit=PAGE)
    rows = [(k.title, k.title_id, ", ".join(k.groups) or "nobody") for k in page.kept]
    _say(page, json, ("title", "id", "kept to"), rows, page.total)


def publishers(*, tracker_api: TrackerApi = DEFAULT, json: Json = False) -> None:
    """List who publishes here."""
    from tracker.desk_views import PublisherPage

    page = _api(tracker_api).get("publishers", PublisherPage, limit=PAGE)
    rows = [(p.publisher, p.name, str(p.titles), str(p.groups)) for p in page.publishers]
    _say(page, json, ("publisher", "name", "titles", "groups"), rows, page.total)


def publisher(
    id: Annotated[str, Parameter(help="The id of the edge that signs the publisher's titles.")],
    name: Annotated[str, Parameter(help="What people call it.")],
    /,
    *,
    tracker_api: TrackerApi = DEFAULT,
) -> None:
    """Give a publisher a name."""
    from tracker.desk_views import PublisherView

    made = _api(tracker_api).post("publishers", PublisherView, {"publisher": id, "name": name})
    _print(f"publisher {made.publisher} is {made.name}")


# -- parts ----------------------------------------------------------------------------------------


def _api(address: str) -> Api:
    from tracker.api_client import Api

    return Api(address)


def _change(address: str, group: str, how: str, nodes: list[NodeId]) -> None:
    from tracker.desk_views import GroupView

    api = _api(address)
    for start in range(0, len(nodes), AT_ONCE):
        texts = [node.hex() for node in nodes[start : start + AT_ONCE]]
        made = api.post("members", GroupView, {"group": group, how: texts})
    _print(f"group {made.name} has {made.members} members")


def _nodes(given: list[str] | None, csv: Path | None) -> list[NodeId]:
    from shared.core.errors import ConfigError
    from shared.core.ids import parse_node_id
    from tracker.member_file import read

    nodes = [parse_node_id(text) for text in given or ()]
    if csv is not None:
        nodes += read(csv)
    if not nodes:
        raise ConfigError("penstock group: name the viewers by their node ids, or give --csv FILE")
    return nodes


def _say(page: Struct, json: bool, head: tuple[str, ...], rows: Sequence[Sequence[str]], total: int) -> None:
    from tracker.plain_table import table

    if json:
        _print(_encoded(page))
        return
    _print(table(head, rows))
    if total > len(rows):
        _print(f"... and {total - len(rows)} more; the API has pages")


def _encoded(page: Struct) -> str:
    import msgspec

    return msgspec.json.encode(page).decode()


def _print(text: str) -> None:
    print(text)
