"""`penstock demo` as people run it: piped, left running, and broken off."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from rich.console import Console

from peer.demo import tables
from peer.demo.house import PENSTOCK, environment
from peer.demo.viewers import Viewer
from peer.headless import Experience
from tests.house_parts import COMMAND_SECONDS, last_json, run, says_one_line

SECONDS = 20
KEYS = ["name", "kind", "startup_seconds", "stalls", "edge_bytes", "peer_bytes", "uploaded_bytes", "verified"]
RUNS_ON = "everything runs on; Ctrl-C ends it\n"


@contextmanager
def begin(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo in a session of its own, as in a terminal; nothing of it is left afterwards."""
    with subprocess.Popen(
        [*PENSTOCK, "demo", "--seconds", str(SECONDS), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as demo:
        try:
            yield demo
        finally:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)


def read_until(demo: subprocess.Popen[str], start: str) -> list[str]:
    """Its lines, up to the one with this start."""
    assert demo.stdout is not None
    lines: list[str] = []
    for line in demo.stdout:
        lines.append(line)
        if line.startswith(start):
            return lines
    pytest.fail(f"no line starts with {start!r}: {lines}, {demo.stderr and demo.stderr.read()}")


def left_of(session: int) -> set[str]:
    """Command lines of what still runs of a session."""
    left = set()
    for process in Path("/proc").iterdir():
        try:
            about = (process / "stat").read_text().rpartition(")")[2].split()
            if process.name.isdigit() and int(about[3]) == session and about[0] != "Z":
                left.add((process / "cmdline").read_text().replace("\0", " "))
        except (OSError, IndexError):  # not a process, or gone meanwhile
            continue
    return left


def interrupt(demo: subprocess.Popen[str], group: bool) -> str:
    """Presses Ctrl-C (the group gets it) or sends the signal to the command alone; its complaints."""
    (os.killpg if group else os.kill)(demo.pid, signal.SIGINT)
    _, errors = demo.communicate(timeout=COMMAND_SECONDS)
    assert demo.returncode == 130, errors
    return errors


def test_the_demo_watches_the_film_and_stays_until_ctrl_c(tmp_path: Path) -> None:
    with begin("--keep", "--work", str(tmp_path)) as demo:
        lines = read_until(demo, RUNS_ON)
        doors = [line.split()[-1] for line in lines if " browser http" in line]
        assert [httpx2.get(door, trust_env=False).status_code for door in doors] == [200] * 4
        api = next(line.split()[-1] for line in lines if line.startswith("operator's view"))
        assert re.search(r"\b5 nodes|The demo film", run("top", "--once", "--api", api).out)
        assert len(left_of(demo.pid)) == 7
        assert interrupt(demo, group=True) == ""
        assert left_of(demo.pid) == set()
    (told,) = (line for line in lines if line.startswith("{"))
    _went_well(last_json(told))
    for log in tmp_path.glob("*.log"):
        assert "Traceback" not in log.read_text(), log


def _went_well(told: dict[str, object]) -> None:
    assert list(told) == ["ok", "offload", "viewers"]
    viewers = told["viewers"]
    assert isinstance(viewers, list)
    assert [list(one) for one in viewers] == [KEYS] * 4
    assert [(one["name"], one["kind"]) for one in viewers] == [
        ("pc1", "pc"),
        ("pc2", "pc"),
        ("box", "stb"),
        ("pc3", "pc"),
    ]
    assert [(one["stalls"], one["verified"]) for one in viewers] == [(0, True)] * 4, viewers
    assert all(0 < one["startup_seconds"] < 5 for one in viewers), viewers
    assert told["ok"] is True
    edge, peers = (sum(one[key] for one in viewers) for key in ("edge_bytes", "peer_bytes"))
    assert told["offload"] == pytest.approx(peers / (edge + peers), abs=0.001)
    assert peers / (edge + peers) >= 0.3, viewers


@pytest.mark.parametrize("moment", ["making", "starting", "four viewers"])
def test_breaking_off_leaves_nothing_behind(moment: str, tmp_path: Path) -> None:
    with begin("--work", str(tmp_path)) as demo:
        read_until(demo, moment)
        assert interrupt(demo, group=moment == "starting") == ""
        assert left_of(demo.pid) == set()


def test_bad_wishes_are_refused_in_one_line(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    says_one_line(run("demo", "--seconds", 5), 2, "--seconds: expected a film of 20 to 600 seconds")
    says_one_line(run("demo", "--work", taken), 1, r"--work: .*file cannot be used: File exists")


# -- tables -----------------------------------------------------------------------------------------


def drawn(table: object, columns: int) -> list[str]:
    console = Console(width=columns, file=io.StringIO(), force_terminal=True, record=True)
    console.print(table)
    return console.export_text().splitlines()


def watching() -> Viewer:
    viewer = Viewer("pc2", "pc", "http://127.0.0.1:1", 5.0)
    viewer.experience = Experience(0.0, startup_seconds=0.4, shown_seconds=37.0, total_seconds=60.0)
    viewer.peer = {"down_rate": 1_550_000, "up_rate": 12_500, "cap_rate": 1_450_000}
    viewer.film = {"held": "eeppppppppp11..."}
    viewer.taken = {"a" * 64: 2_000_000, "b" * 64: 6_000_000, "c" * 64: 0}
    return viewer


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_the_live_table_fits(columns: int) -> None:
    crowd = [watching(), Viewer("box", "stb", "", 10.0)]
    lines = drawn(tables.swarm(crowd, 0.5, {"a" * 64: "edge", "b" * 64: "pc1"}, columns), columns)
    assert max(map(len, lines)) <= columns
    row = next(line for line in lines if "pc2" in line)
    for part in ("37/60 s", "81%", "12.4", "0.1", "11.6", "pc1 75% edge 25%"):
        assert part in row
    assert "not yet" in next(line for line in lines if "box" in line)
    assert len(lines) <= 10


def test_who_gave_up_is_seen() -> None:
    viewer = watching()
    viewer.failure = "no source"
    assert any("no source" in line for line in drawn(tables.swarm([viewer], 0.5, {}, 80), 80))
    failed = Viewer("pc2", "pc", "", 0.0).result()
    text = "\n".join(drawn(tables.results([failed], 0.0), 100))
    assert "never" in text
    assert "NOT every viewer got every byte" in text


@pytest.mark.parametrize(
    ("held", "cells", "shown"),
    [
        ("", 4, "····"),
        ("....", 4, "····"),
        ("ee..", 4, "██··"),
        ("e.pp1111", 4, "▒███"),
        ("ep", 4, "████"),
        ("pppppppppp", 3, "███"),
    ],
)
def test_the_map_has_one_cell_per_stretch(held: str, cells: int, shown: str) -> None:
    assert tables.piece_map(held, cells).plain == shown
