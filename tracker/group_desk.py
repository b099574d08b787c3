"""Publishers, groups and kept titles over HTTP: in the database first, then in the core, then answered.

A viewer who is taken out of a group gets no new ticket from that moment on; the one it may have runs
out within ten minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import trio
from starlette.requests import Request
from starlette.routing import Route

from shared.core.ids import NodeId, parse_node_id
from tracker import query
from tracker.answers import route
from tracker.core.tracker import Tracker
from tracker.dbs import groups
from tracker.dbs.groups import GroupRow
from tracker.desk_views import (
    GroupPage,
    GroupView,
    KeptPage,
    KeptView,
    MemberPage,
    PublisherPage,
    PublisherView,
)  # fmt: skip
from tracker.store import Store
from tracker.title_search import find_title

MAX_NODES_AT_ONCE = 10_000  # in one request; its body is bounded as well
MAX_GROUPS_OF_TITLE = 100


class NameWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A publisher's name."""

    publisher: str
    name: str


class GroupWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A new group; without a publisher, of the only one there is."""

    name: str
    publisher: str = ""


class MemberWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who shall be in a group, and who no longer."""

    group: str
    add: list[str] = []
    remove: list[str] = []


class KeepWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The groups that a title is kept to; None: it is for everybody."""

    title: str
    groups: list[str] | None


class GroupDesk:
    """Changes groups for whoever may ask; call `load` before anybody does."""

    def __init__(self, core: Tracker, store: Store) -> None:
        self._core = core
        self._store = store
        self._turn = trio.Lock()  # the core hears of changes in the order in which they are stored

    async def load(self) -> None:
        """Tells the core what the database has. Raises StoreError."""
        for number, members in (await self._store.write(groups.read_members)).items():
            self._core.groups.set_members(str(number), members)
        for title_id, numbers in (await self._store.write(groups.read_kept)).items():
            self._core.groups.keep(title_id, [str(number) for number in numbers])

    def routes(self, *, may_change: bool) -> Sequence[Route]:
        """The doors."""
        asks = {
            "publishers": self._publishers,
            "groups": self._groups,
            "members": self._members,
            "kept": self._kept,
        }
        changes = {
            "publishers": self._name,
            "groups": self._create,
            "members": self._change,
            "kept": self._keep,
        }
        return [
            *(route(f"/api/v1/{path}", "GET", handler) for path, handler in asks.items()),
            *(
                route(f"/api/v1/{path}", "POST", handler, may_change=may_change)
                for path, handler in changes.items()
            ),
            route("/api/v1/groups", "DELETE", self._remove, may_change=may_change),
        ]

    # -- asking -----------------------------------------------------------------------------------

    async def _publishers(self, request: Request) -> PublisherPage:
        query.only(request, "skip", "limit")
        skip, limit = query.bounds(request)
        total, rows = await self._store.read(groups.list_publishers, skip, limit)
        views = [PublisherView(row.publisher.hex(), row.name, row.titles, row.groups) for row in rows]
        return PublisherPage(total, skip, limit, views)

    async def _groups(self, request: Request) -> GroupPage:
        query.only(request, "skip", "limit")
        skip, limit = query.bounds(request)
        total, rows = await self._store.read(groups.list_groups, skip, limit)
        return GroupPage(total, skip, limit, [_view(row) for row in rows])

    async def _members(self, request: Request) -> MemberPage:
        query.only(request, "group", "skip", "limit")
        skip, limit = query.bounds(request)
        group = query.text_of(request, "group")
        total, nodes = await self._store.read(groups.list_members, group, skip, limit)
        return MemberPage(total, skip, limit, [node.hex() for node in nodes])

    async def _kept(self, request: Request) -> KeptPage:
        query.only(request, "skip", "limit")
        skip, limit = query.bounds(request)
        total, rows = await self._store.read(groups.list_kept, skip, limit)
        views = [KeptView(row.title_id.hex(), row.title, list(row.groups)) for row in rows]
        return KeptPage(total, skip, limit, views)

    # -- changing ---------------------------------------------------------------------------------

    async def _name(self, request: Request) -> PublisherView:
        query.only(request)
        wish = await query.body_of(request, NameWish)
        publisher = parse_node_id(wish.publisher)
        await self._store.write(groups.name_publisher, publisher, wish.name)
        return PublisherView(publisher.hex(), wish.name, 0, 0)

    async def _create(self, request: Request) -> GroupView:
        query.only(request)
        wish = await query.body_of(request, GroupWish)
        return _view(await self._store.write(groups.create_group, wish.name, wish.publisher))

    async def _remove(self, request: Request) -> GroupView:
        query.only(request, "group")
        name = query.text_of(request, "group")
        async with self._turn:
            group = await self._store.write(groups.remove_group, name)
            self._core.groups.remove(str(group.number))
        return _view(group)

    async def _change(self, request: Request) -> GroupView:
        query.only(request)
        wish = await query.body_of(request, MemberWish)
        query.at_most(MAX_NODES_AT_ONCE, add=wish.add, remove=wish.remove)
        added, removed = _nodes(wish.add), _nodes(wish.remove)
        async with self._turn:
            group = await self._store.write(groups.change_members, wish.group, added, removed)
            self._core.groups.change(str(group.number), added, removed)
        return _view(group)

    async def _keep(self, request: Request) -> KeptView:
        query.only(request)
        wish = await query.body_of(request, KeepWish)
        entry = find_title(self._core.titles, wish.title)
        async with self._turn:
            if wish.groups is None:
                await self._store.write(groups.open_title, entry.title_id)
                self._core.groups.open(entry.title_id)
            else:
                query.at_most(MAX_GROUPS_OF_TITLE, groups=wish.groups)
                numbers = await self._store.write(groups.keep_title, entry.title_id, wish.groups)
                self._core.groups.keep(entry.title_id, [str(number) for number in numbers])
        return KeptView(entry.title_id.hex(), entry.title, wish.groups or [])


def _nodes(texts: Sequence[str]) -> list[NodeId]:
    return [parse_node_id(text) for text in texts]


def _view(row: GroupRow) -> GroupView:
    return GroupView(row.name, row.publisher.hex(), row.publisher_name, row.members, row.titles)
