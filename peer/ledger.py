"""What this peer has uploaded, day by day, and what its user chose: one SQLite file that survives kill -9.

Figures are written once a second, so that a process that is killed loses one second at most, and a
power cut some more (the file is never torn). Days are local dates, `2026-11-24`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peer.core.consent import Choice
from shared.core.errors import LocalError
from shared.core.ids import InfoHash, Mode

_SCHEMA = """
CREATE TABLE IF NOT EXISTS days (
    day TEXT PRIMARY KEY, sent_bytes INTEGER NOT NULL,
    worst_second REAL NOT NULL, worst_ten_seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
    day TEXT, infohash BLOB, piece_bytes INTEGER NOT NULL, PRIMARY KEY (day, infohash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS titles (infohash BLOB PRIMARY KEY, title TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS choice (
    one INTEGER PRIMARY KEY CHECK (one = 1), mode TEXT NOT NULL, setting TEXT NOT NULL,
    paused_until REAL NOT NULL, metered TEXT NOT NULL
);
"""


@dataclass(slots=True)
class Upload:
    """What left since the last time it was written."""

    sent_bytes: int = 0  # on the wire, everything counted
    worst_second: float = 0.0  # share of the line
    worst_ten_seconds: float = 0.0
    titles: dict[InfoHash, int] = field(default_factory=dict)  # bytes of pieces that arrived whole


@dataclass(frozen=True, slots=True)
class Day:
    """One day's figures."""

    day: str
    sent_bytes: int
    worst_second: float
    worst_ten_seconds: float
    titles: Mapping[bytes, int]  # bytes of pieces, by infohash


class Ledger:
    """The open file; any thread may write. Raises LocalError naming the file and the way out where it cannot
    be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()  # else what one thread takes back is another's, too
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from None

    def sent_since(self, day: str) -> int:
        """Bytes on the wire on this day and later ones: after a clock went back they count, too."""
        rows = self._all("SELECT COALESCE(SUM(sent_bytes), 0) FROM days WHERE day >= ?", day)
        return int(rows[0][0])

    def add(self, day: str, upload: Upload, names: Mapping[InfoHash, str]) -> None:
        """Adds to a day's figures; `names` of titles that are not known yet."""
        with self._writing:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute(
                    "INSERT INTO days VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " sent_bytes = sent_bytes + excluded.sent_bytes,"
                    " worst_second = MAX(worst_second, excluded.worst_second),"
                    " worst_ten_seconds = MAX(worst_ten_seconds, excluded.worst_ten_seconds)",
                    (day, upload.sent_bytes, upload.worst_second, upload.worst_ten_seconds),
                )
                self._db.executemany(
                    "INSERT INTO uploads VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
                    " piece_bytes = piece_bytes + excluded.piece_bytes",
                    [(day, infohash, count) for infohash, count in upload.titles.items()],
                )
                self._db.executemany("INSERT OR REPLACE INTO titles VALUES (?, ?)", list(names.items()))
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise self._failure(error) from None

    def choice(self, setting: Mode) -> Choice:
        """What the user chose last; where the setting `mode` was changed since, that counts."""
        rows = self._all("SELECT mode, setting, paused_until, metered FROM choice")
        if not rows:
            return Choice(setting)
        mode, chosen_under, paused_until, metered = rows[0]
        kept = Mode(mode) if chosen_under == setting.value else setting
        return Choice(kept, paused_until, frozenset(metered.splitlines()))

    def choose(self, choice: Choice, setting: Mode) -> None:
        """Keeps a choice; on the disk when this returns."""
        values = (choice.mode.value, setting.value, choice.paused_until, "\n".join(sorted(choice.metered)))
        with self._writing:
            try:
                self._db.execute("INSERT OR REPLACE INTO choice VALUES (1, ?, ?, ?, ?)", values)
            except sqlite3.Error as error:
                raise self._failure(error) from None

    def month(self, month: str) -> list[Day]:
        """The days of a month such as `2026-11`, in order."""
        days = self._all("SELECT * FROM days WHERE day LIKE ? ORDER BY day", f"{month}-%")
        uploads = self._all("SELECT day, infohash, piece_bytes FROM uploads WHERE day LIKE ?", f"{month}-%")
        return [
            Day(day, sent, second, ten, {name: count for on, name, count in uploads if on == day})
            for day, sent, second, ten in days
        ]

    def titles(self) -> dict[bytes, str]:
        """Titles by infohash, as far as anything of them was uploaded."""
        return dict(self._all("SELECT infohash, title FROM titles"))

    def close(self) -> None:
        """No more."""
        self._db.close()

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> LocalError:
        return LocalError(
            f"peer.data: the upload ledger {self._path} cannot be used ({error}); make room, or move it away "
            "to begin a new one"
        )
