"""Rates, sizes and spans of time as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import LocalError
from shared.core.units import (
    Size,
    format_duration,
    format_rate,
    format_size,
    parse_duration,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "bytes_per_second"),
    [
        ("10 Mbit/s", 1_250_000),
        ("500 kbit/s", 62_500),
        ("1.5 MB/s", 1_500_000),
        ("1 MiB/s", 1_048_576),
        ("8bit/s", 1),
        (" 1 Tbit/s ", 125_000_000_000),
        ("10 mbit/s", 1_250_000),
    ],
)
def test_rate_is_bytes_per_second(text: str, bytes_per_second: float) -> None:
    assert parse_rate(text) == bytes_per_second


@pytest.mark.parametrize(
    ("text", "size"),
    [("10 GB", 10**10), ("512 MiB", 2**29), ("1.5 kB", 1500), ("1 B", 1), ("100000 TB", 10**17)],
)
def test_size_is_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("250 ms", 0.25), ("90 s", 90), ("15 min", 900), ("1.5 h", 5400), ("7 d", 604800)]
)
def test_duration_is_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0 Mbit/s", "out of range"),
        ("-1 Mbit/s", "not a rate"),
        ("1.1 Tbit/s", "at most 1 Tbit/s"),
        ("999999999999999999 TB/s", "out of range"),
        ("nan Mbit/s", "not a rate"),
        ("inf", "not a rate"),
        ("1e6 bit/s", "not a rate"),
        ("10", "not a rate"),
        ("", "not a rate"),
        ("10 Mb/s", "unknown unit"),  # bit or byte? half of its writers mean each
        ("10 Mbps", "unknown unit"),
        ("10 MB", "unknown unit"),
        ("１0 Mbit/s", "not a rate"),  # a full-width digit
        ("1_0 Mbit/s", "not a rate"),
        ("9" * 1000 + " bit/s", "not a rate"),
    ],
)
def test_rate_refuses(text: str, why: str) -> None:
    with pytest.raises(LocalError, match=why) as caught:
        parse_rate(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["0 B", "-5 GB", "0.3 B", "100001 TB", "5", "5 Gb", "5 Gbit", "GB"])
def test_size_refuses(text: str) -> None:
    with pytest.raises(LocalError):
        parse_size(text)


@pytest.mark.parametrize("text", ["0 s", "-1 s", "11000 d", "5", "5 weeks", "nan s"])
def test_duration_refuses(text: str) -> None:
    with pytest.raises(LocalError):
        parse_duration(text)


def test_formats_read_well() -> None:
    assert format_rate(1_250_000) == "10 Mbit/s"
    assert format_rate(1234) == "9872 bit/s"
    assert format_size(10**10) == "10 GB"
    assert format_size(2**29) == "512 MiB"
    assert format_size(0) == "0 B"
    assert format_duration(900) == "15 min"
    assert format_duration(0.25) == "250 ms"


@given(st.integers(1, 10**17))
def test_every_size_reads_back(size: int) -> None:
    """A size that is shown and read again is the same size."""
    assert parse_size(format_size(Size(size))) == size


@given(st.integers(1, 10**12))
def test_every_whole_bit_rate_reads_back(bits: int) -> None:
    """A rate of whole bits per second that is shown and read again is the same rate."""
    assert parse_rate(format_rate(bits / 8)) == bits / 8


@given(st.text(max_size=40))
def test_any_text_is_a_rate_or_refused(text: str) -> None:
    """Whatever is typed as a rate gives a rate in range or a LocalError of one line."""
    try:
        assert 0 < parse_rate(text) <= 10**12 / 8
    except LocalError as error:
        assert str(error).isprintable()
