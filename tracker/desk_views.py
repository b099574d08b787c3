"""What the API says of what operators change, as types: desks fill them in, commands read them.

Names, units and nesting as in `tracker/views.py`.
"""

from __future__ import annotations

import msgspec


class ErrorView(msgspec.Struct, frozen=True):
    """Why a request was not answered, in one line."""

    error: str


class PublisherView(msgspec.Struct, frozen=True):
    """Who signs titles."""

    publisher: str
    name: str  # may be empty
    titles: int
    groups: int


class PublisherPage(msgspec.Struct, frozen=True):
    """Part of the publishers, by name."""

    total: int
    skip: int
    limit: int
    publishers: list[PublisherView]


class GroupView(msgspec.Struct, frozen=True):
    """Viewers that titles can be kept to."""

    name: str
    publisher: str
    publisher_name: str
    members: int
    titles: int  # that are kept to it


class GroupPage(msgspec.Struct, frozen=True):
    """Part of the groups, by name."""

    total: int
    skip: int
    limit: int
    groups: list[GroupView]


class MemberPage(msgspec.Struct, frozen=True):
    """Part of a group's members, by node id."""

    total: int
    skip: int
    limit: int
    members: list[str]


class KeptView(msgspec.Struct, frozen=True):
    """A title that is not for everybody; without groups, only its publisher has it."""

    title_id: str
    title: str
    groups: list[str]


class KeptPage(msgspec.Struct, frozen=True):
    """Part of the titles that are kept to groups, newest first."""

    total: int
    skip: int
    limit: int
    kept: list[KeptView]


class CopyView(msgspec.Struct, frozen=True):
    """How far one edge is with a planned title."""

    edge: str
    region: str
    wanted: bool  # else it holds the title all the same
    stage: str  # held, fetching, accepted, ordered, declined, waiting (for its order), away
    permille: int  # of all renditions' bytes
    reason: str  # why it declined


class PlanView(msgspec.Struct, frozen=True):
    """A title that is to be on edges before a moment."""

    number: int
    title_id: str
    title: str
    release_at: float
    made_at: float
    edges: int  # how many were asked for; 0: as many as its heat asks
    regions: list[str]  # empty: anywhere
    state: str  # waiting, placing, placed, released; of ended ones cancelled, replaced, released
    begins_at: float  # when orders go out, by what edges can send now
    ended_at: float  # 0: it has not
    length_bytes: int  # of one copy, all renditions
    copies: list[CopyView]


class PlanPage(msgspec.Struct, frozen=True):
    """Part of the plans: open ones by their moment, ended ones latest first."""

    total: int
    skip: int
    limit: int
    plans: list[PlanView]


class PlacementRowView(msgspec.Struct, frozen=True):
    """What an edge holds or was ordered, since when, and how it ended."""

    edge: str
    infohash: str
    stage: str
    since_at: float
    reason: str
    ordered_at: float  # 0: not by order
    before_at: float


class PlacementPage(msgspec.Struct, frozen=True):
    """Part of the record of placement, what changed last first."""

    total: int
    skip: int
    limit: int
    placement: list[PlacementRowView]


class UsageView(msgspec.Struct, frozen=True):
    """What one title, publisher, region or day was used."""

    key: str  # an id, a region's name, or a day such as 2026-12-24
    name: str  # of the title or publisher; empty if it has none, or is in the catalogue no more
    edge_bytes: int  # that viewers say they took from edges
    peer_bytes: int  # and from peers
    uploaded_bytes: int  # that viewers say they gave to others
    redirects: int  # answers to where the title is; a viewer who goes on watching asks every few minutes
    viewers: int  # different nodes that asked, each counted once a title and day


class UsagePage(msgspec.Struct, frozen=True):
    """Usage from one day to another, both included; days are days in UTC."""

    by: str
    first_day: str
    last_day: str
    total: int
    skip: int
    limit: int
    usage: list[UsageView]
