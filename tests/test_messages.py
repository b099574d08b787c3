"""Invariant: a message has one encoding, and nothing but that encoding is read as one.

Every case is derived from the fields of the messages themselves, see `tests/wire.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core import bencode, codec, messages
from shared.core.codec import Field, Limit
from shared.core.errors import LocalError, ProtocolError, Reason
from shared.core.ids import Kind, Mode
from shared.core.messages import MAX_MESSAGE_BYTES, Browse, Catalogue, Hello, Message, Refusal
from tests import independent_bencode, wire

FIELDS = [(kind, field) for kind in wire.SPOKEN for field in codec.fields_of(kind)]
TEXTS = [(kind, field) for kind, field in FIELDS if wire.is_text(field)]
ENUMS = [(kind, field) for kind, field in FIELDS if wire.is_enum(field)]
LISTS = [(kind, field) for kind, field in FIELDS if wire.plain_type(field) is tuple]
HELLO = Hello(1, Kind.PC, Mode.SHARED, "", "penstock", "192.0.2.1:1")


def name_of(value: object) -> str:
    return (
        value.__name__ if isinstance(value, type) else value.name if isinstance(value, Field) else repr(value)
    )


def each(cases: list[tuple[type, Field]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("kind", "field"), cases, ids=name_of)


def read_or_refused(body: bytes) -> None:
    """Refuses with a ProtocolError, or the bytes are exactly the encoding of what is read."""
    try:
        message = messages.decode(body)
    except ProtocolError:
        return
    assert messages.encode(message) == body


def read(kind: type, value: bencode.BencodeValue) -> Any:
    """A message or a record from what stands on the wire; through the bytes if it is a message."""
    return messages.decode(bencode.dumps(value)) if kind in messages.ALL else codec.from_wire(kind, value)


def refused(kind: type, value: bencode.BencodeValue, reason: Reason = Reason.MALFORMED) -> None:
    with pytest.raises(ProtocolError) as caught:
        read(kind, value)
    assert caught.value.reason is reason
    assert str(caught.value).isprintable()  # it goes to logs, and back over the wire


# -- the specification itself ----------------------------------------------------------------


def test_codes_are_given_once_in_order() -> None:
    codes = [kind.code for kind in messages.ALL]
    assert codes == sorted(set(codes))
    assert codes[0] == 1
    assert [messages.BY_CODE[kind.code] for kind in messages.ALL] == list(messages.ALL)


@pytest.mark.parametrize("kind", wire.SPOKEN, ids=name_of)
def test_a_message_says_what_it_is(kind: type) -> None:
    assert kind.__doc__
    assert not kind.__doc__.startswith(kind.__name__ + "(")  # what dataclass writes by itself
    if kind in messages.ALL:
        assert kind.said_by
        assert kind.heard_by


@each(FIELDS)
def test_a_field_is_bounded_and_explained(kind: type, field: Field) -> None:
    assert field.name != "t"  # the code's key
    assert 0 <= field.limit.low <= field.limit.high
    assert field.limit.high <= MAX_MESSAGE_BYTES or wire.plain_type(field) is int
    assert field.limit.says
    assert field.limit.says.isprintable()
    assert wire.plain_type(field) in (int, bytes, str, tuple) or wire.is_enum(field)


@each(ENUMS)
def test_every_member_fits_its_limit(kind: type, field: Field) -> None:
    for member in wire.members(field):
        size = int(member) if isinstance(member, int) else len(member)
        assert field.limit.low <= size <= field.limit.high


def test_a_field_without_a_limit_is_refused() -> None:
    class Unbounded:
        __dataclass_fields__ = {"number": HELLO.__dataclass_fields__["version"]}
        __annotations__ = {"version": int}

    with pytest.raises(TypeError, match="states no Limit"):
        codec.fields_of(Unbounded)


# -- both ways -------------------------------------------------------------------------------


@settings(max_examples=250)
@given(wire.MESSAGES)
def test_round_trip(message: Message) -> None:
    """Every message within its limits comes back equal, and an independent decoder sees its fields."""
    body = messages.encode(message)
    assert messages.decode(body) == message
    stated = independent_bencode.decode(body)
    assert stated.pop(b"t") == message.code
    fields = codec.fields_of(type(message))
    assert set(stated) == {f.key for f in fields if not f.optional or getattr(message, f.name) != f.default}


@pytest.mark.parametrize("least", [True, False], ids=["least", "most"])
@pytest.mark.parametrize("kind", [k for k in messages.ALL if k is not Catalogue], ids=name_of)
def test_extremes_round_trip_and_fit_a_frame(kind: type, least: bool) -> None:
    message = wire.extreme(kind, least=least)
    body = messages.encode(message)
    assert len(body) <= MAX_MESSAGE_BYTES
    assert messages.decode(body) == message


def test_no_message_at_its_limits_is_longer_than_a_frame() -> None:
    """Whatever keeps to the limits of its fields can be sent."""
    for kind in messages.ALL:
        assert len(messages.encode(wire.extreme(kind, least=False))) <= MAX_MESSAGE_BYTES, kind


@settings(max_examples=60)
@given(wire.MESSAGES)
def test_every_truncation_is_refused(message: Message) -> None:
    """No proper beginning of an encoding is read, and nothing may follow one."""
    body = messages.encode(message)
    for cut in range(len(body)):
        with pytest.raises(ProtocolError):
            messages.decode(body[:cut])
    for tail in (b"e", b"\0", b"0:", body):
        with pytest.raises(ProtocolError):
            messages.decode(body + tail)


@settings(max_examples=800)
@given(wire.MESSAGES, st.data())
def test_what_is_read_is_canonical(message: Message, data: st.DataObject) -> None:
    """Changed bytes are refused with a ProtocolError, or are exactly the encoding of another message."""
    body = messages.encode(message)
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 4)))
    digits = st.text("0123456789-:iedl", max_size=4).map(str.encode)
    patch = data.draw(st.binary(max_size=3) | digits | st.just(body[start:end] * 2))
    read_or_refused(body[:start] + patch + body[end:])


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Bytes from anywhere raise ProtocolError and nothing else."""
    read_or_refused(body)


