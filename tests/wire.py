"""Messages out of their own specification: strategies, extremes and breakages of every field.

Nothing here repeats a limit: all is derived from the fields that the codec itself reads, so a
new message is tested on the day it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from enum import Enum, IntEnum, StrEnum
from typing import Any, get_args, get_origin

from hypothesis import strategies as st

from shared.core import bencode, codec, messages
from shared.core.codec import Field, Limit
from shared.core.errors import Reason
from shared.core.messages import Message

U32 = (1 << 32) - 1
ITEM = Limit(0, U32, "")  # of a list of integers
USUAL = 40  # bytes or items beyond the lower limit; the upper limit has examples of its own
RECORDS: tuple[type, ...] = (
    messages.Rendition,
    messages.Entry,
    messages.Source,
    messages.Share,
    messages.Use,
    messages.SwarmHeld,
    messages.Withdrawn,
    messages.Fellow,
)
SPOKEN: tuple[type, ...] = (*messages.ALL, *RECORDS)

PRINTABLE = st.characters(exclude_categories=("C", "Z"), include_characters=" ")  # as str.isprintable
UNPRINTABLE = [
    "\0",
    "\n",
    "\r\n",
    "\t",
    "\x1b[31mred",
    "\x7f",
    "\x9b2J",
    "\u202egnp.exe",
    "\u2028",
    "\u200b",
    "\ufeff",
]
NOT_UTF8 = [b"\xff\xff\xff", b"\xc0\x80\xc0\x80", b"\xed\xa0\x80", b"abc\xe2\x82", b"\xf5\x80\x80\x80"]
SHAPES: dict[type, list[bencode.BencodeValue]] = {
    int: [0, 1, -1, 1 << 62],
    bytes: [b"", b"1", b"pc", bytes(32)],
    list: [[], [1], [b"a"], [{}], [[]]],
    dict: [{}, {b"t": 1}],
}

# A place in a wire dictionary, from its root: keys and list indices.
Path = tuple[bytes | int, ...]


def plain_type(field: Field) -> type:
    """The class of the field's values: int, bytes, str, an enumeration or tuple."""
    if get_origin(field.kind) is tuple:
        return tuple
    plain = getattr(field.kind, "__supertype__", field.kind)
    assert isinstance(plain, type)
    return plain


def item_type(field: Field) -> type:
    """The class of the items of a list."""
    inner = get_args(field.kind)[0]
    assert isinstance(inner, type)
    return inner


def wire_type(field: Field) -> type:
    """How the field looks in bencode."""
    plain = plain_type(field)
    if plain is tuple:
        return list
    return int if issubclass(plain, int) else bytes


def is_text(field: Field) -> bool:
    """Free text for people."""
    return plain_type(field) is str


# -- strategies ------------------------------------------------------------------------------


def fit(text: str, limit: Limit) -> str:
    """The text, cut or filled up to as many bytes as the limit asks for."""
    while len(text.encode()) > limit.high:
        text = text[:-1]
    return text + "x" * (limit.low - len(text.encode()))


def values(field: Field) -> st.SearchStrategy[Any]:
    """Values that the field takes, its extremes and default among them."""
    limit, plain = field.limit, plain_type(field)
    if plain is tuple:
        usual: st.SearchStrategy[Any] = st.lists(
            items(field), min_size=limit.low, max_size=min(limit.high, limit.low + 4)
        ).map(tuple)
    elif issubclass(plain, Enum):
        usual = st.sampled_from(members(field))
    elif plain is int:
        usual = st.integers(limit.low, limit.high)
    elif plain is str:
        usual = st.text(PRINTABLE, max_size=limit.low + USUAL).map(lambda text: fit(text, limit))
    else:
        usual = st.binary(min_size=limit.low, max_size=min(limit.high, limit.low + USUAL))
    known = [smallest(field), *([field.default] if field.optional else [])]
    return usual | st.sampled_from(known)


def items(field: Field) -> st.SearchStrategy[Any]:
    """Items that the list takes."""
    inner = item_type(field)
    return st.integers(ITEM.low, ITEM.high) if inner is int else spoken(inner)


