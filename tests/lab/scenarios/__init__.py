"""The laboratory's scenarios, one a module.

Each module has

* a docstring whose first line says what is shown,
* `GOALS: dict[str, Goal]`, the bounds of its figures (`benchmarks.report.Goal`),
* `def run(report: Report, *, is_quick: bool) -> None`, which builds its own laboratory, adds tables
  and figures to the report, and takes everything away. `is_quick` asks for the shortest run that
  still shows the same.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

from benchmarks.report import Goal, Report


class Scenario(Protocol):
    """What a module here offers."""

    __doc__: str | None
    GOALS: dict[str, Goal]

    def run(self, report: Report, *, is_quick: bool) -> None:
        """Measures; LabError if the laboratory cannot be built."""


def names() -> list[str]:
    """All scenarios, in the order of their names."""
    return sorted(module.name for module in iter_modules(__path__))


def load(name: str) -> Scenario:
    """The module of that name."""
    return cast(Scenario, import_module(f"{__name__}.{name}"))