# -- keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", wire.SPOKEN, ids=name_of)
def test_every_missing_key_is_refused(kind: type) -> None:
    """Without any one key, at any depth, it is refused, unless the field has a default."""
    whole = wire.wire_of(wire.typical(kind))
    optional = {(field.key,): field for field in codec.fields_of(kind) if field.optional}
    keys = [path for path, _ in wire.places(whole) if path and isinstance(path[-1], bytes)]
    assert len(keys) >= len(codec.fields_of(kind))
    for path in keys:
        shorter = wire.removed(whole, path)
        if path in optional:
            assert getattr(read(kind, shorter), optional[path].name) == optional[path].default
        else:
            refused(kind, shorter)


@pytest.mark.parametrize("kind", wire.SPOKEN, ids=name_of)
def test_every_extra_key_is_refused(kind: type) -> None:
    """With one key more, in any dictionary it consists of, it is refused."""
    whole = wire.wire_of(wire.typical(kind))
    for path, value in wire.places(whole):
        if isinstance(value, dict):
            names = [
                b"",
                b"A",
                b"zz",
                b"code",
                *(key + b"_" for key in value),
                *(key.upper() for key in value),
            ]
            for name in names:
                refused(kind, wire.replaced(whole, (*path, name), 1))


@each([(kind, field) for kind, field in FIELDS if field.optional])
def test_a_default_is_left_out(kind: type, field: Field) -> None:
    """A message that states a default would be a second encoding of the same message."""
    stated: bencode.BencodeValue = field.default
    if wire.plain_type(field) is tuple:
        stated = []
    elif isinstance(field.default, str):
        stated = field.default.encode()
    refused(kind, wire.replaced(wire.wire_of(wire.typical(kind)), (field.key,), stated))


# -- types and limits ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", wire.SPOKEN, ids=name_of)
def test_every_wrong_type_is_refused(kind: type) -> None:
    """With a value of another type in any place, the root and list items included, it is refused."""
    whole = wire.wire_of(wire.typical(kind))
    assert read(kind, whole) == wire.typical(kind)
    for path, value in wire.places(whole):
        for shape, others in wire.SHAPES.items():
            for other in others if shape is not type(value) else []:
                refused(kind, wire.replaced(whole, path, other))


@each([(kind, field) for kind, field in FIELDS if not wire.is_enum(field)])
def test_values_beyond_the_limit_are_neither_read_nor_sent(kind: type, field: Field) -> None:
    for value, reason in wire.beyond(field):
        if wire.plain_type(field) is tuple:
            stated: bencode.BencodeValue = [v if isinstance(v, int) else wire.wire_of(v) for v in value]
        else:
            stated = value.encode() if isinstance(value, str) else value
        refused(kind, wire.replaced(wire.wire_of(wire.typical(kind)), (field.key,), stated), reason)
        with pytest.raises(LocalError, match=field.name):
            codec.to_wire(replace(wire.typical(kind), **{field.name: value}))


@each([(kind, field) for kind, field in FIELDS if wire.wire_type(field) is int])
@pytest.mark.parametrize("number", [-1, -(1 << 63), (1 << 63) - 1])
def test_negative_and_huge_integers_are_refused(kind: type, field: Field, number: int) -> None:
    reason = Reason.TOO_LARGE if number > 0 else Reason.MALFORMED
    refused(kind, wire.replaced(wire.wire_of(wire.typical(kind)), (field.key,), number), reason)


