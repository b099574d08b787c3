"""The live screen. It shows snapshots and nothing else; a tracker that is away is said, and asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar, Generic

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from shared.cli import printable
from shared.core.errors import PenstockError
from tracker.tui.columns import NODES, SWARMS, Column, Row, heading, sorted_rows
from tracker.tui.feed import Feed, Snapshot

COMPACT_CELLS = 120  # narrower screens show no extra columns, closer together
COMPACT_CELL = 24  # and no cell longer than this

HELP = """\
  q      quit
  p      pause, or go on
  s      sort by the next column (of the table you are in)
  Tab    the other table
  ?      this page; any key leaves it

  Rates (up, down, cap) are in Mbit/s; amounts in bytes since the node's start.
  use    part of the upload cap in use
  edge   bytes taken from edges          peers  bytes taken from peers
  given  bytes uploaded to others        src    sources taken from
  stall  times that playback stood still
"""


class HelpScreen(ModalScreen[None]):
    """The keys and the columns."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen Static { width: auto; height: auto; border: round $primary; padding: 0 1; }
    """

    def compose(self) -> ComposeResult:
        yield Static(Text(HELP.rstrip()))

    def on_key(self) -> None:
        self.dismiss()


class ColumnTable(DataTable[Text], Generic[Row]):
    """A table of views, rebuilt from each snapshot; the row under the cursor stays under it."""

    def __init__(self, columns: Sequence[Column[Row]], key: str, name: str) -> None:
        super().__init__(id=name, cursor_type="row", zebra_stripes=True)
        self._shown = columns
        self._key = key
        self._sort = 0
        self._was_compact = True
        self._rows: Sequence[Row] = ()
        self._total = 0
        self.border_title = name

    def show(self, rows: Sequence[Row], total: int) -> None:
        """Shows these rows, of `total` that there are."""
        # A tracker names nobody twice; what merely answers like one must not break the table.
        self._rows = list({getattr(row, self._key): row for row in rows}.values())
        self._total = total
        self._redraw()

    def sort_by_next(self) -> None:
        """Sorts by the column after the current one, round and round."""
        self._sort = (self._sort + 1) % len(self._fitting())
        self._redraw()

    def on_resize(self, event: Resize) -> None:
        if self._is_compact() != self._was_compact:
            self._sort = min(self._sort, len(self._fitting()) - 1)
            self._redraw()

    def _is_compact(self) -> bool:
        return self.app.size.width < COMPACT_CELLS

    def _fitting(self) -> list[Column[Row]]:
        return [column for column in self._shown if not (column.is_extra and self._is_compact())]

    def _redraw(self) -> None:
        columns = self._fitting()
        at, below = self._key_at_cursor(), self.scroll_offset
        self._was_compact = self._is_compact()
        self.cell_padding, gap = (0, " ") if self._was_compact else (1, "")
        with self.app.batch_update():
            self.clear(columns=True)
            for place, column in enumerate(columns):
                self.add_column(_text(column, gap + _label(column, place == self._sort)), key=column.name)
            for row in sorted_rows(self._rows, columns[self._sort]):
                shown = (_text(column, gap + self._cut(column.cell(row))) for column in columns)
                self.add_row(*shown, key=getattr(row, self._key))
            self._put_cursor(at)
            self.scroll_to(below.x, below.y, animate=False)
        part = f"{len(self._rows)} of {self._total}" if self._total != len(self._rows) else f"{self._total}"
        self.border_title = f"{self.id} ({part})"

    def _cut(self, cell: str) -> str:
        is_long = self._was_compact and len(cell) > COMPACT_CELL
        return f"{cell[: COMPACT_CELL - 1]}…" if is_long else cell

    def _key_at_cursor(self) -> str | None:
        if not self.is_valid_coordinate(self.cursor_coordinate):
            return None
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value

    def _put_cursor(self, key: str | None) -> None:
        if key is not None and key in self.rows:
            self.move_cursor(row=self.get_row_index(key), scroll=False)


class TopApp(App[None]):
    """`penstock top`. Takes over the feed and closes it."""

    CSS = """
    #heading { height: 3; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    ColumnTable { height: 1fr; border: round $panel; scrollbar-size: 1 1; }
    ColumnTable:focus { border: round $primary; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("p", "pause", "Pause"),
        Binding("s", "sort", "Sort"),
        Binding("tab", "app.focus_next", "Other table"),
        Binding("question_mark", "help", "Help"),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, feed: Feed, interval_seconds: float = 1.0) -> None:
        super().__init__()
        self._feed = feed
        self._interval_seconds = interval_seconds
        self._is_paused = False
        self._snapshot: Snapshot | None = None
        self._trouble = ""
        self._heading = Static(id="heading")
        self._node_table = ColumnTable(NODES, "id", "nodes")
        self._swarm_table = ColumnTable(SWARMS, "infohash", "swarms")

    def compose(self) -> ComposeResult:
        yield self._heading
        yield self._node_table
        yield self._swarm_table
        yield Footer()

    def on_mount(self) -> None:
        self._node_table.focus()
        self._say()
        self.run_worker(self._watch())

    async def _watch(self) -> None:
        async with self._feed:
            while True:
                if not self._is_paused:
                    await self.poll()
                await asyncio.sleep(self._interval_seconds)

    async def poll(self) -> None:
        """Asks the tracker once, and shows what it said or that it said nothing."""
        try:
            snapshot = await self._feed.fetch()
        except PenstockError as error:
            self._trouble = printable(str(error))
        else:
            self._trouble = ""
            self._snapshot = snapshot
            self._node_table.show(snapshot.nodes.nodes, snapshot.nodes.total)
            self._swarm_table.show(snapshot.swarms.swarms, snapshot.swarms.total)
        self._say()

    def _say(self) -> None:
        state = "paused" if self._is_paused else "waiting" if self._snapshot is None else "live"
        if self._snapshot is not None and self._snapshot.overview.alone:
            state += "  the central tier is not reached: this region goes on alone"
        first = Text(f"{self._feed.api}  {state}", style="bold")
        if self._trouble:
            first = Text(f"asking again: {self._trouble}", style="bold red")
        lines = heading(self._snapshot) if self._snapshot else ("", "")
        shown = Text("\n").join((first, *(Text(line) for line in lines)))
        self._heading.update(shown)

    def action_pause(self) -> None:
        self._is_paused = not self._is_paused
        self._say()

    def action_sort(self) -> None:
        (self._swarm_table if self._swarm_table.has_focus else self._node_table).sort_by_next()

    def action_help(self) -> None:
        self.push_screen(HelpScreen())


def _label(column: Column[Row], is_sorted: bool) -> str:
    return f"{column.name}{('▼' if column.is_number else '▲') if is_sorted else ''}"


def _text(column: Column[Row], text: str) -> Text:
    is_bad = column.name == "stall" and text.strip("0123456789 ") == "" != text.strip("0 ")
    return Text(text, justify="right" if column.is_number else "left", style="bold red" if is_bad else "")
