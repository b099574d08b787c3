"""Invariant: what is printed as an address is read back as the same one; all else is refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.errors import LocalError
from shared.core.ids import (
    DEFAULT_PORT,
    Address,
    HostPort,
    InfoHash,
    NodeId,
    TitleId,
    parse_address,
    parse_host_port,
    parse_infohash,
    parse_node_id,
    parse_title_id,
)

NODE, TITLE = NodeId(bytes(range(32))), TitleId(bytes(range(16)))
ID = NODE.hex()

IPS = st.ip_addresses().map(str)
NAMES = st.from_regex(r"[a-z0-9_][a-z0-9_-]{0,10}(\.[a-z0-9][a-z0-9-]{0,10}){0,3}", fullmatch=True)
PLACES = st.builds(HostPort, IPS | NAMES, st.integers(0, 65535))
ADDRESSES = st.builds(
    Address,
    st.binary(min_size=32, max_size=32).map(NodeId),
    PLACES,
    st.none() | st.binary(min_size=16, max_size=16).map(TitleId),
)
HOSTILE = [
    "",
    " ",
    ":",
    ":80",
    "host:",
    "host:-1",
    "host:65536",
    "host:99999",
    "host:123456",
    "host:٣",
    "host:1 ",
    "host: 1",
    "host:1\n",
    "host\n:1",
    "host\0:1",
    "ho st:1",
    "a/b:1",
    "../x:1",
    "user@host:1",
    "host:1:2",
    "::1",
    "2001:db8::1:4430",
    "[::1",
    "[]:1",
    "[:::::]:1",
    "[abcd]:1",
    "[1.2.3.4]:1",
    "[::1%eth0]:1",
    "[::12345]:1",
    "[1:2:3:4:5:6:7:8:9]:1",
    "[[::1]]:1",
    "höst:1",
    "\x1b[31mred:1",
    "\u202ehost:1",
    "h" * 254 + ":1",
    "9" * 100_000,
]


def refused(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(LocalError) as caught:
        parse(text)
    assert str(caught.value).isprintable()
    assert "expected" in str(caught.value)
    assert len(str(caught.value)) < 600


@given(ADDRESSES)
def test_an_address_is_read_back(address: Address) -> None:
    """parse(str(x)) == x, in capitals and with spaces around it as well."""
    assert parse_address(str(address)) == address
    assert parse_address(f"  {str(address).upper()}/\n") == address


@given(PLACES)
def test_a_place_is_read_back(at: HostPort) -> None:
    """parse(str(x)) == x."""
    assert parse_host_port(str(at)) == at


@given(IPS | NAMES, st.integers(0, 65535))
def test_the_port_may_be_left_out(host: str, port: int) -> None:
    """A host alone is given the default port, in its own form of writing."""
    text = f"[{host}]" if ":" in host else host
    assert parse_host_port(text) == HostPort(host, DEFAULT_PORT)
    assert parse_host_port(text, port) == HostPort(host, port)


@settings(max_examples=500)
@given(st.text(max_size=60) | st.text("[]:.0123456789abf@/%- ", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Any text raises LocalError, or prints as something that is read as the same again."""
    for parse in (parse_host_port, parse_address):
        try:
            found: object = parse(text)
        except LocalError as error:
            assert str(error).isprintable()
        else:
            assert parse(str(found)) == found
            assert str(found).isascii()


@settings(max_examples=500)
@given(ADDRESSES, st.data())
def test_changed_addresses_are_read_or_refused(address: Address, data: st.DataObject) -> None:
    """An address with a stretch changed raises LocalError, or prints as what is read as the same again."""
    text = str(address)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3)))
    patch = data.draw(st.text(max_size=2) | st.text("[]:@/0aF.", max_size=3))
    try:
        found = parse_address(text[:start] + patch + text[end:])
    except LocalError as error:
        assert str(error).isprintable()
    else:
        assert parse_address(str(found)) == found


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:30]))
def test_hostile_places_are_refused(text: str) -> None:
    refused(parse_host_port, text)
    refused(parse_address, f"penstock://{ID}@{text}/{TITLE.hex()}" if text.strip() else text)


@pytest.mark.parametrize(
    "text",
    [
        ID,
        "penstock:",
        "penstock://",
        f"penstock://{ID}",
        f"penstock://{ID}@",
        f"penstock://{ID}@/",
        f"penstock://{ID[:-1]}@host:1",
        f"penstock://{ID}0@host:1",
        f"penstock://{ID[:-1]}g@host:1",
        f"penstock:/{ID}@host:1",
        f"https://{ID}@host:1",
        f"x penstock://{ID}@host:1",
        f"penstock://{ID}@host:1/{TITLE.hex()[:-1]}",
        f"penstock://{ID}@host:1/{TITLE.hex()}0",
        f"penstock://{ID}@host:1/{TITLE.hex()}//",
        f"penstock://{ID}@host:1/../../etc/passwd",
        f"penstock://{ID}@host:1?x=1",
        f"penstock://{ID}@host:1#x",
        f"penstock://{ID}@host:1 --script=x",
        f"pen\u017ftock://{ID}@host:1",  # a long s, which has S as its capital
        f"penstoc\u212a://{ID}@host:1",  # the sign of the Kelvin, which has k as its small letter
        f"penstock://{ID}@\u212aiel:1",
    ],
    ids=lambda text: ascii(text[-40:]),
)
def test_hostile_addresses_are_refused(text: str) -> None:
    refused(parse_address, text)


def test_form_of_writing() -> None:
    assert str(Address(NODE, HostPort("::1", 9), TITLE)) == f"penstock://{ID}@[::1]:9/{TITLE.hex()}"
    assert str(Address(NODE, HostPort("tv.example", 443))) == f"penstock://{ID}@tv.example:443"


@given(st.binary(min_size=32, max_size=32))
def test_names_are_read_back(raw: bytes) -> None:
    """The hexadecimal digits of a name are read as the same name, in small letters only."""
    assert parse_infohash(raw.hex()) == InfoHash(raw)
    assert parse_node_id(raw.hex()) == NodeId(raw)
    assert parse_title_id(raw[:16].hex()) == TitleId(raw[:16])


@pytest.mark.parametrize("parse", [parse_infohash, parse_node_id, parse_title_id])
@pytest.mark.parametrize(
    "text",
    ["", "0x" + "0" * 30, "g" * 32, "A" * 32, "A" * 64, " " * 64, "0" * 31, "0" * 63, "0" * 65, "٣" * 32],
)
def test_hostile_names_are_refused(parse: object, text: str) -> None:
    refused(parse, text)


@pytest.mark.parametrize("parse", [parse_infohash, parse_node_id, parse_title_id])
@pytest.mark.parametrize("size", [32, 64])
def test_a_line_break_is_no_digit(parse: object, size: int) -> None:
    refused(parse, "0" * size + "\n")
    refused(parse, "0" * (size - 1) + "\n")
