"""The edge's side of the media child: start it, listen to it, believe nothing, kill it in time.

A child that met a hostile film may say anything, so its lines are bounded and strictly parsed,
and its result is compared with the file on disk.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import msgspec
import trio

from edge.media.film import Limits, Line, Prepared
from shared.core.errors import LocalError, Reason, Refused, StoreFull

__all__ = ["Limits", "Prepared", "prepare"]

OnProgress = Callable[[str, float], object]  # stage, share done from 0 to 1

MAX_LINE_BYTES = 4 << 20  # MAX_SEGMENTS of the longest pairs fit
MAX_STDERR_BYTES = 64 << 10
_ROOT = Path(__file__).resolve().parent.parent.parent
_REASONS = {"NOT_A_FILM": Reason.NOT_A_FILM, "TOO_LARGE": Reason.TOO_LARGE}
_LINE = msgspec.json.Decoder(Line, strict=True)


async def prepare(
    source: Path, target: Path, limits: Limits, on_progress: OnProgress | None = None
) -> Prepared:
    """Make `target` from `source` in a confined child process, which dies with this call.

    `on_progress(stage, done)` is called as it goes. On any failure `target` is removed.
    Raises Refused (NOT_A_FILM or TOO_LARGE) when the film is at fault, StoreFull when the
    disk is, LocalError when the child cannot be started.
    """
    listener = _Listener(on_progress)
    try:
        with trio.move_on_after(limits.wall_seconds) as clock:
            status = await _run(_command(source, target, limits), listener)
        if clock.cancelled_caught:
            raise Refused(Reason.TOO_LARGE, f"preparing it took longer than {limits.wall_seconds:g} s")
        return _judge(listener, status, target, limits)
    except BaseException:
        _remove(target)
        raise


def _command(source: Path, target: Path, limits: Limits) -> list[str]:
    options = [f"--{field.name.replace('_', '-')}={getattr(limits, field.name)}" for field in fields(Limits)]
    # -P: a file named av.py in the working directory is not to be imported.
    paths = [str(source.absolute()), str(target.absolute())]
    return [sys.executable, "-P", "-m", "edge.media", "prepare", *options, *paths]


def _environment() -> dict[str, str]:
    """Nothing of ours but the way to the packages; two arenas keep address space honest."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"PYTHONPATH": str(_ROOT), "MALLOC_ARENA_MAX": "2", "LC_ALL": "C.UTF-8"}


async def _run(command: list[str], listener: _Listener) -> int:
    """Run the child to its end and return its status; it never outlives this call."""
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
        )
    except OSError as error:
        raise LocalError(f"cannot start the media child {command[0]}: {error.strerror}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with process.stdout, process.stderr, trio.open_nursery() as nursery:
            nursery.start_soon(listener.overhear, process.stderr, nursery.cancel_scope)
            nursery.start_soon(listener.listen, process.stdout, nursery.cancel_scope)
        if listener.broken is None:
            return await process.wait()
    finally:
        process.kill()  # harmless when it has ended
        with trio.CancelScope(shield=True):
            await process.wait()
    raise Refused(Reason.NOT_A_FILM, f"the media child {listener.broken}; the film may be hostile")


class _Listener:
    """Reads what the child says; the last result or error counts."""

    def __init__(self, on_progress: OnProgress | None) -> None:
        self._on_progress = on_progress
        self.last: Line | None = None
        self.broken: str | None = None  # what it did that it never does

    async def listen(self, stream: trio.abc.ReceiveStream, scope: trio.CancelScope) -> None:
        """Take lines until the child closes its end; cancel `scope` when it misbehaves."""
        rest = bytearray()
        async for part in stream:
            rest += part
            while self.broken is None and (end := rest.find(b"\n")) >= 0:
                self._take(bytes(rest[:end]))
                del rest[: end + 1]
            if len(rest) > MAX_LINE_BYTES:
                self.broken = "sent a line without end"
            if self.broken is not None:
                scope.cancel()

    async def overhear(self, stream: trio.abc.ReceiveStream, scope: trio.CancelScope) -> None:
        """Read complaints away so that the child is not blocked, but only so many of them."""
        seen = 0
        async for part in stream:
            seen += len(part)
            if seen > MAX_STDERR_BYTES:
                self.broken = "complained without end"
                scope.cancel()

    def _take(self, raw: bytes) -> None:
        if self.last is not None:
            self.broken = "went on after its last line"
            return
        try:
            line = _LINE.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.broken = "sent a line that cannot be parsed"
            return
        if line.result is not None or line.error is not None:
            self.last = line
        elif self._on_progress is not None:
            self._on_progress(line.stage, line.done)


def _judge(listener: _Listener, status: int, target: Path, limits: Limits) -> Prepared:
    """The result, if everything agrees. Raises Refused, StoreFull."""
    line = listener.last
    if status == -signal.SIGXCPU:
        raise Refused(Reason.TOO_LARGE, f"it takes over {limits.cpu_seconds} s of processor time")
    if status == -signal.SIGKILL and line is None:
        raise Refused(Reason.TOO_LARGE, "preparing it was stopped by the system, for memory or time")
    if line is None:
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        raise Refused(Reason.NOT_A_FILM, f"the media library fell over it (the child ended {how})")
    if line.error is not None:
        text = "".join(c if c.isprintable() else " " for c in line.error)
        if line.reason == "NO_SPACE":
            raise StoreFull(f"cannot write {target}: {text}; free some space there")
        if line.reason == "LOCAL":
            raise LocalError(f"the media child {text}")
        raise Refused(_REASONS[line.reason], text)
    if status != 0 or line.result is None or _size(target) != line.result.total_bytes:
        raise Refused(Reason.NOT_A_FILM, "the media child's answer does not match its file")
    return line.result


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1
