"""The two tables of `penstock top`: for each column what a cell shows and how rows are sorted.

Rates are shown in Mbit/s, as lines are sold; amounts in bytes with decimal prefixes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.cli import printable
from tracker.tui.feed import Snapshot
from tracker.views import NodeView, ReportView, SwarmView

Row = TypeVar("Row")

MAX_CELL = 60
SHORT_ID = 8
BAR_CELLS = 10


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column. Numbers stand to the right and sort largest first."""

    name: str
    cell: Callable[[Row], str]
    rank: Callable[[Row], float | str]
    is_number: bool = True
    is_extra: bool = False  # shown where there is room


def sorted_rows(rows: Sequence[Row], column: Column[Row]) -> list[Row]:
    """Rows in the order of a column."""
    return sorted(rows, key=column.rank, reverse=column.is_number)


def clean(text: str) -> str:
    """A text from outside as one cell: no control characters, not endless."""
    shown = printable(text)
    return shown if len(shown) <= MAX_CELL else f"{shown[: MAX_CELL - 1]}…"


def megabits(rate: float) -> str:
    """Bytes per second as Mbit/s, in five cells up to 100 Gbit/s."""
    shown = rate * 8 / 1e6
    return f"{shown:.2f}" if shown < 99.995 else f"{shown:.1f}" if shown < 999.95 else f"{shown:.0f}"


def amount(size: float) -> str:
    """Bytes in three digits and a prefix: `1.23G`."""
    for prefix in ("", "k", "M", "G", "T"):
        if size < 999.5:
            return f"{size:.0f}{prefix}" if not prefix or size >= 99.95 else f"{size:.1f}{prefix}"
        size /= 1000
    return f"{size:.0f}P"


def bar(share: float) -> str:
    """A share from 0 to 1 as a bar and per cent."""
    share = min(1.0, max(0.0, share))
    full = int(share * BAR_CELLS)  # full only when everything is there
    return f"{'█' * full}{'░' * (BAR_CELLS - full)} {int(share * 100):3}%"


def heading(snapshot: Snapshot) -> tuple[str, str]:
    """The totals in two lines of under 80 cells."""
    seen = snapshot.overview
    counts = (
        f"viewers {seen.viewers}  edges {seen.edges}  swarms {seen.swarms}  titles {seen.titles}  "
        f"redirects {seen.redirects}  refusals {seen.refusals}"
    )
    sums = (
        f"offload {seen.offload * 100:.1f}%  down {megabits(seen.down_rate)}  "
        f"up {megabits(seen.up_rate)} Mbit/s  edge {amount(seen.edge_bytes)}  "
        f"peers {amount(seen.peer_bytes)}  stalls {seen.stalls}"
    )
    return counts, sums


def _cap_use(report: ReportView) -> float:
    return report.up_rate / report.cap_rate if report.cap_rate else -1.0


def _of_report(
    name: str, value: Callable[[ReportView], float], show: Callable[[float], str]
) -> Column[NodeView]:
    """A column of the nodes' reports; empty for a node that sent none, which sorts last."""
    return Column(
        name,
        lambda node: show(value(node.report)) if node.report else "-",
        lambda node: value(node.report) if node.report else -2.0,
    )


def _count(number: float) -> str:
    return f"{number:.0f}"


def _sources(node: NodeView) -> str:
    """The largest sources with their part of what was taken."""
    if node.report is None:
        return ""
    taken = (node.report.edge_bytes + node.report.peer_bytes) or 1
    return clean(
        ", ".join(f"{s.node[:SHORT_ID]} {s.taken_bytes * 100 // taken}%" for s in node.report.shares[:3])
    )


NODES: tuple[Column[NodeView], ...] = (
    Column("node", lambda n: clean(n.id[:SHORT_ID]), lambda n: n.id, is_number=False),
    Column("kind", lambda n: clean(n.kind), lambda n: n.kind, is_number=False),
    Column("mode", lambda n: clean(n.mode), lambda n: n.mode, is_number=False),
    _of_report("up", lambda r: r.up_rate, megabits),
    _of_report("down", lambda r: r.down_rate, megabits),
    _of_report("cap", lambda r: r.cap_rate, lambda rate: megabits(rate) if rate else "none"),
    _of_report("use", _cap_use, lambda share: f"{share * 100:.0f}%" if share >= 0 else "-"),
    _of_report("edge", lambda r: r.edge_bytes, amount),
    _of_report("peers", lambda r: r.peer_bytes, amount),
    _of_report("given", lambda r: r.uploaded_bytes, amount),
    _of_report("stall", lambda r: r.stalls, _count),
    _of_report("src", lambda r: len(r.shares), _count),
    Column("swarms", lambda n: str(n.swarms), lambda n: n.swarms, is_extra=True),
    Column("largest sources", _sources, _sources, is_number=False, is_extra=True),
    Column("region", lambda n: clean(n.region), lambda n: n.region, is_number=False, is_extra=True),
    Column("address", lambda n: clean(n.at), lambda n: n.at, is_number=False, is_extra=True),
    Column("software", lambda n: clean(n.software), lambda n: n.software, is_number=False, is_extra=True),
)

SWARMS: tuple[Column[SwarmView], ...] = (
    Column("title", lambda s: clean(s.title), lambda s: s.title.casefold(), is_number=False),
    Column("seeders", lambda s: str(s.seeders), lambda s: s.seeders),
    Column("leechers", lambda s: str(s.leechers), lambda s: s.leechers),
    Column("viewers", lambda s: str(s.viewers), lambda s: s.viewers),
    Column("viewers hold", lambda s: bar(s.viewers_held), lambda s: s.viewers_held),
    Column("size", lambda s: amount(s.length), lambda s: s.length),
    Column("rendition", lambda s: clean(s.name), lambda s: s.name, is_number=False, is_extra=True),
    Column(
        "swarm", lambda s: clean(s.infohash[:SHORT_ID]), lambda s: s.infohash, is_number=False, is_extra=True
    ),
)