@each([(kind, field) for kind, field in LISTS if wire.item_type(field) is int])
@pytest.mark.parametrize("number", [-1, 1 << 32, (1 << 63) - 1])
def test_listed_integers_are_bounded(kind: type, field: Field, number: int) -> None:
    reason = Reason.TOO_LARGE if number > 0 else Reason.MALFORMED
    refused(kind, wire.replaced(wire.wire_of(wire.typical(kind)), (field.key, 1), number), reason)
    with pytest.raises(LocalError, match=field.name):
        codec.to_wire(replace(wire.typical(kind), **{field.name: (1, number)}))


@each(ENUMS)
def test_unknown_members_are_refused(kind: type, field: Field) -> None:
    numbers: list[bencode.BencodeValue] = [field.limit.high, 200]
    words: list[bencode.BencodeValue] = [b"nonesuch", b"PC", b"pc ", b"pc\0", b"p", "pć".encode()]
    for value in numbers if wire.wire_type(field) is int else words:
        refused(kind, wire.replaced(wire.wire_of(wire.typical(kind)), (field.key,), value))


def test_a_refusal_has_a_reason() -> None:
    with pytest.raises(LocalError, match="reason"):
        messages.encode(Refusal(1, Reason.NONE))


# -- text ------------------------------------------------------------------------------------


@each(TEXTS)
def test_text_is_utf8(kind: type, field: Field) -> None:
    for raw in wire.NOT_UTF8:
        refused(kind, wire.replaced(wire.wire_of(wire.typical(kind)), (field.key,), raw))
    with pytest.raises(LocalError, match=field.name):
        codec.to_wire(replace(wire.typical(kind), **{field.name: "half \ud800 pair"}))


@each(TEXTS)
def test_text_can_be_shown_on_a_terminal(kind: type, field: Field) -> None:
    for letters in wire.UNPRINTABLE:
        text = f"abc{letters}"
        refused(kind, wire.replaced(wire.wire_of(wire.typical(kind)), (field.key,), text.encode()))
        with pytest.raises(LocalError, match="cannot be printed"):
            codec.to_wire(replace(wire.typical(kind), **{field.name: text}))


def test_a_limit_of_text_counts_bytes() -> None:
    limit = Limit(0, 64, "")
    assert wire.fit("é" * 64, limit) == "é" * 32
    assert messages.encode(replace(HELLO, software="é" * 32))
    with pytest.raises(LocalError, match="66 bytes is outside 0..64"):
        messages.encode(replace(HELLO, software="é" * 33))


# -- hostile bodies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"e",
        b"de",
        b"le",
        b"i1e",
        b"1:t",
        b"d0:i1e-6:e",
        b"d1:ti3e-6:e",
        b"d1:ti3e7:requesti+1ee",
        b"d1:ti3e7:requesti1_0ee",
        b"d1:ti3e7:requesti01ee",
        b"d1:ti3e7:requesti-0ee",
        b"d1:ti3e7:requesti18446744073709551617ee",
        b"d1:ti3e7:requesti" + b"9" * 100_000 + b"ee",
        b"d7:requesti1e7:requesti1e1:ti3ee",
        b"d1:ti3e7:requesti1ee",  # keys unsorted
        b"d7:requesti1e1:ti3e1:ti3ee",
        b"d7:requesti1e1:ti3ee ",
        b"d7:requesti1e1:t1:3e",
        b"d7:requesti1e1:tli3eee",
        b"d7:requesti1e1:ti0ee",
        b"d7:requesti1e1:ti-3ee",
        b"d7:requesti1e1:ti20ee",
        b"d7:requesti1e1:ti4294967299ee",
        b"l" * 100_000,
        b"d1:a" * 50_000,
        b"l" * 16 + b"e" * 16,
        b"d1:t" + b"l" * 17 + b"e" * 17 + b"e",
        b"99999999999999999999:",
        b"262144:",
        b"d1:t262144:",
        b"\xff" * 1000,
    ],
    ids=lambda body: ascii(body[:40]),
)
def test_hostile_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        messages.decode(body)
    assert caught.value.reason is Reason.MALFORMED
    assert len(str(caught.value)) < 200


def test_the_smallest_body_is_read() -> None:
    """The hostile bodies above are near misses of this one."""
    assert messages.decode(b"d7:requesti1e1:ti3ee") == Browse(1)


def test_a_body_longer_than_a_frame_is_refused() -> None:
    with pytest.raises(ProtocolError) as caught:
        messages.decode(b"x" * (MAX_MESSAGE_BYTES + 1))
    assert caught.value.reason is Reason.TOO_LARGE
