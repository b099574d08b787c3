"""The command `penstock`: finds the roles' subcommands, runs them, and says errors in one line.

A role adds its subcommands through the entry-point group `penstock.commands`; each entry is a
`register(app)` that must be cheap, since it runs for every command and for `--help`.

Exit status: 0 done, 1 failed, 2 wrong usage or settings, 130 stopped by Ctrl-C, 143 a
command (not a daemon) stopped by SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar, TypeVarTuple

import trio
from cyclopts import App, CycloptsError

from shared import __version__, garbage
from shared.config import COMMAND_GROUP
from shared.core.errors import ConfigError, LocalError, PenstockError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

FAILED = 1
WRONG_USE = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
PIPE_CLOSED = 128 + signal.SIGPIPE

LEVELS = ("debug", "info", "warning", "error")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. `arguments`: None takes the command line's."""
    try:
        app = build_app(entry_points(group=COMMAND_GROUP))
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:  # `penstock ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except BaseException as error:
        return _status_of(error)
    return result if isinstance(result, int) else 0


def build_app(commands: Iterable[EntryPoint]) -> App:
    """The `penstock` command with the subcommands that `commands` register, in order of name.

    Raises LocalError for an entry that cannot be loaded.
    """
    app = App(
        name="penstock",
        version=__version__,
        help="A peer-to-peer hybrid CDN for video that keeps every viewer's uplink usable.",
        backend="trio",
        suppress_keyboard_interrupt=False,
    )
    for point in sorted(commands, key=lambda point: point.name):
        try:
            register = point.load()
        except (ImportError, AttributeError) as error:
            raise LocalError(f"the {point.name} commands are missing ({error}); reinstall penstock") from None
        register(app)
    return app


def run_trio(run: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
    """Run a command that ends by itself, stopping it gracefully on SIGINT and SIGTERM.

    The first signal cancels it, the second kills it. Raises what `run` raised, alone where
    it was alone in its group, KeyboardInterrupt after SIGINT, SystemExit(143) after SIGTERM.
    """
    result, stopped_by = _run_until_signal(run, *arguments)
    if result:
        return result[0]
    if stopped_by == [signal.SIGINT]:
        raise KeyboardInterrupt
    raise SystemExit(TERMINATED)


def run_daemon(run: Callable[[*Ts], Awaitable[object]], *arguments: *Ts) -> None:
    """Run a server that ends when it is told to: as `run_trio`, but SIGTERM is its good end."""
    _, stopped_by = _run_until_signal(run, *arguments)
    if stopped_by == [signal.SIGINT]:
        raise KeyboardInterrupt


def _run_until_signal(
    run: Callable[[*Ts], Awaitable[T]], *arguments: *Ts
) -> tuple[list[T], list[signal.Signals]]:
    """What `run` returned, nothing if it was cancelled, and the signal that cancelled it, if any."""
    result: list[T] = []
    stopped_by: list[signal.Signals] = []

    async def supervise() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(_stop_on_signal, nursery.cancel_scope, stopped_by)
            result.append(await run(*arguments))
            nursery.cancel_scope.cancel()

    garbage.settle()
    try:
        trio.run(supervise)
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        raise leaves[0] if len(leaves) == 1 else group from None
    return result, stopped_by


async def _stop_on_signal(
    scope: trio.CancelScope, stopped_by: list[signal.Signals], *, task_status: trio.TaskStatus[None]
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            stopped_by.append(signal.Signals(number))
            break
    scope.cancel()  # the receiver is closed by now: a second signal finds its default action


def configure_logging(level: str) -> None:
    """Log to stderr, one line per record; `level` is one of LEVELS. Raises ConfigError."""
    if level not in LEVELS:
        raise ConfigError(f"log_level: {level[:80]!r} is not known; allowed: {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("quic", "httpx2", "httpcore2"):  # they log every packet or request
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))


class _OneLine(logging.Formatter):
    """Control characters are escaped, so that nobody outside can write lines of our log."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def print_error(text: str) -> None:
    """`penstock: error: ...` on stderr, in one line whatever `text` holds."""
    print(f"penstock: error: {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """`text` with control characters escaped: one line, and no terminal sequences from outside."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _status_of(error: BaseException) -> int:
    """Say the error and give its exit status; raises errors that are bugs, for their traceback."""
    leaves = list(_leaves(error))
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return INTERRUPTED
    if not all(isinstance(leaf, PenstockError | CycloptsError) for leaf in leaves):
        raise error
    for text in dict.fromkeys(_text(leaf) for leaf in leaves):
        print_error(text)
    wrong_use = any(isinstance(leaf, ConfigError | CycloptsError) for leaf in leaves)
    return WRONG_USE if wrong_use else FAILED


def _text(error: BaseException) -> str:
    if not isinstance(error, CycloptsError):
        return str(error)
    command = " ".join(("penstock", *(error.command_chain or ())))
    return f"{' '.join(str(error).split())} See `{command} --help`."


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from _leaves(inner)
