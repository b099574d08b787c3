"""Who may watch what: a title may be kept to groups of viewers, and is for everybody otherwise."""

from __future__ import annotations

from collections.abc import Collection

from shared.core.ids import NodeId, TitleId


class Groups:
    """Members of groups, and the groups that titles are kept to."""

    def __init__(self) -> None:
        self._members: dict[str, frozenset[NodeId]] = {}
        self._kept_to: dict[TitleId, frozenset[str]] = {}

    def set_members(self, group: str, members: Collection[NodeId]) -> None:
        """Who is in a group, instead of who was."""
        self._members[group] = frozenset(members)

    def change(self, group: str, added: Collection[NodeId], removed: Collection[NodeId]) -> None:
        """Some more are in a group, and some no longer."""
        self._members[group] = self._members.get(group, frozenset()) - frozenset(removed) | frozenset(added)

    def remove(self, group: str) -> None:
        """The group is no more; nobody is in it."""
        self._members.pop(group, None)

    def keep(self, title: TitleId, groups: Collection[str]) -> None:
        """Keeps a title to groups; to none of them is to nobody but its signer."""
        self._kept_to[title] = frozenset(groups)

    def open(self, title: TitleId) -> None:
        """The title is for everybody."""
        self._kept_to.pop(title, None)

    def is_open(self, title: TitleId) -> bool:
        """Whether the title is for everybody."""
        return title not in self._kept_to

    def may_watch(self, title: TitleId, signer: NodeId, viewer: NodeId) -> bool:
        """Whether a ticket may be made out; the edge that signed a title always gets one."""
        groups = self._kept_to.get(title)
        if groups is None or viewer == signer:
            return True
        return any(viewer in self._members.get(group, ()) for group in groups)
