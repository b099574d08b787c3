"""The upload cap as it is seen at the modem: real daemons in network namespaces, counted from outside."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from benchmarks.report import Report
from tests.lab import scenarios, system
from tests.lab.punctual import be_punctual


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    reason = system.unavailable()
    if reason:
        pytest.skip(reason)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        if not pool.submit(be_punctual).result():
            pytest.skip("counters cannot be read in time here: real-time scheduling is not allowed")


@pytest.mark.parametrize("name", ["cap_windows"])
def test_no_window_reaches_the_cap(name: str) -> None:
    """Only that no window is too full: how well a line is used is for an idle machine to say."""
    scenario, report = scenarios.load(name), Report()
    scenario.run(report, is_quick=True)
    bounds = {figure: bound for figure, (sign, bound) in scenario.GOALS.items() if sign == "<="}
    judged = {figure: report.figures[figure] for figure in bounds if figure not in report.skipped}
    assert judged
    assert {figure: share for figure, share in judged.items() if share > bounds[figure]} == {}
    assert all(share > 0.2 for figure, share in report.figures.items() if figure.endswith("_mean"))
