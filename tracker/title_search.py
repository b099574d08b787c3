"""Finds the title that a person means: by id, by address, or by its display title.

Only titles that were registered here: nothing of what is borrowed from another region is in our database.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from shared.core.errors import LocalError
from shared.core.ids import SCHEME, TitleId, parse_address, parse_title_id
from shared.core.messages import Entry
from tracker.core.titles import Titles
from tracker.dbs.refusals import NotSo, NotThere

LOOKED_AT = 2000  # newest titles among which near matches are sought: it must not keep others waiting
SHOWN = 4


def find_title(titles: Titles, text: str) -> Entry:
    """The one title. Raises NotThere with near matches, NotSo if several have this name or it is borrowed."""
    entries = titles.entries
    wanted = _id_of(text)
    if wanted is not None:
        entry = entries.get(wanted)
        if entry is None:
            raise NotThere(f"there is no title {wanted.hex()} here")
        return _own(titles, entry)
    named = [entry for entry in entries.values() if entry.title == text]
    found = [entry for entry in named if entry.title_id not in titles.borrowed] or named
    if len(found) > 1:
        raise NotSo(f"{len(found)} titles are called {text[:80]!r}; give the id: {_listed(found)}")
    if not found:
        near = _near(entries, text)
        hint = f"; did you mean {_listed(near)}?" if near else "; /api/v1/titles lists them"
        raise NotThere(f"there is no title {text[:80]!r} here{hint}")
    return _own(titles, found[0])


def _own(titles: Titles, entry: Entry) -> Entry:
    if entry.title_id in titles.borrowed:
        raise NotSo(f"{entry.title[:80]!r} is a title of another region; ask there")
    return entry


def _id_of(text: str) -> TitleId | None:
    try:
        if text.startswith(f"{SCHEME}://"):
            return parse_address(text).title
        return parse_title_id(text)
    except LocalError:
        return None


def _near(entries: dict[TitleId, Entry], text: str) -> list[Entry]:
    newest = list(islice(reversed(entries.values()), LOOKED_AT))
    wanted = text.casefold()[:200]
    inside = [entry for entry in newest if wanted in entry.title.casefold()]
    if inside:
        return inside[:SHOWN]
    names = {entry.title.casefold()[:200]: entry for entry in reversed(newest)}
    return [names[name] for name in get_close_matches(wanted, names, n=SHOWN)]


def _listed(entries: Iterable[Entry]) -> str:
    return ", ".join(f"{entry.title[:60]!r} ({entry.title_id.hex()})" for entry in islice(entries, SHOWN))
