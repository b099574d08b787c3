"""Starting the benchmark's processes, hearing them, and ending them whatever happens."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from benchmarks.data.orders import Order

START_SECONDS = 30.0
ROOT = Path(__file__).parents[2]  # where the packages are

Line = TypeVar("Line")


class ChildFailed(Exception):
    """A child ended or fell silent before it said what it was to say; the text ends with its last words."""


class Child:
    """`python -m benchmarks.data.MODULE ROLE ORDER`; a context manager that ends the process."""

    def __init__(self, module: str, role: str, order: Order, inside: Sequence[str] = ()) -> None:
        self.name = f"{module} {role}"
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in __exit__
        self._unread = b""
        command = [*inside, sys.executable, "-m", f"benchmarks.data.{module}", role]
        self._process = subprocess.Popen(
            [*command, msgspec.json.encode(order).decode()],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def hear(self, kind: type[Line], timeout_seconds: float = START_SECONDS) -> Line:
        """The next line it says. Raises ChildFailed."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        until = time.monotonic() + timeout_seconds
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise ChildFailed(f"{self.name} said nothing for {timeout_seconds:.0f} s{self._last_words()}")
            some = os.read(descriptor, 65536)
            if not some:
                raise ChildFailed(f"{self.name} ended early{self._last_words()}")
            self._unread += some
        line, _, self._unread = self._unread.partition(b"\n")
        return msgspec.json.decode(line, type=kind)

    def ask(self, kind: type[Line], timeout_seconds: float = START_SECONDS) -> Line:
        """Send an empty line and hear the answer. Raises ChildFailed."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        return self.hear(kind, timeout_seconds)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""
