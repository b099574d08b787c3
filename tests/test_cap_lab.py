"""The upload cap as it is seen at the modem: real daemons in network namespaces, counted from outside."""

from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from benchmarks.report import Report
from tests.lab import scenarios, system
from tests.lab.capped import CROWD, Home, open_scene
from tests.lab.line import mbit
from tests.lab.punctual import be_punctual
from tests.lab.windows import shares


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
    assert all(share > 0.02 for figure, share in report.figures.items() if figure.endswith("_mean"))


def test_capcheck_sees_what_the_modem_sees() -> None:
    """The user's own proof, run beside the peer, agrees with counters that neither can touch."""
    with open_scene(Home(10), CROWD) as scene:
        scene.light_leechers("crowd", 5)
        told = json.loads(
            scene.daemons.command("pc", "peer", "capcheck", "--seconds", "11", "--json", check=False)
        )
        outside = shares(scene.sent(), mbit(10))
    assert told["verdict"] in ("kept", "idle", "busy")  # as busy as this machine is
    assert told["line_rate"] == mbit(10)
    assert told["other_bytes"] < 0.02 * told["sent_bytes"]
    for seconds, name in ((0.1, "100 ms"), (1.0, "1 s"), (10.0, "10 s")):
        assert 0 <= told["worst_shares"][name] < outside.worst[seconds] + 0.01
    assert told["worst_shares"]["10 s"] > 0.5 * outside.worst[10.0]
