"""Path MTU discovery on the kernel's own paths: a namespace whose loopback carries only so much."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache

import pytest

TRANSFER = """
import subprocess, sys, trio
from shared.endpoint import open_endpoint
from tests.quic_pair import FAR, NEAR, read_all

SOME = bytes(3_000_000)

async def transfer(near, far):
    stream = near.open_stream()
    async with trio.open_nursery() as nursery:
        async def write():
            await stream.send_all(SOME)
            stream.send_eof()
        nursery.start_soon(write)
        assert await read_all(await far.accept_stream()) == SOME
    return near.statistics().datagram_bytes

async def main(host, later):
    with trio.fail_after(40):
        async with open_endpoint(FAR, host) as one, open_endpoint(NEAR, host) as other:
            near = await other.connect(FAR.id, one.local)
            far = await one.accept()
            print(await transfer(near, far))
            if later:
                subprocess.run(["ip", "link", "set", "lo", "mtu", later], check=True)
                print(await transfer(near, far))
            print("segments" if other._socket.segments else "plain")

trio.run(main, sys.argv[1], sys.argv[2])
"""


@cache
def own_network() -> bool:
    """Whether a network namespace can be made here."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    tried = subprocess.run(
        ["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, check=False
    )
    return tried.returncode == 0


def sizes(mtu: int, host: str, later: str = "") -> list[str]:
    """What a connection found in a namespace whose loopback has this MTU, and then `later`."""
    if not own_network():
        pytest.skip("needs unshare and ip, and the right to make a network namespace")
    script = 'ip link set lo mtu "$1" && ip link set lo up && exec "$2" -c "$3" "$4" "$5"'
    arguments = ["unshare", "-n", "sh", "-c", script, "sh", str(mtu), sys.executable, TRANSFER, host, later]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.mark.parametrize(
    ("mtu", "host", "found"),
    [
        (1500, "127.0.0.1", "1452"),
        (1500, "::1", "1452"),
        (1400, "127.0.0.1", "1350"),
        (1280, "::1", "1200"),
        (9000, "127.0.0.1", "8900"),
    ],
)
def test_a_device_of_some_size(mtu: int, host: str, found: str) -> None:
    """The system refuses larger probes; the connection finds what fits, and loses nothing by it."""
    assert sizes(mtu, host)[0] == found


def test_a_device_that_becomes_smaller() -> None:
    """Batches that the system refuses end neither the connection nor segmented sends."""
    first, then, how = sizes(1500, "127.0.0.1", later="1400")
    assert (first, then) == ("1452", "1350")
    assert how == sizes(1500, "127.0.0.1")[-1]
