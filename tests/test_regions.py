"""The region table: longest prefix, two formats, errors that name their place, hot reload."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from shared.core.errors import LocalError
from shared.core.ids import HostPort, Kind
from shared.core.messages import Browse
from tests.tracker_parts import NOW, announce, ask, entry, hello, infohash, node, tracker
from tracker import region_file
from tracker.core.regions import RegionTable, parse

MAP = {
    "meta": {"vtag": {"resource-id": "default", "tag": "1"}},
    "network-map": {
        "north": {"ipv4": ["192.0.2.0/24", "198.51.100.0/25"]},
        "cellar": {"ipv4": ["192.0.2.128/25"], "ipv6": ["2001:db8:1::/48"], "mac48": ["01"]},
        "world": {"ipv4": ["0.0.0.0/0"], "ipv6": ["::/0"]},
    },
}
LINES = "# ours\nprefix,region\n192.0.2.0/24, north\n192.0.2.128/25,cellar # below\n\n::/0,world\n"


@pytest.mark.parametrize(
    "host, region",
    [
        ("192.0.2.1", "north"),
        ("192.0.2.200", "cellar"),
        ("::ffff:192.0.2.200", "cellar"),
        ("198.51.100.127", "north"),
        ("198.51.100.128", "world"),
        ("2001:db8:1:2::3", "cellar"),
        ("fe80::1%eth0", "world"),
        ("edge.example.org", ""),
    ],
)
def test_the_longest_prefix_wins(host: str, region: str) -> None:
    assert parse(json.dumps(MAP)).region_of(host) == region


def test_lines_say_the_same_as_a_map() -> None:
    table = parse(LINES)
    assert [table.region_of(host) for host in ("192.0.2.1", "192.0.2.129", "::1", "10.0.0.1")] == [
        "north",
        "cellar",
        "world",
        "",
    ]
    assert (table.prefixes, table.regions) == (3, {"north", "cellar", "world"})


networks = st.builds(
    lambda number, length: ip_network((number >> (32 - length) << (32 - length), length)),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, 32),
)


@given(st.dictionaries(networks, st.sampled_from("abc"), max_size=30), st.integers(0, (1 << 32) - 1))
def test_a_look_up_finds_what_a_search_through_all_prefixes_finds(table, number) -> None:  # type: ignore[no-untyped-def]
    """The region is that of the longest of all prefixes that contain the address."""
    address = ip_address(number)
    around = [network for network in table if address in network]
    expected = table[max(around, key=lambda network: network.prefixlen)] if around else ""
    found = RegionTable(("here", network, region) for network, region in table.items())
    assert found.region_of(str(address)) == expected


def alto(**regions: object) -> str:
    return json.dumps({"network-map": regions})


@pytest.mark.parametrize(
    "text, error",
    [
        ("192.0.2.0/24 north", r"^line 1: .* is not `prefix,region`"),
        ("\n192.0.2.1/24,north", r"^line 2: 192\.0\.2\.1/24 has host bits set"),
        ("192.0.2.0/24,a\n192.0.2.0/24,b", r"^line 2: 192\.0\.2\.0/24 is in a already"),
        ("nonsense,north", r"^line 1: 'nonsense' does not appear to be"),
        ("10.0.0.0/8,", r"^line 1: .* is no region"),
        ("10.0.0.0/8," + "x" * 33, r"^line 1: .* is no region"),
        ("10.0.0.0/8,\x1b[31m", r"^line 1: .* is no region"),
        ('{\n"a": }', r"^line 2: not JSON"),
        ('{"a":' * 100_000, r"^line 1: not a network map"),
        ('{"a":' + "1" * 5000 + "}", r"^line 1: not a network map"),
        ("{}", r"^network-map: must be an object"),
        ('{"network-map": {"a": {}, "a": {}}}', r"^a: stands twice"),
        (alto(north=[]), r"^network-map\.north: must be an object"),
        (alto(north={"ipv4": "10.0.0.0/8"}), r"^network-map\.north\.ipv4: must be a list"),
        (alto(north={"ipv4": ["10.0.0.0/8", 7]}), r"^network-map\.north\.ipv4\[1\]: 7 is not an IPv4"),
        (alto(north={"ipv4": ["::/0"]}), r"^network-map\.north\.ipv4\[0\]: ::/0 is not an IPv4"),
        (alto(a={"ipv4": ["10.0.0.0/8"]}, b={"ipv4": ["10.0.0.0/8"]}), r"^network-map\.b\.ipv4\[0\]: "),
        ('{"network-map": {"\\ud800": {"ipv4": ["10.0.0.0/8"]}}}', r"is no region"),
    ],
)  # fmt: skip
def test_errors_name_their_line_or_entry(text: str, error: str) -> None:
    with pytest.raises(LocalError, match=error) as caught:
        parse(text)
    assert str(caught.value).isprintable()


@given(st.text() | st.text().map("{{{}".format))
def test_garbage_is_a_table_or_a_named_error(text: str) -> None:
    """Nothing but a LocalError of one printable line comes out of a file that cannot be read."""
    try:
        parse(text)
    except LocalError as error:
        assert str(error).isprintable()


# -- the file -----------------------------------------------------------------------------------


async def test_a_changed_file_is_read_again_and_a_wrong_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "regions.csv"
    path.write_text("10.0.0.0/8,north\n")
    tables: list[RegionTable] = []
    monkeypatch.setattr(region_file, "LOOK_EVERY_SECONDS", 0.01)

    async def until(happened: Callable[[], bool]) -> None:
        with trio.fail_after(30):
            while not happened():  # noqa: ASYNC110  # files and signals are no events
                await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(region_file.watch, path, tables.append)
        await wait_all_tasks_blocked()
        path.write_text("10.0.0.0/8,north\nrubbish")
        await until(lambda: f"the old table stays in use: {path}: line 2" in caplog.text)
        assert tables == []
        path.write_text("10.0.0.0/8,southern\n")
        await until(lambda: len(tables) == 1)
        assert tables[0].region_of("10.1.2.3") == "southern"
        os.kill(os.getpid(), signal.SIGHUP)  # on which an unchanged file is read, too
        await until(lambda: len(tables) == 2)
        nursery.cancel_scope.cancel()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be read"):
        region_file.load(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"10.0.0.0/8,a\n10.1.0.0/16,\xe9\n")
    with pytest.raises(LocalError, match="line 2: not UTF-8"):
        region_file.load(tmp_path / "latin")


# -- the tracker --------------------------------------------------------------------------------


def test_the_table_is_believed_before_the_node_and_a_new_table_moves_who_is_here() -> None:
    core = tracker(entry("film", node("edge")))
    core.use_regions(parse("192.0.2.0/24,north"))
    for name, at in (("inside", "192.0.2.7"), ("outside", "203.0.113.7")):
        core.connected(node(name), HostPort(at, 4430), hello(Kind.PC, "claimed"), NOW)
        ask(core, announce(infohash("film")), node(name))
    assert [core.nodes[node(name)].region for name in ("inside", "outside")] == ["north", "claimed"]
    core.use_regions(parse("192.0.2.0/24,south"))
    ask(core, Browse(1), node("inside"))
    assert core.nodes[node("inside")].region == "south"
    holder = core.swarms.find(infohash("film"), node("inside"))
    assert holder is not None
    assert holder.region == "south"
