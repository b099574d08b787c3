"""The command `penstock`: exit status, one-line errors, signals."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import trio
from cyclopts import App

from shared import __version__, cli
from shared.config import COMMAND_GROUP
from shared.core.errors import ConfigError, LocalError, Reason, Refused

ROOT = Path(__file__).parent.parent


def register(app: App) -> None:
    """The commands of an imaginary role, one per way to end."""

    @app.command
    def mill(wheels: int = 1) -> int | None:
        """Turn the wheels."""
        if wheels == 0:
            raise LocalError("mill: no\nwheels \x1b[31m")
        if wheels < 0:
            raise ConfigError("mill.wheels: below zero")
        if wheels == 99:
            raise KeyError("a bug")
        if wheels == 7:
            raise ExceptionGroup("two", [LocalError("one"), ExceptionGroup("", [LocalError("two")] * 2)])
        return 3 if wheels == 3 else None

    @app.command
    def command() -> None:
        """Run until stopped."""
        cli.run_trio(_announce_and_wait)

    @app.command
    def daemon() -> None:
        """Serve until stopped."""
        cli.run_daemon(_announce_and_wait)

    @app.command
    def stubborn() -> None:
        """Serve, and not stop when told."""

        async def shielded() -> None:
            with trio.CancelScope(shield=True):
                await _announce_and_wait()

        cli.run_daemon(shielded)

    @app.command
    def chatter() -> None:
        """Print without end."""
        while True:
            print("water " * 100)


async def _announce_and_wait() -> None:
    print("running", flush=True)
    try:
        await trio.sleep_forever()
    finally:
        print("stopped in order", flush=True)


POINT = EntryPoint("mill", "tests.test_cli:register", COMMAND_GROUP)


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    found = [POINT]
    monkeypatch.setattr(cli, "entry_points", lambda group: found)
    yield found


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["mill"], 0, ""),
        (["mill", "--wheels", "3"], 3, ""),
        (["mill", "--wheels", "0"], 1, "penstock: error: mill: no\\nwheels \\x1b[31m\n"),
        (["mill", "--wheels", "-1"], 2, "penstock: error: mill.wheels: below zero\n"),
        (["mill", "--wheels", "7"], 1, "penstock: error: one\npenstock: error: two\n"),
        (
            ["mill", "--wheels", "x"],
            2,
            'penstock: error: Invalid value for --wheels: unable to convert "x" into int.'
            " See `penstock mill --help`.\n",
        ),
        (
            ["mil"],
            2,
            'penstock: error: Unknown command "mil". Did you mean "mill"? Available commands: mill,'
            " command, daemon, stubborn, chatter. See `penstock --help`.\n",
        ),
    ],
)
def test_status_and_error_line(
    points: list[EntryPoint],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    assert cli.main(arguments) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", said)


def test_a_bug_keeps_its_traceback(points: list[EntryPoint]) -> None:
    with pytest.raises(KeyError, match="a bug"):
        cli.main(["mill", "--wheels", "99"])


def test_version_and_help(points: list[EntryPoint], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert "Turn the wheels." in shown
    assert "peer-to-peer hybrid CDN" in shown


def test_missing_commands_are_said(points: list[EntryPoint], capsys: pytest.CaptureFixture[str]) -> None:
    points.append(EntryPoint("pond", "no_such_module:register", COMMAND_GROUP))
    assert cli.main(["mill"]) == 1
    assert capsys.readouterr().err.startswith("penstock: error: the pond commands are missing")


def test_run_trio_gives_the_result_or_the_error_alone() -> None:
    async def double(number: int) -> int:
        await trio.lowlevel.checkpoint()
        return 2 * number

    async def refuse() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise Refused(Reason.BUSY)

    assert cli.run_trio(double, 4) == 8
    with pytest.raises(Refused, match="busy"):
        cli.run_trio(refuse)


@pytest.mark.parametrize(
    ("command", "number", "status"),
    [
        ("command", signal.SIGINT, 130),
        ("command", signal.SIGTERM, 143),
        ("daemon", signal.SIGINT, 130),
        ("daemon", signal.SIGTERM, 0),
    ],
)
def test_a_signal_stops_in_order(command: str, number: signal.Signals, status: int) -> None:
    with _start(command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (status, "stopped in order\n", "")


def test_a_second_signal_kills() -> None:
    with _start("stubborn") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        while process.returncode is None:  # the first is taken by trio, one after it by the system
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
    assert process.returncode == -signal.SIGTERM


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    with _start("chatter") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


def _start(command: str) -> subprocess.Popen[str]:
    script = (
        "import sys; from shared import cli; from tests.test_cli import POINT;"
        "cli.entry_points = lambda group: [POINT]; sys.exit(cli.main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    root.handlers[:] = []
    yield root
    root.level, root.handlers[:] = before


def test_logging_is_one_line(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    cli.configure_logging("info")
    logging.getLogger("penstock.x").info("from %s", "evil\n2030-01-01 ERROR all is lost\x1b[2J")
    logging.getLogger("penstock.x").debug("not shown")
    logging.getLogger("quic").info("not shown either")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.endswith("INFO penstock.x: from evil\\n2030-01-01 ERROR all is lost\\x1b[2J\n")


def test_unknown_log_level_is_refused() -> None:
    with pytest.raises(ConfigError, match="log_level: 'loud' is not known; allowed: debug"):
        cli.configure_logging("loud")
