"""Invariant: a bitfield is a set of piece numbers below its total, and has one wire form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.bitfield import STRETCHES, Bitfield
from shared.core.errors import ProtocolError, Reason

TOTALS = st.integers(0, 70)


@st.composite
def totals_and_pieces(draw: st.DrawFn) -> tuple[int, set[int]]:
    total = draw(TOTALS)
    return total, draw(st.sets(st.integers(0, total - 1))) if total else set()


@given(totals_and_pieces())
def test_round_trip(case: tuple[int, set[int]]) -> None:
    """Every set of pieces comes back equal, from one bit each and no more bytes than needed."""
    total, pieces = case
    raw = Bitfield(total, pieces).to_wire()
    assert len(raw) == -(-total // 8)
    again = Bitfield.parse(raw, total)
    assert list(again) == sorted(pieces)
    assert again.to_wire() == raw


@given(totals_and_pieces())
def test_it_is_a_set(case: tuple[int, set[int]]) -> None:
    """Membership, count, order and completeness are those of a set of numbers below the total."""
    total, pieces = case
    field = Bitfield(total, pieces)
    assert {piece for piece in range(-2, total + 10) if piece in field} == pieces
    assert len(field) == len(pieces)
    assert list(field) == sorted(pieces)
    assert field.complete == (pieces == set(range(total)))


@given(TOTALS, st.lists(st.tuples(st.booleans(), st.integers(-3, 75))))
def test_adding_and_discarding(total: int, steps: list[tuple[bool, int]]) -> None:
    """After any row of changes it holds what a set would, and impossible pieces are refused."""
    field, model = Bitfield(total), set[int]()
    for adds, piece in steps:
        if not adds:
            field.discard(piece)
            model.discard(piece)
        elif 0 <= piece < total:
            field.add(piece)
            model.add(piece)
        else:
            with pytest.raises(ProtocolError) as caught:
                field.add(piece)
            assert caught.value.reason is Reason.MALFORMED
    assert list(field) == sorted(model)


@given(TOTALS, st.binary(max_size=10))
def test_what_is_read_is_canonical(total: int, raw: bytes) -> None:
    """Any bytes are refused with a ProtocolError, or are the wire form of what was read."""
    try:
        field = Bitfield.parse(raw, total)
    except ProtocolError as error:
        assert error.reason is Reason.MALFORMED
        spare = -total % 8
        assert len(raw) != -(-total // 8) or raw[-1] & ((1 << spare) - 1)
    else:
        assert field.to_wire() == raw


@pytest.mark.parametrize(
    ("total", "pieces", "raw"),
    [
        (0, [], b""),
        (1, [0], b"\x80"),
        (8, [0, 7], b"\x81"),
        (9, [0, 8], b"\x80\x80"),
        (12, [11], b"\x00\x10"),
        (16, [], b"\x00\x00"),
    ],
)
def test_layout(total: int, pieces: list[int], raw: bytes) -> None:
    """The first piece is the highest bit of the first byte, as in BitTorrent."""
    assert Bitfield(total, pieces).to_wire() == raw
    assert list(Bitfield.parse(raw, total)) == pieces


@pytest.mark.parametrize("total", [1, 7, 9, 12, 15])
def test_every_spare_bit_is_refused(total: int) -> None:
    whole = int.from_bytes(Bitfield(total, range(total)).to_wire(), "big")
    size = (total + 7) // 8
    for bit in range(-total % 8):
        with pytest.raises(ProtocolError):
            Bitfield.parse((whole | 1 << bit).to_bytes(size, "big"), total)


@pytest.mark.parametrize("total", [0, 1, 8, 9])
def test_every_wrong_length_is_refused(total: int) -> None:
    size = (total + 7) // 8
    for wrong in {0, 1, 2, 3, 128 * 1024} - {size}:
        with pytest.raises(ProtocolError):
            Bitfield.parse(bytes(wrong), total)


def test_a_piece_beyond_the_total_is_refused_from_the_start() -> None:
    with pytest.raises(ProtocolError):
        Bitfield(8, [8])


def test_nothing_of_nothing_is_complete() -> None:
    """An empty file has no pieces, and whoever has its manifest has all of it."""
    assert Bitfield(0).complete


@given(st.integers(0, 200), st.data())
def test_a_summary_says_which_stretches_are_whole(total: int, data: st.DataObject) -> None:
    """Bit n is set if and only if every piece that overlaps the n-th 32nd is held; all or nothing is 0."""
    pieces = data.draw(st.sets(st.integers(0, total - 1))) if total else set()
    field = Bitfield(total, pieces)
    expected = 0
    for n in range(STRETCHES):
        inside = [
            p for p in range(total) if p * STRETCHES < (n + 1) * total and (p + 1) * STRETCHES > n * total
        ]
        expected |= (set(inside) <= pieces) << n
    assert field.summary() == (0 if len(pieces) in (0, total) else expected)


@given(st.integers(0, 70), st.data())
def test_what_others_have_and_we_have_not(total: int, data: st.DataObject) -> None:
    """Exactly the pieces that some other holds and we do not; from any piece on, each once, going round."""
    sets = st.sets(st.integers(0, total - 1)) if total else st.just(set[int]())
    mine, *others = (data.draw(sets) for _ in range(4))
    lacking = Bitfield(total, mine).lacking(Bitfield(total, each) for each in others)
    expected = set[int]().union(*others) - mine
    assert set(lacking) == expected
    first = data.draw(st.integers(0, max(0, total - 1)))
    ordered = sorted(expected, key=lambda piece: (piece < first, piece))
    assert list(lacking.from_piece(first)) == ordered
