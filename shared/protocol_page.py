"""The protocol as a page to read: `python -m shared.protocol_page > docs/protocol.md`.

Nothing is written down twice. Prose comes from the docstrings of the modules that do the work,
tables from the messages' own fields and limits, meanings from the comments beside them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from enum import Enum, IntEnum, StrEnum
from typing import Any, get_args, get_origin

from shared.core import bencode, bulk, codec, ids, messages, sealed, sealed_vectors, session, tickets
from shared.core.codec import Field
from shared.core.errors import Reason
from shared.core.ids import Kind

RECORDS = (
    messages.Rendition, messages.Entry, messages.Source, messages.Share, messages.Use,
    messages.SwarmHeld, messages.Withdrawn, messages.Fellow,
)  # fmt: skip
WORDS = (ids.Kind, ids.Mode, messages.Event, messages.Why, messages.Stage, messages.PlaceStage)

_HEAD = """\
# Protocol

This page is printed from the code: `python -m shared.protocol_page > docs/protocol.md`. A test fails
when it is stale. The words are those of [the architecture](architecture.md).
"""

_ENCODING = """\
Bencode is read in its canonical form only: keys sorted and given once, integers in their shortest
form and within 64 bits, at most {depth} containers inside one another, {items} entries in all of
them together, nothing after the end. A field that states its default is refused, so that every
message has exactly one encoding.
Text is UTF-8 of printable characters: no controls, no terminal escapes, no overrides of direction.
Limits of text and bytes count bytes, limits of lists count items.

