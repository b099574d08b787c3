"""The tracker's settings and its command, as an operator meets them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cyclopts import App

from shared.config import load
from shared.core.errors import LocalError
from shared.core.ids import HostPort, parse_address
from shared.setting_types import HostPortText
from tests.tracker_parts import node
from tracker import commands
from tracker.config import TrackerConfig
from tracker.server import public_at

ROOT = str(Path(__file__).parent.parent)


@pytest.mark.parametrize(
    "public, bound, expected",
    [
        (None, HostPort("127.0.0.1", 9), "127.0.0.1:9"),
        (None, HostPort("2001:db8::1", 9), "[2001:db8::1]:9"),
        ("tracker.example.org:443", HostPort("::", 9), "tracker.example.org:443"),
    ],
)
def test_the_address_that_others_dial(public: str | None, bound: HostPort, expected: str) -> None:
    config = TrackerConfig(public=HostPortText(public) if public else None)
    assert str(public_at(config, bound)) == expected


@pytest.mark.parametrize("bound", ["::", "0.0.0.0"])
def test_nobody_is_told_to_dial_a_wildcard(bound: str) -> None:
    assert public_at(TrackerConfig(), HostPort(bound, 9)).host not in ("::", "0.0.0.0")


def test_edges_are_named_by_id_or_address() -> None:
    one, two = node("one"), node("two")
    chosen = load(
        TrackerConfig, "tracker", None, {"edges": f"{one.hex()}, penstock://{two.hex()}@h:1"}, environ={}
    )
    assert chosen.edge_ids() == {one, two}
    with pytest.raises(LocalError, match=r"tracker: edges: 'abc' is not a node id"):
        load(TrackerConfig, "tracker", None, {"edges": "abc"}, environ={})
    assert TrackerConfig().edge_ids() == frozenset()


def test_a_tier_is_named_with_what_it_needs() -> None:
    with pytest.raises(LocalError, match=r"tracker: central: must be set to one address"):
        load(TrackerConfig, "tracker", None, {"tier": "regional"}, environ={})
    with pytest.raises(LocalError, match=r"tracker: regionals: must name the regional trackers"):
        load(TrackerConfig, "tracker", None, {"tier": "central"}, environ={})
    with pytest.raises(LocalError, match=r"tracker: regionals: 'abc' is not a node id"):
        load(TrackerConfig, "tracker", None, {"tier": "central", "regionals": "abc"}, environ={})
    with pytest.raises(LocalError, match="single, regional, central"):
        load(TrackerConfig, "tracker", None, {"tier": "global"}, environ={})


# -- the process ------------------------------------------------------------------------------


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": ROOT}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def test_a_tracker_starts_without_a_terminal_view_and_commands_without_a_tracker() -> None:
    code = """
        import sys
        import tracker.commands
        heavy = {"textual", "starlette", "aioquic", "sqlite3", "httpx2", "rich.table"} & set(sys.modules)
        assert not heavy, heavy
        import tracker.server
        assert "aioquic" in sys.modules
        heavy = {"textual", "av"} & set(sys.modules)
        assert not heavy, heavy
    """
    done = run_python(code)
    assert done.returncode == 0, done.stderr


MAIN = """
    import sys
    from cyclopts import App
    from tracker import commands

    app = App(name="penstock", backend="trio")
    commands.register(app)
    app(sys.argv[1:])
"""


def test_the_command_says_one_line_and_ends_well_when_told_to(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(MAIN), "tracker", "--data", str(tmp_path)]
    command += ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        rest, errors = child.communicate(timeout=30)
    assert re.fullmatch(
        r"tracker ready penstock://[0-9a-f]{64}@127\.0\.0\.1:\d+ api http://127\.0\.0\.1:\d+\n", line
    )
    assert (child.returncode, rest) == (0, ""), errors
    printed = run_python(
        MAIN, "tracker", "--data", str(tmp_path), "--listen", "127.0.0.1:9", "--print-address"
    )
    assert parse_address(printed.stdout).node == parse_address(line.split()[2]).node
    assert parse_address(printed.stdout).at == HostPort("127.0.0.1", 9)


def test_the_settings_file_can_be_printed_and_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.tracker(print_config=True)
    path = tmp_path / "penstock.toml"
    path.write_text(capsys.readouterr().out)
    assert load(TrackerConfig, "tracker", path, environ={}) == load(
        TrackerConfig, "tracker", None, environ={}
    )


def test_both_commands_are_registered() -> None:
    app = App()
    commands.register(app)
    assert {"tracker", "top"} <= set(app)
