"""One look without a screen: a text table or JSON, for pipes and scripts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx2
import msgspec
from rich.cells import cell_len

from shared.cli import printable
from tracker.tui.columns import NODES, SWARMS, Column, Row, heading, sorted_rows
from tracker.tui.feed import Feed, Snapshot

MAX_ADDRESS = 400
_ALONE = ("the central tier is not reached: this region goes on alone",)


def look(api: str, transport: httpx2.AsyncBaseTransport | None = None) -> Snapshot:
    """The tracker now. Raises LocalError or ProtocolError."""

    async def fetch() -> Snapshot:
        async with Feed(api, transport) as feed:
            return await feed.fetch()

    return asyncio.run(fetch())


def as_json(snapshot: Snapshot) -> str:
    """One line of JSON: overview, nodes, swarms as the API has them."""
    return msgspec.json.encode(snapshot).decode()


def as_text(snapshot: Snapshot) -> str:
    """The totals and both tables."""
    counts, sums = heading(snapshot)
    nodes, swarms = snapshot.nodes, snapshot.swarms
    return "\n".join(
        (
            *(_ALONE if snapshot.overview.alone else ()),
            printable(snapshot.overview.address)[:MAX_ADDRESS],
            counts,
            sums,
            "",
            f"{len(nodes.nodes)} of {nodes.total} nodes (rates in Mbit/s)",
            *_table(nodes.nodes, NODES),
            "",
            f"{len(swarms.swarms)} of {swarms.total} swarms",
            *_table(swarms.swarms, SWARMS),
        )
    )


def _table(rows: Sequence[Row], columns: Sequence[Column[Row]]) -> list[str]:
    ordered = sorted_rows(rows, columns[0])
    cells = [[column.name for column in columns], *([c.cell(row) for c in columns] for row in ordered)]
    widths = [max(cell_len(line[place]) for line in cells) for place in range(len(columns))]
    return [
        "  ".join(_padded(*each) for each in zip(line, widths, columns, strict=True)).rstrip()
        for line in cells
    ]


def _padded(cell: str, width: int, column: Column[Row]) -> str:
    gap = " " * (width - cell_len(cell))
    return gap + cell if column.is_number else cell + gap
