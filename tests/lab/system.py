"""Commands of the system, run to their end, and whether this machine has what a laboratory needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache

from tests.lab.line import LabError
from tests.lab.remover import NAMESPACES, remove

TOOLS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "bridge": "iproute2",
    "iptables-restore": "iptables",
    "ip6tables-restore": "iptables",
    "nsenter": "util-linux",
}
# Hosts forward as well: a system that does asks for no router, and the wire stays quiet.
_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/tcp_no_metrics_save": "1",  # or a flow would start with what an earlier one learned
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
}


def command(*arguments: str, given: str | None = None) -> str:
    """Its output. Raises LabError with what it said when it fails."""
    done = subprocess.run(arguments, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:500]
        raise LabError(f"{' '.join(arguments)}: {said}")
    return done.stdout


def batch(tool: str, namespace: str, lines: Iterable[str]) -> None:
    """Runs many lines of `ip`, `bridge` or `tc` at once. Raises LabError at the first that fails."""
    command(tool, "-n", namespace, "-batch", "-", given="".join(f"{line}\n" for line in lines))


def within(namespace: str, arguments: Iterable[str]) -> list[str]:
    """The command that runs another inside a namespace, in the same process."""
    return ["nsenter", f"--net={NAMESPACES}/{namespace}", *arguments]


def add_namespace(name: str) -> None:
    """With loopback, both IP versions and forwarding."""
    command("ip", "netns", "add", name)
    batch("ip", name, ["link set lo up"])
    settings = "; ".join(f"echo {value} > /proc/sys/{key}" for key, value in _SETTINGS.items())
    command(*within(name, ["sh", "-ec", settings]))


def restore_rules(namespace: str, rules: str) -> None:
    """Replaces a table of packet rules, for IPv4 and for IPv6."""
    for tool in ("iptables-restore", "ip6tables-restore"):
        command(*within(namespace, [tool]), given=rules)


def unavailable() -> str | None:
    """Why no laboratory can be built here; None if one can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root (or unshare --user --map-root-user --net --mount)"
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    return f"install {', '.join(missing)}" if missing else _refusal_of_kernel()


@cache
def _refusal_of_kernel() -> str | None:
    prefix = f"penstock-{os.getpid()}-0-"
    name = f"{prefix}trial"
    try:
        add_namespace(name)
        batch("ip", name, ["link add br1 type bridge", "link add s1 type veth peer name w1"])
        batch("tc", name, ["qdisc add dev s1 root tbf rate 1mbit burst 4000 limit 4000"])
        restore_rules(name, "*mangle\n-A FORWARD -j NFQUEUE --queue-num 0\nCOMMIT\n")
    except LabError as error:
        return f"this machine refuses: {error}"
    finally:
        remove(prefix)
    return None
