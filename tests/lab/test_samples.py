"""What follows from samples, and which laboratories cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.line import LabError, Line
from tests.lab.samples import Recording, Sample, mean_rate, worst_window
from tests.lab.traffic import RoundTrips
from tests.lab.windows import goals, share_over, shares
from tests.lab.wiring import plan

SAMPLES = st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 10**6)), min_size=2, max_size=20).map(
    lambda steps: tuple(accumulated(steps))
)


def accumulated(steps: list[tuple[int, int]]) -> Iterator[Sample]:
    at, size = 0, 0
    for milliseconds, more in steps:
        at, size = at + milliseconds, size + more
        yield Sample(at / 1000, size, 0)


def bytes_until(samples: tuple[Sample, ...], at: float) -> float:
    """The area under even flow between samples, added up piece by piece."""
    total = 0.0
    for earlier, later in zip(samples, samples[1:], strict=False):
        share = (min(max(at, earlier.at), later.at) - earlier.at) / (later.at - earlier.at)
        total += share * (later.bytes - earlier.bytes)
    return total


@given(SAMPLES, st.floats(0.01, 1), st.floats(0, 1))
def test_no_window_is_worse_than_the_worst(samples: tuple[Sample, ...], length: float, place: float) -> None:
    """No window of the same length inside the recording has a higher rate, and the mean is not above it."""
    whole_seconds = samples[-1].at - samples[0].at
    seconds = length * whole_seconds
    start_at = samples[0].at + place * (whole_seconds - seconds)
    worst = worst_window(samples, seconds)
    rate = (bytes_until(samples, start_at + seconds) - bytes_until(samples, start_at)) / seconds
    assert rate <= worst * (1 + 1e-9) + 1e-3
    assert worst_window(samples, whole_seconds) == pytest.approx(mean_rate(samples), abs=1e-3)


def test_the_worst_window_of_a_burst() -> None:
    burst = (Sample(0, 0, 0), Sample(1, 100, 1), Sample(1.5, 1100, 2), Sample(3, 1100, 2))
    assert worst_window(burst, 0.5) == pytest.approx(2000)
    assert worst_window(burst, 1.0) == pytest.approx(1050)
    for seconds in (0.0, 3.1):
        with pytest.raises(ValueError, match="no window"):
            worst_window(burst, seconds)


def test_a_recording_is_read_while_a_line_of_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    path.write_text("1.5 lo 0 0 0 0 s1 10 1 20 2\n2.5 lo 0 0 0 0 s1 30 3 40 4\n3.5 lo 0 0 0 0 s1 5")
    recording = Recording(path, plan("none-", (Line("only"),)))
    recording.refresh()
    line = recording.line("only")
    assert line.up == (Sample(1.5, 10, 1), Sample(2.5, 30, 3))
    assert line.down == (Sample(1.5, 20, 2), Sample(2.5, 40, 4))


def test_round_trips_in_order_of_size() -> None:
    trips = RoundTrips((0.3, None, 0.1, 0.2))
    assert trips.lost == (1,)
    assert [trips.percentile(share) for share in (0, 0.5, 1)] == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="no answer"):
        RoundTrips((None,)).percentile(0.5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"name": "Upper"}, "names are a letter"),
        ({"hosts": ("a-b",)}, "names are a letter"),
        ({"up_rate": 0.0}, "rates are bytes per second"),
        ({"down_rate": float("nan")}, "rates are bytes per second"),
        ({"delay_seconds": -1.0}, "a delay is 0 to 10"),
        ({"queue_seconds": 0.0}, "a queue above 0"),
        ({"down_loss": 1.5}, "a loss is a share"),
        ({"mtu": 576}, "an mtu is 1280 to 9000"),
        ({"hosts": ("a", "a")}, "different names"),
    ],
)
def test_impossible_lines_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        Line(**{"name": "line", **wrong})  # type: ignore[arg-type]


def test_names_are_given_once() -> None:
    with pytest.raises(LabError, match="two hosts are named 'a'"):
        plan("none-", (Line("a"), Line("b", hosts=("a",))))
    with pytest.raises(LabError, match="two lines have the same name"):
        plan("none-", (Line("a"), Line("a", hosts=("b",))))
    with pytest.raises(LabError, match="1 to 250 lines"):
        plan("none-", ())


def test_shares_of_a_line() -> None:
    samples = [Sample(at / 100, 600 * at + (3000 if at > 600 else 0), at) for at in range(1201)]
    found = shares(samples, 100_000.0)
    assert found.worst == pytest.approx({0.1: 0.9, 1.0: 0.63, 10.0: 0.603})
    assert found.mean == pytest.approx(0.6025)
    assert found.row("x") == ["x", "90.0 %", "63.0 %", "60.3 %", "60.2 %"]
    assert set(found.figures("x")) == {"x_worst_100ms", "x_worst_1s", "x_worst_10s", "x_mean"}
    assert shares(samples[:500], 100_000.0).worst.keys() == {0.1, 1.0}
    assert share_over(samples, 0.1, 61_000.0) == pytest.approx(1 / 120, rel=0.2)
    assert share_over(samples[:5], 0.1, 1.0) == 0.0


def test_short_windows_are_no_goal_on_a_slow_line() -> None:
    assert "x_worst_100ms" not in goals("x", 250_000.0)
    assert goals("x", 1_250_000.0, mean=None).keys() == {"x_worst_100ms", "x_worst_1s", "x_worst_10s"}
