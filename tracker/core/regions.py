"""Which region an address is in: the longest prefix of a table wins.

A table is an ALTO network map (RFC 7285, section 11.2.1), whose PIDs are our regions, or CSV lines
`prefix,region`. Prefixes may lie inside one another; the same prefix twice in different regions is
an error, as RFC 7285 has it, and so is anything that cannot be read: errors name their line or entry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from shared.core.errors import LocalError

MAX_PREFIXES = 2_000_000  # the whole routing table of the Internet is 1.2 million
MAX_REGION_BYTES = 32  # as in Hello
MAX_SHOWN = 80
FAMILIES = {"ipv4": 4, "ipv6": 6}

Network = IPv4Network | IPv6Network
Placed = tuple[str, Network, str]  # where it stands in the file, prefix, region


class RegionTable:
    """Prefixes to regions; a look-up costs one dictionary access per length of prefix in use."""

    def __init__(self, entries: Iterable[Placed] = ()) -> None:
        """Raises LocalError for a prefix that stands in two regions."""
        self._by_length: dict[tuple[int, int], dict[int, str]] = {}
        self.prefixes = 0
        self.regions: set[str] = set()
        for where, network, region in entries:
            length = (network.version, network.prefixlen)
            same = self._by_length.setdefault(length, {})
            number = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            if same.setdefault(number, region) != region:
                raise LocalError(
                    f"{where}: {network} is in {same[number]} already; say only once where it is"
                )
            self.prefixes += 1
            self.regions.add(region)
            if self.prefixes > MAX_PREFIXES:
                raise LocalError(f"{where}: more than {MAX_PREFIXES} prefixes; give a coarser table")
        self._lengths = sorted(self._by_length, reverse=True)

    def region_of(self, host: str) -> str:
        """The region of an IP address; empty if no prefix covers it, or it is a name."""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return ""
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        number, bits = int(address), address.max_prefixlen
        for version, length in self._lengths:
            if version == address.version:
                region = self._by_length[version, length].get(number >> (bits - length))
                if region is not None:
                    return region
        return ""


def parse(text: str) -> RegionTable:
    """The table in a file's text: JSON if it begins with a brace, else CSV. Raises LocalError."""
    text = text.removeprefix("\ufeff")
    return RegionTable(_alto(text) if text.lstrip().startswith("{") else _csv(text))


def _csv(text: str) -> Iterator[Placed]:
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line or line.replace(" ", "") == "prefix,region":
            continue
        where = f"line {number}"
        prefix, comma, region = line.partition(",")
        if not comma:
            raise LocalError(f"{where}: {_short(line)} is not `prefix,region`")
        yield where, _network(where, prefix.strip(), None), _region(where, region.strip())


def _alto(text: str) -> Iterator[Placed]:
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise LocalError(f"line {error.lineno}: not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # a nest of brackets; a number of 5000 digits
        raise LocalError(f"line 1: not a network map: {_short(str(error))}") from None
    regions = document.get("network-map")
    if not isinstance(regions, dict):
        raise LocalError("network-map: must be an object of PIDs (RFC 7285, section 11.2.1)")
    for region, families in regions.items():
        yield from _pid(f"network-map.{_short(region)}", region, families)


def _pid(where: str, region: str, families: Any) -> Iterator[Placed]:
    if not isinstance(families, dict):
        raise LocalError(f"{where}: must be an object of ipv4 and ipv6 lists")
    for family, prefixes in families.items():
        version = FAMILIES.get(family)
        if version is None:
            continue  # RFC 7285, section 10.4.2: other address types may come and are passed over
        if not isinstance(prefixes, list):
            raise LocalError(f"{where}.{family}: must be a list of prefixes")
        for number, prefix in enumerate(prefixes):
            entry = f"{where}.{family}[{number}]"
            yield entry, _network(entry, prefix, version), _region(entry, region)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise LocalError(f"{_short(key)}: stands twice in one object; join the two")
        found[key] = value
    return found


def _network(where: str, prefix: Any, version: int | None) -> Network:
    try:
        network = ip_network(prefix) if isinstance(prefix, str) else None
    except ValueError as error:
        raise LocalError(f"{where}: {_short(str(error))}") from None
    if network is None or version not in (None, network.version):
        raise LocalError(f"{where}: {_short(prefix)} is not an IPv{version or '4 or 6'} prefix")
    return network


def _region(where: str, region: str) -> str:
    if not region.isprintable() or not 1 <= len(region.encode()) <= MAX_REGION_BYTES:
        raise LocalError(f"{where}: {_short(region)} is no region: 1 to {MAX_REGION_BYTES} printable bytes")
    return region


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) or not value.isprintable() else value
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