def members(field: Field) -> list[Any]:
    """Members of the field's enumeration that its limit admits."""
    plain: Any = plain_type(field)
    return [one for one in plain if not isinstance(one, IntEnum) or one.value >= field.limit.low]


def spoken(kind: type) -> st.SearchStrategy[Any]:
    """Messages or records of one kind."""
    return st.builds(kind, **{field.name: values(field) for field in codec.fields_of(kind)})


MESSAGES: st.SearchStrategy[Message] = st.deferred(lambda: st.one_of([spoken(kind) for kind in messages.ALL]))


# -- extremes --------------------------------------------------------------------------------


def smallest(field: Field) -> Any:
    """The least that the field takes."""
    return _extreme(field, field.limit.low, least=True)


def largest(field: Field) -> Any:
    """The most that the field takes."""
    return _extreme(field, field.limit.high, least=False)


def beyond(field: Field) -> list[tuple[Any, Reason]]:
    """Values of the right type just outside the limit, and why they are refused. Not for enumerations."""
    sizes = [(field.limit.low - 1, Reason.MALFORMED), (field.limit.high + 1, Reason.TOO_LARGE)]
    counts = plain_type(field) is not int
    return [(_sized(field, size, least=True), why) for size, why in sizes if size >= 0 or not counts]


def _extreme(field: Field, size: int, *, least: bool) -> Any:
    if issubclass(plain_type(field), Enum):
        return (min if least else max)(members(field), key=lambda one: len(str(one)))
    return _sized(field, size, least=least)


def _sized(field: Field, size: int, *, least: bool) -> Any:
    plain = plain_type(field)
    if plain is tuple:
        inner = item_type(field)
        return ((0 if least else U32) if inner is int else extreme(inner, least=least),) * size
    if plain is int:
        return size
    # Two bytes a letter: a limit that counted letters would show.
    return b"\xff" * size if plain is bytes else "é" * (size // 2) + "x" * (size % 2)


def extreme(kind: type, *, least: bool) -> Any:
    """A message or record with every field at its least, or at its most."""
    pick = smallest if least else largest
    return kind(**{field.name: pick(field) for field in codec.fields_of(kind)})


# -- breakages -------------------------------------------------------------------------------


def typical(kind: type) -> Any:
    """A message or record that states every field, with something in every list."""
    return kind(**{field.name: _typical_value(field) for field in codec.fields_of(kind)})


def _typical_value(field: Field) -> Any:
    plain = plain_type(field)
    if plain is tuple:
        inner = item_type(field)
        pair = (7, 8) if inner is int else (typical(inner), typical(inner))
        return pair[: field.limit.high]
    if issubclass(plain, Enum):
        return members(field)[0]
    return _sized(field, min(field.limit.high, max(field.limit.low, 5)), least=True)


def wire_of(value: Any) -> dict[bytes, bencode.BencodeValue]:
    """The dictionary of a message, with its code, or of a record."""
    wire = codec.to_wire(value)
    return {b"t": value.code, **wire} if isinstance(value, messages.ALL) else wire


def places(value: bencode.BencodeValue, path: Path = ()) -> Iterator[tuple[Path, bencode.BencodeValue]]:
    """Every place of a wire value with what stands there, the root first."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def removed(wire: bencode.BencodeValue, path: Path) -> bencode.BencodeValue:
    """The wire value without what stands at `path`."""
    changed = deepcopy(wire)
    del _inside(changed, path[:-1])[path[-1]]
    return changed


def replaced(wire: bencode.BencodeValue, path: Path, new: bencode.BencodeValue) -> bencode.BencodeValue:
    """The wire value with `new` at `path`, which may be a key that was not there."""
    if not path:
        return new
    changed = deepcopy(wire)
    _inside(changed, path[:-1])[path[-1]] = new
    return changed


def _inside(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def is_enum(field: Field) -> bool:
    """One of a fixed set of words or numbers."""
    return issubclass(plain_type(field), StrEnum | IntEnum)


def enumerated(kind: type) -> list[Any]:
    """All members of an enumeration."""
    assert issubclass(kind, Enum)
    return list(kind)
