"""Child programs of the laboratory: modules of this package that talk in lines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.lab.line import LabError

_ROOT = Path(__file__).parents[2]
END_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Child:
    """A program that runs; `first_line` is what it said when it was ready."""

    name: str
    process: subprocess.Popen[str]
    first_line: str

    def ask(self, line: str) -> str:
        """Its answer to a command. Raises LabError when it has ended."""
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise LabError(f"{self.name} ended: {self._last_words()}")
        return answer

    def result(self, timeout_seconds: float = END_SECONDS) -> str:
        """Waits for its end and returns what it said since it was ready; its input ends at once.

        Raises LabError when it failed or takes longer.
        """
        try:
            said, complaint = self.process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"{self.name} did not end within {timeout_seconds} seconds") from None
        if self.process.returncode:
            raise LabError(f"{self.name} failed: {complaint.strip()[-500:]}")
        return said

    def kill(self) -> None:
        """Ends it, whatever it does; harmless when it has ended."""
        self.process.kill()
        self._last_words()

    def _last_words(self) -> str:
        if self.process.poll() is not None and self.process.stdout and self.process.stdout.closed:
            return ""
        return self.process.communicate()[1].strip()[-500:]


def start(module: str, *arguments: str, within: Callable[[list[str]], list[str]] = list) -> Child:
    """Starts `tests.lab.MODULE`, through the command that `within` makes of it, and waits until it is ready.

    It is in a session of its own: Ctrl-C is for its owner, who then ends it. Raises LabError.
    """
    process = subprocess.Popen(
        within([sys.executable, "-S", "-m", f"tests.lab.{module}", *arguments]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        start_new_session=True,
    )
    assert process.stdout
    first_line = process.stdout.readline()
    child = Child(" ".join((module, *arguments)), process, first_line.strip())
    if not first_line:
        raise LabError(f"{child.name} did not start: {process.communicate()[1].strip()[-500:]}")
    return child
