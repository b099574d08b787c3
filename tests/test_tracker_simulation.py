"""The tracker's choices in virtual time, in short; `python -m benchmarks.tracker` has the long form."""

from __future__ import annotations

import pytest

from benchmarks.tracker.simulation import SHORT, run


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    return run(SHORT, seed=1)


def test_edges_are_level_and_their_caches_stay_warm(figures: dict[str, float]) -> None:
    assert figures["edge_max_over_mean"] <= 1.10
    assert figures["hit_vs_rendezvous"] >= 0.93


def test_a_crowd_on_one_title_drowns_no_edge(figures: dict[str, float]) -> None:
    assert figures["crowd_worst_edge"] <= 1.25
    assert figures["crowd_worst_edge_rendezvous"] > 2  # or there was no crowd


def test_with_ample_supply_hardly_anybody_asks_who_is_full(figures: dict[str, float]) -> None:
    assert figures["asks_refused"] < 0.01
    assert figures["asks_refused_when_scarce"] > figures["asks_refused"]  # or nobody could be full


def test_placement_by_heat_hits_as_often_as_pulling_with_a_hundredth_of_its_fills(
    figures: dict[str, float],
) -> None:
    assert figures["placement_hit_vs_pull"] >= 1.0
    assert figures["placement_fills_vs_pull"] <= 0.01
