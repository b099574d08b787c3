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
