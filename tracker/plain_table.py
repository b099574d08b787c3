"""Tables in plain text, for commands: cells from outside are made printable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from shared.cli import printable

MAX_CELL = 80


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their longest cell, two spaces between them."""
    lines = [list(head), *([printable(cell)[:MAX_CELL] for cell in row] for row in rows)]
    widths = [max(cell_len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join("  ".join(map(_padded, line, widths)).rstrip() for line in lines)


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - cell_len(cell))
