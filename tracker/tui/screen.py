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

COMPACT_CELLS = 120  # narrower screens show no extra columns, and stand closer

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
        self._rows: Sequence[Row] = ()
        self._total = 0
        self.border_title = name

    def show(self, rows: Sequence[Row], total: int) -> None:
        """Shows these rows, of `total` that there are."""
        self._rows, self._total = rows, total
        self._redraw()

    def sort_by_next(self) -> None:
        """Sorts by the column after the current one, round and round."""
        self._sort = (self._sort + 1) % len(self._fitting())
        self._redraw()

    def refit(self) -> None:
        """The screen has another width."""
        self._sort = min(self._sort, len(self._fitting()) - 1)
        self._redraw()

    def _is_compact(self) -> bool:
        return self.app.size.width < COMPACT_CELLS

    def _fitting(self) -> list[Column[Row]]:
        return [column for column in self._shown if not (column.is_extra and self._is_compact())]

    def _redraw(self) -> None:
        columns = self._fitting()
        at, below = self._key_at_cursor(), self.scroll_offset
        self.cell_padding = 0 if self._is_compact() else 1
        with self.app.batch_update():
            self.clear(columns=True)
            for place, column in enumerate(columns):
                self.add_column(_label(column, place == self._sort, self._is_compact()), key=column.name)
            for row in sorted_rows(self._rows, columns[self._sort]):
                self.add_row(*(_cell(column, row) for column in columns), key=getattr(row, self._key))
            self._put_cursor(at)
            self.scroll_to(below.x, below.y, animate=False)
        part = f"{len(self._rows)} of {self._total}" if self._total != len(self._rows) else f"{self._total}"
        self.border_title = f"{self.id} ({part})"

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
    #heading { height: 3; padding: 0 1; }
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
        self._node_table = ColumnTable(NODES, "id", "nodes")
        self._swarm_table = ColumnTable(SWARMS, "infohash", "swarms")

    def compose(self) -> ComposeResult:
        yield Static(id="heading")
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
        first = Text(f"{self._feed.api}  {state}", style="bold")
        if self._trouble:
            first = Text(f"asking again: {self._trouble}", style="bold red")
        lines = heading(self._snapshot) if self._snapshot else ("", "")
        shown = Text("\n").join((first, *(Text(line) for line in lines)))
        shown.no_wrap, shown.overflow = True, "ellipsis"
        self.query_one("#heading", Static).update(shown)

    def on_resize(self, event: Resize) -> None:
        for table in (self._node_table, self._swarm_table):
            table.refit()

    def action_pause(self) -> None:
        self._is_paused = not self._is_paused
        self._say()

    def action_sort(self) -> None:
        (self._swarm_table if self._swarm_table.has_focus else self._node_table).sort_by_next()

    def action_help(self) -> None:
        self.push_screen(HelpScreen())


def _label(column: Column[Row], is_sorted: bool, is_compact: bool) -> Text:
    mark = ("▼" if column.is_number else "▲") if is_sorted else ""
    gap = " " if is_compact else ""
    return Text(f"{gap}{column.name}{mark}", justify="right" if column.is_number else "left")


def _cell(column: Column[Row], row: Row) -> Text:
    text = column.cell(row)
    is_bad = column.name == "stall" and text not in ("0", "-")
    return Text(text, justify="right" if column.is_number else "left", style="bold red" if is_bad else "")
