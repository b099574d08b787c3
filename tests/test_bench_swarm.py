"""The fluid bound, held against shares that are known."""

from __future__ import annotations

import pytest

from benchmarks.swarm.fluid import HOMES, POOR, bound


@pytest.mark.parametrize(
    ("mix", "sharing", "live", "known"),
    [
        (HOMES, 1.0, True, (0.50, 0.80, 0.90, 0.98)),
        (HOMES, 0.5, True, (0.34, 0.67, 0.82, 0.98)),
        (HOMES, 0.5, False, (0.22, 0.51, 0.69, 0.91)),
        (POOR, 1.0, True, (0.35, 0.44, 0.46, 0.45)),
    ],
)
def test_the_bound_is_what_an_independent_estimate_found(mix, sharing, live, known) -> None:  # type: ignore[no-untyped-def]
    found = [bound(count, mix, sharing, live=live) for count in (2, 5, 10, 50)]
    assert found == pytest.approx(known, abs=0.03)
