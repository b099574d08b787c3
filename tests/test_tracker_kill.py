"""A tracker that is killed with SIGKILL loses nothing that it acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from shared import clock
from shared.core.messages import Report, Use
from tests.desk_parts import desks_of
from tests.tracker_parts import NOW, ask, entry, infohash, join, node, title_id

EDGE = node("edge")

WRITER = """
    import sys, trio
    from pathlib import Path
    from shared import clock
    from shared.core.messages import Report, Use
    from tests.desk_parts import desks_of
    from tests.tracker_parts import NOW, ask, entry, infohash, join, node

    async def write():
        async with desks_of(Path(sys.argv[1]), entry("used", node("edge"))) as desks:
            desks.core.titles.put(entry("used", node("edge")))
            join(desks.core, "pc")
            for number in range(100_000):
                one = entry(number, node("edge"))
                await desks.store.store_title(one)
                desks.core.titles.put(one)
                await desks.post("groups", {"name": f"group {number}"})
                await desks.post("members", {"group": f"group {number}", "add": [node(number).hex()]})
                await desks.post("kept", {"title": one.title, "groups": [f"group {number}"]})
                release_at = clock.now() + 1000 + number
                await desks.post("plans", {"title": one.title, "release_at": release_at, "edges": 1})
                told = Report(0, 0, 0, 0, 0, 0, 0, 0, 0, (), int(sys.argv[2]),
                              (Use(infohash("used"), 10 * number, number, 0),))
                ask(desks.core, told, node("pc"), NOW)
                await desks.office.ledger.write_counts()
                print(number, flush=True)

    trio.run(write)
"""


def write_until_killed(folder: Path, run: int, wanted: int) -> int:
    """How many rounds of a writer were acknowledged, when it was killed after at least `wanted`."""
    root = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), str(run)]
    environment = {**os.environ, "PYTHONPATH": root}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=environment) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(wanted)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
    return sum(line.endswith(b"\n") for line in lines)


@pytest.mark.parametrize("wanted", [1, 8])
async def test_kill_9_loses_no_acknowledged_title_group_member_or_plan(tmp_path: Path, wanted: int) -> None:
    """All that was acknowledged is there after the kill, in the database and in the new core; and bytes that
    the node reports again are counted once."""
    run = int(clock.now() * 1000)
    acknowledged = write_until_killed(tmp_path, run, wanted)
    assert acknowledged >= wanted
    async with desks_of(tmp_path) as desks:
        groups = {one["name"]: one for one in (await desks.get("groups?limit=500"))["groups"]}
        for number in range(acknowledged):
            title = title_id(number)
            assert desks.core.entries[title] == entry(number, EDGE)
            assert (groups[f"group {number}"]["members"], groups[f"group {number}"]["titles"]) == (1, 1)
            assert desks.core.groups.may_watch(title, EDGE, node(number))
            assert not desks.core.groups.may_watch(title, EDGE, node("stranger"))
            assert desks.core.content.plans.open[title].edges == 1
        assert len(desks.core.content.plans.open) - acknowledged in (0, 1)

        join(desks.core, "pc")
        told = Report(0, 0, 0, 0, 0, 0, 0, 0, 0, (), run, (Use(infohash("used"), 1_000_000, 500_000, 1),))
        ask(desks.core, told, node("pc"), NOW)
        await desks.office.ledger.write_counts()
        (used,) = (await desks.get("usage?from=1970-01-01&to=1970-02-01"))["usage"]
        assert (used["edge_bytes"], used["peer_bytes"], used["uploaded_bytes"]) == (1_000_000, 500_000, 1)