Whoever receives anything else closes the connection with the number of a [reason](#reasons).

| | |
|---|---|
| ALPN | `{alpn}` |
| protocol version | {version} |
| longest message | {longest} bytes |
| example | `Browse` with request 1 is `{frame}` |
"""


def page() -> str:
    """The whole page, Markdown in ASCII."""
    parts = [
        _HEAD,
        _section("Control stream", _prose(messages), _encoding()),
        _section("Order", _prose(session)),
        _section("Messages", _overview(), *map(_message, messages.ALL)),
        _section("Records", "Dictionaries inside messages.", *map(_record, RECORDS)),
        _section("Words", "Strings out of a fixed set.", *map(_word_list, WORDS)),
        _section("Reasons", _prose(Reason), _reasons()),
        _section("Bulk streams", _prose(bulk), _bulk_numbers()),
        _section("Sealed datagrams", _prose(sealed), _vectors()),
        _section("Tickets", _prose(tickets), _ticket_numbers()),
        _section("Addresses", _prose(ids.Address)),
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _section(title: str, *parts: str) -> str:
    return f"## {title}\n\n" + "\n\n".join(part.strip("\n") for part in parts)


def _prose(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# -- messages --------------------------------------------------------------------------------


def _encoding() -> str:
    body = messages.encode(messages.Browse(1))
    header = "".join(f"\\x{byte:02x}" for byte in len(body).to_bytes(4, "big"))
    return _ENCODING.format(
        depth=bencode.MAX_DEPTH,
        items=bencode.MAX_ITEMS,
        alpn=messages.ALPN,
        version=messages.PROTOCOL_VERSION,
        longest=messages.MAX_MESSAGE_BYTES,
        frame=header + body.decode(),
    )


def _overview() -> str:
    return _table(
        ("code", "message", "said by", "heard by", "what it is"),
        (
            (str(kind.code), _link(kind), _people(kind.said_by), _people(kind.heard_by), _first_line(kind))
            for kind in messages.ALL
        ),
    )


def _message(kind: type[messages.Message]) -> str:
    who = f"Code {kind.code}; said by {_people(kind.said_by)}; heard by {_people(kind.heard_by)}."
    return f"### {kind.__name__}\n\n{_prose(kind)}\n{who}\n\n{_fields(kind)}"


def _record(kind: type) -> str:
    return f"### {kind.__name__}\n\n{_prose(kind)}\n\n{_fields(kind)}"


def _people(kinds: frozenset[Kind]) -> str:
    if len(kinds) > len(Kind) - 2:
        return " ".join(["anybody", *(f"but {kind}" for kind in Kind if kind not in kinds)])
    return ", ".join(kind for kind in Kind if kind in kinds)


def _link(kind: type) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _first_line(thing: object) -> str:
    return _prose(thing).partition("\n")[0]


# -- fields ----------------------------------------------------------------------------------


def _fields(kind: type) -> str:
    comments = _comments(kind)
    return _table(
        ("field", "type", "limit", "default", "meaning"),
        (
            (f"`{field.name}`", _type(field), _limit(field), _default(field), _meaning(field, comments))
            for field in codec.fields_of(kind)
        ),
    )


def _plain(kind: Any) -> Any:
    return getattr(kind, "__supertype__", kind)  # NewType


def _type(field: Field) -> str:
    if get_origin(field.kind) is tuple:
        inner = get_args(field.kind)[0]
        return "list of integers below 2^32" if inner is int else f"list of {_link(inner)}"
    plain = _plain(field.kind)
    if issubclass(plain, IntEnum):
        return "[Reason](#reasons)"
    if issubclass(plain, StrEnum):
        return _link(plain)
    return {int: "integer", bytes: "bytes", str: "text"}[plain]


def _limit(field: Field) -> str:
    low, high = field.limit.low, field.limit.high
    plain = _plain(field.kind)
    if get_origin(field.kind) is tuple:
        return f"{low} to {high} items"
    if issubclass(plain, Enum):
        return ""
    span = _number(low) if low == high else f"{_number(low)} to {_number(high)}"
    return span if plain is int else f"{span} bytes"


def _number(value: int) -> str:
    for bits in range(17, 65):
        if value == 1 << bits:
            return f"2^{bits}"
        if value == (1 << bits) - 1:
            return f"2^{bits} - 1"
    return str(value)


def _default(field: Field) -> str:
    if not field.optional:
        return ""
    return {int: str(field.default), str: "empty", bytes: "empty", tuple: "empty"}[type(field.default)]


def _meaning(field: Field, comments: dict[str, str]) -> str:
    return field.limit.says + _after(" ", comments.get(field.name))


def _comments(kind: type) -> dict[str, str]:
    """What the comments at the end of the lines say of fields and members."""
    lines = re.finditer(r"^    (\w+)(?::| =).*?  # (.+)$", inspect.getsource(kind), re.MULTILINE)
    return {match[1]: match[2] for match in lines}


# -- words, reasons and numbers --------------------------------------------------------------


def _word_list(kind: type[StrEnum]) -> str:
    comments = _comments(kind)
    rows = [f"* `{word.value}`{_after(': ', comments.get(word.name))}" for word in kind]
    listed = "\n".join(rows) if comments else ", ".join(f"`{word.value}`" for word in kind)
    return f"### {kind.__name__}\n\n{_prose(kind)}\n\n{listed}"


def _after(mark: str, text: str | None) -> str:
    return f"{mark}{text}" if text else ""


def _reasons() -> str:
    comments = _comments(Reason)
    return _table(
        ("number", "reason", "meaning"),
        ((str(one.value), f"`{one.name}`", comments.get(one.name, "all is well")) for one in Reason),
    )


def _bulk_numbers() -> str:
    return (
        f"One upload request carries at most {bulk.MAX_UPLOAD_BYTES} bytes, "
        f"one probe {bulk.MAX_PROBE_BYTES}. "
        f"A `slack_ms` of {_number(bulk.NO_DEADLINE_MS)} is no deadline."
    )


def _vectors() -> str:
    rows = "\n".join(f"    {name:14}{data.hex()}" for name, data in sealed_vectors.vectors())
    return f"### Test vectors\n\n{_prose(sealed_vectors)}\n\n{rows}"


def _ticket_numbers() -> str:
    return (
        f"A ticket has {tickets.TICKET_BYTES} bytes and runs for {tickets.TICKET_SECONDS} s. "
        f"It is taken up to\n{tickets.CLOCK_SKEW_SECONDS} s longer, as two machines' clocks may differ. "
        f"A quota of {_number(tickets.UNLIMITED)} is none."
    )


if __name__ == "__main__":
    print(page(), end="")
