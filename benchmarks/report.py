"""How every benchmark reports: aligned tables for people, one last line of JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

Goal = tuple[Literal["<=", ">="], float]


@dataclass(slots=True)
class Report:
    """What a run found: tables in order, figures by name, and the goals they are held against.

    A goal whose figure is missing counts as not met, unless `skip` says why this machine cannot tell.
    """

    tables: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    goals: dict[str, Goal] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)  # a goal's name: why it was not measured

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add a table."""
        self.tables.append(render(title, columns, rows))

    def note(self, title: str, why: str) -> None:
        """Say why there is no table."""
        self.tables.append(f"{title}\n{why}")

    def figure(self, name: str, value: float | None) -> None:
        """Add a figure; None, for one that could not be measured, is left out."""
        if value is not None:
            self.figures[name] = float(f"{value:.4g}")

    def ratio(self, name: str, above: float | None, below: float | None) -> None:
        """Add `above` / `below` if both were measured."""
        if above is not None and below:
            self.figure(name, above / below)

    def goal(self, name: str, direction: Literal["<=", ">="], value: float) -> None:
        """Hold a figure against a bound."""
        self.goals[name] = (direction, value)

    def skip(self, names: Iterable[str], why: str) -> None:
        """These goals cannot be judged here."""
        self.skipped |= dict.fromkeys(names, why)

    @property
    def ok(self) -> bool:
        """Every goal that could be judged was measured and is met."""
        return all(verdict == "met" for name in self.goals if (verdict := self._verdict(name)) != "skipped")

    def text(self) -> str:
        """All tables, the goals, and the last line."""
        if not self.goals:
            return "\n\n".join(self.tables) + "\n\n" + self.last_line()
        return "\n\n".join([*self.tables, self._goal_table(), self.last_line()])

    def last_line(self) -> str:
        """One line of JSON: `{"ok": bool, "figures": {name: number}, "goals": {name: [sign, number]}}`."""
        judged = {name: list(goal) for name, goal in self.goals.items() if name not in self.skipped}
        return json.dumps({"ok": self.ok, "figures": self.figures, "goals": judged})

    def _goal_table(self) -> str:
        rows = [
            [name, f"{direction} {value:g}", number(self.figures.get(name)), self._verdict(name)]
            for name, (direction, value) in self.goals.items()
        ]
        notes = [f"{name}: {why}" for name, why in self.skipped.items() if name in self.goals]
        return "\n".join([render("Goals", ["figure", "goal", "measured", ""], rows), *notes])

    def _verdict(self, name: str) -> str:
        if name in self.skipped:
            return "skipped"
        if name not in self.figures:
            return "not measured"
        direction, bound = self.goals[name]
        measured = self.figures[name]
        return "met" if (measured <= bound if direction == "<=" else measured >= bound) else "MISSED"


def render(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its title above; the first column is aligned left, the others right."""
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in cells]
    return "\n".join([title, lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def median(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None


def number(value: float | None) -> str:
    """Three significant digits or all before the point; `0` below 0.0005; `-` for None."""
    if value is None:
        return "-"
    if abs(value) < 0.0005:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine(packages: Iterable[str], extra: Mapping[str, str] | None = None) -> str:
    """One paragraph that names processor, cores, kernel, Python, and the versions that were compared."""
    versions = {name: metadata.version(name) for name in packages} | dict(extra or {})
    return (
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )


def _processor() -> str:
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    names = [line.partition(":")[2].strip() for line in facts if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    first = row[0].ljust(widths[0])
    return [first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
