"""The demo's tables: the swarm while it watches, and how it went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from peer.demo.viewers import Viewer

MAP_CELLS = 16
WIDE_COLUMNS = 96  # from here on the map has its full width
_SHADES = {"p": "green", "e": "dark_orange", "1": "cyan"}
_LEGEND = (("p", "from viewers"), ("e", "from the edge"))


def swarm(viewers: Sequence[Viewer], share: float, names: Mapping[str, str], columns: int) -> Group:
    """Who holds what, from whom, and how fast; `names` gives nodes' names, by hexadecimal id."""
    cells = MAP_CELLS if columns >= WIDE_COLUMNS else MAP_CELLS // 2
    table = Table(
        Column("viewer", width=8),
        Column("watched", width=8, justify="right"),
        Column("holds", width=cells + 5),
        Column("down", width=5, justify="right"),
        Column("up", width=5, justify="right"),
        Column("cap", width=5, justify="right"),
        Column("took from", ratio=1, no_wrap=True, overflow="ellipsis"),
        box=box.SIMPLE_HEAD,
        expand=True,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for viewer in viewers:
        table.add_row(*_row(viewer, names, cells))
    return Group(Text(f"offload {share:.0%}", style="bold"), table, _legend())


def _row(viewer: Viewer, names: Mapping[str, str], cells: int) -> tuple[str | Text, ...]:
    rates = (_mbit(float(viewer.peer.get(key, 0))) for key in ("down_rate", "up_rate", "cap_rate"))
    return (
        Text.assemble(f"{viewer.name:<4}", (viewer.kind, "dim")),
        _watched(viewer),
        piece_map(str(viewer.film.get("held", "")), cells) + f" {viewer.held_share:4.0%}",
        *rates,
        _took(viewer, names),
    )


def _watched(viewer: Viewer) -> str:
    experience = viewer.experience
    if experience is None:
        return "not yet"
    return f"{experience.shown_seconds:.0f}/{experience.total_seconds:.0f} s"


def _took(viewer: Viewer, names: Mapping[str, str]) -> Text:
    if viewer.failure or viewer.silent:
        return Text(viewer.failure or "does not answer", style="red")
    total = sum(viewer.taken.values())
    order = sorted(viewer.taken.items(), key=lambda one: -one[1])
    parts = (f"{names.get(node, node[:8])} {taken / total:.0%}" for node, taken in order if taken)
    return Text(" ".join(parts))


def piece_map(held: str, cells: int) -> Text:
    """`held` (a character per piece, as the door tells it) in `cells` cells, coloured by where most
    of a cell's pieces came from; a cell is full when all its pieces are held."""
    drawn = Text()
    for cell in range(cells):
        part = held[cell * len(held) // cells : max(cell + 1, (cell + 1) * len(held) // cells)]
        here = part.replace(".", "")
        if not here:
            drawn.append("·", "dim")
        else:
            most = max(_SHADES, key=here.count)
            drawn.append("█" if len(here) == len(part) else "▒", _SHADES[most])
    return drawn


def _legend() -> Text:
    parts: list[tuple[str, str]] = []
    for origin, words in _LEGEND:
        parts += [("█", _SHADES[origin]), (f" {words}  ", "dim")]
    return Text.assemble(*parts, ("rates in Mbit/s; cap: 60 % of the uplink", "dim"))


def results(told: Iterable[Mapping[str, Any]], share: float) -> Group:
    """How it went, viewer by viewer."""
    words = ("viewer", "start-up", "stalls", "from edge", "from viewers", "uploaded", "verified")
    table = Table(
        *(Column(word, justify="left" if word == "viewer" else "right") for word in words),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    whole = True
    for one in told:
        whole = whole and bool(one["verified"])
        table.add_row(*_result(one))
    end = "every viewer got every byte, verified" if whole else "NOT every viewer got every byte"
    line = f"offload {share:.0%}: that share of all bytes came from other viewers; {end}"
    return Group(table, Text(line, style="bold" if whole else "bold red"))


def _result(one: Mapping[str, Any]) -> tuple[str | Text, ...]:
    startup = one["startup_seconds"]
    return (
        Text.assemble(f"{one['name']:<4}", (str(one["kind"]), "dim")),
        "never" if startup is None else f"{startup:.2f} s",
        str(one["stalls"]),
        *(f"{one[key] / 1e6:.1f} MB" for key in ("edge_bytes", "peer_bytes", "uploaded_bytes")),
        Text("yes", "green") if one["verified"] else Text("NO", "bold red"),
    )


def _mbit(rate: float) -> str:
    return f"{rate * 8 / 1e6:.1f}"
