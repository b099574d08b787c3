"""Invariant: what is read is canonical, and read as an independent decoder reads it."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import bencode
from shared.core.errors import ProtocolError, Reason
from tests import independent_bencode

INTS = st.integers(bencode.INT_MIN, bencode.INT_MAX) | st.sampled_from(
    [0, -1, bencode.INT_MIN, bencode.INT_MAX]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    INTS | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=4), inner, max_size=4),
    max_leaves=12,
)
LOOKALIKES = st.lists(st.sampled_from(list(b"0123456789idle:-+_ ")), max_size=24).map(bytes)
TOKENS = st.lists(
    st.sampled_from(
        [
            b"d",
            b"l",
            b"e",
            b"i1e",
            b"i-1e",
            b"i-0e",
            b"i01e",
            b"0:",
            b"1:a",
            b"1:b",
            b"2:aa",
            b"-1:",
            b"01:a",
            b"1:",
        ]
    ),
    max_size=14,
).map(b"".join)


def agree(data: bytes) -> None:
    """Both accept with one value, which encodes to the same bytes; or both refuse."""
    try:
        expected = independent_bencode.decode(data)
    except independent_bencode.Invalid:
        with pytest.raises(ProtocolError) as caught:
            bencode.loads(data)
        assert caught.value.reason is Reason.MALFORMED
        return
    assert bencode.loads(data) == expected
    assert bencode.dumps(expected) == data


@settings(max_examples=500, deadline=None)
@given(VALUES)
def test_round_trip(value: Any) -> None:
    """Every value comes back equal, and the independent decoder reads the same."""
    data = bencode.dumps(value)
    assert bencode.loads(data, max_depth=64) == value
    assert independent_bencode.decode(data, max_depth=64) == value


@settings(max_examples=2000, deadline=None)
@given(LOOKALIKES | TOKENS)
def test_agrees_on_lookalikes(data: bytes) -> None:
    """On bytes that look like bencode both decoders accept the same, with the same value."""
    agree(data)


@settings(max_examples=2000, deadline=None)
@given(VALUES, st.data())
def test_agrees_on_mutations(value: Any, data: st.DataObject) -> None:
    """On a valid encoding with a byte changed, cut, doubled or added both decoders agree."""
    whole = bencode.dumps(value)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 3)))
    patch = data.draw(LOOKALIKES.map(lambda b: b[:3]) | st.just(whole[start:end] * 2))
    agree(whole[:start] + patch + whole[end:])


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_every_truncation_is_refused(value: Any) -> None:
    """No proper prefix of an encoding is an encoding."""
    whole = bencode.dumps(value)
    for cut in range(len(whole)):
        with pytest.raises(ProtocolError):
            bencode.loads(whole[:cut], max_depth=64)


@pytest.mark.parametrize(
    "data",
    [
        b"d0:i1e-6:e",  # sends the bare package round for ever
        b"i1_0e",
        b"i+1e",
        b"i 1e",
        b"i-0e",
        b"i00e",
        b"i01e",
        b"ie",
        b"i-e",
        b"i1\ne",
        b"i9223372036854775808e",
        b"i-9223372036854775809e",
        b"i" + b"9" * 5000 + b"e",
        b"i\xd9\xa1e",  # an Arabic digit
        b"",
        b"01:a",
        b"+1:a",
        b"-1:a",
        b"1_0:aaaaaaaaaa",
        b"5:abcd",
        b"99999999999:a",
        b"d1:bi1e1:ai2ee",  # unsorted
        b"d1:ai1e1:ai2ee",  # twice
        b"d1:ae",
        b"di1ei2ee",
        b"l",
        b"le1",
        b"e",
        b"l" * 17 + b"e" * 17,
        b"d1:a" * 17 + b"i1e" + b"e" * 17,
    ],
)
def test_refused(data: bytes) -> None:
    agree(data)
    with pytest.raises(ProtocolError):
        bencode.loads(data)


def test_bounds() -> None:
    assert bencode.loads(b"l" * 16 + b"e" * 16, max_depth=16) == bencode.loads(b"l" * 16 + b"e" * 16)
    with pytest.raises(ProtocolError):
        bencode.loads(b"le", max_depth=0)
    assert bencode.loads(b"i1e", max_depth=0) == 1
    with pytest.raises(ProtocolError) as caught:
        bencode.loads(b"4:abcd", max_bytes=5)
    assert caught.value.reason is Reason.TOO_LARGE
    assert bencode.loads(b"li1ed1:a0:ee", max_items=3) == [1, {b"a": b""}]
    with pytest.raises(ProtocolError):
        bencode.loads(b"li1ed1:a0:ee", max_items=2)
    assert bencode.loads(memoryview(b"4:abcd"), max_bytes=6) == b"abcd"


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_depth_bomb(depth: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        bencode.loads(b"l" * depth, max_bytes=1 << 20, max_depth=1 << 20)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("unit", [b"i1e", b"0:", b"le", b"de"])
def test_long_input_takes_linear_time(unit: bytes) -> None:
    """Eight times the bytes take about eight times as long, far from the 64 of a square."""

    def best_of_five(count: int) -> float:
        data = b"l" + unit * count + b"e"
        times = []
        for _ in range(5):
            started = time.process_time()
            bencode.loads(data, max_bytes=1 << 24, max_items=1 << 24)
            times.append(time.process_time() - started)
        return min(times)

    gc.disable()  # its own work grows faster than the input
    try:
        assert best_of_five(80_000) < 30 * best_of_five(10_000)
    finally:
        gc.enable()


@pytest.mark.parametrize("value", [True, None, "text", 1.5, {"a": 1}, [b"a", False], {b"a": {1: 2}}])
def test_other_types_are_not_written(value: Any) -> None:
    with pytest.raises(TypeError):
        bencode.dumps(value)


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1])
def test_wide_integers_are_not_written(value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        bencode.dumps([value])


def test_tuples_and_key_order() -> None:
    assert bencode.dumps({b"b": (1, b"x"), b"a": ()}) == b"d1:ale1:bli1e1:xee"
