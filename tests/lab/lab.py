"""The laboratory: hosts behind access lines, on this machine and connected to nothing else."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from tests.lab import child, delay, system
from tests.lab.child import Child
from tests.lab.line import LabError, Line, LineChanges
from tests.lab.remover import remove_stale
from tests.lab.samples import Recording
from tests.lab.wiring import (
    Host,
    Wiring,
    detour,
    host_links,
    network_links,
    network_ports,
    numbered,
    plan,
    shapers,
)

END_SECONDS = 2.0  # between asking a program to end and making it
_numbers = itertools.count(1)


@dataclass(slots=True)
class Lab:
    """A running laboratory, made by `open_lab`."""

    wiring: Wiring
    seed: int
    folder: Path
    _delays: Child
    _processes: list[subprocess.Popen[Any]] = field(default_factory=list)
    _children: list[Child] = field(default_factory=list)
    _recordings: Iterator[int] = field(default_factory=itertools.count)

    def address(self, host: str) -> str:
        """IPv4 address of a host."""
        return self._host(host).address

    def address6(self, host: str) -> str:
        """IPv6 address of a host."""
        return self._host(host).address6

    def line(self, name: str) -> Line:
        """A line as it is now. Raises LabError if there is none of that name."""
        if name not in self.wiring.lines:
            raise LabError(f"no line is named {name!r}; there are {', '.join(self.wiring.lines)}")
        return self.wiring.lines[name]

    def command(self, host: str, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside a host, for whoever starts processes in another way."""
        return system.within(self._host(host).namespace, argv)

    def popen(self, host: str, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program inside a host; `options` are those of subprocess.Popen. It ends with the lab."""
        process = subprocess.Popen(self.command(host, argv), **options)
        self._processes.append(process)
        return process

    def run(
        self, host: str, argv: Sequence[str], timeout: float = 60.0, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program inside a host to its end and keeps what it says, as text.

        Raises LabError when it takes longer than `timeout` seconds, or fails (unless `check` is false).
        """
        options = {"capture_output": True, "text": True, **options}
        try:
            done = subprocess.run(self.command(host, argv), timeout=timeout, check=False, **options)
        except subprocess.TimeoutExpired:
            raise LabError(f"{argv[0]} in {host} did not end within {timeout} seconds") from None
        if check and done.returncode:
            complaint = (done.stderr or "").strip()[-500:]
            raise LabError(f"{argv[0]} in {host} ended with {done.returncode}: {complaint}")
        return done

    def start_child(self, host: str, module: str, *arguments: str) -> Child:
        """Starts a module of this package inside a host; it ends with the lab."""
        started = child.start(module, *arguments, within=lambda argv: self.command(host, argv))
        self._children.append(started)
        return started

    def set_line(self, name: str, **changes: Unpack[LineChanges]) -> None:
        """Changes a line while packets flow; it holds from the return on. Raises LabError."""
        old = self.line(name)
        new = replace(old, **changes)
        self.wiring.lines[name] = new
        number = list(self.wiring.lines).index(name) + 1
        if (old.up_rate, old.down_rate, old.queue_seconds) != (new.up_rate, new.down_rate, new.queue_seconds):
            system.batch("tc", self.wiring.namespace, shapers(number, new))
        self._configure_delays()
        if old.is_plain != new.is_plain:
            system.restore_rules(self.wiring.namespace, detour(self.wiring))

    @contextmanager
    def record(self, interval_seconds: float = 0.05) -> Iterator[Recording]:
        """Counts every host's and line's bytes while the block runs, from outside its processes."""
        path = self.folder / f"samples{next(self._recordings)}"
        sampler = child.start("sampler", str(path), str(interval_seconds), within=self._in_network)
        recording = Recording(path, self.wiring)
        try:
            yield recording
        except BaseException:
            sampler.kill()
            raise
        sampler.result()
        recording.refresh()

    def delay_statistics(self) -> delay.Statistics:
        """What the delaying process did so far; with overruns a measurement is void."""
        return delay.Statistics(**json.loads(self._delays.ask("{}")))

    def _host(self, name: str) -> Host:
        if name not in self.wiring.hosts:
            raise LabError(f"no host is named {name!r}; there are {', '.join(self.wiring.hosts)}")
        return self.wiring.hosts[name]

    def _in_network(self, argv: list[str]) -> list[str]:
        return system.within(self.wiring.namespace, argv)

    def _configure_delays(self) -> None:
        figures = {
            f"s{number}": (line.delay_seconds, line.up_loss, line.down_loss, f"{self.seed} {line.name}")
            for number, line in numbered(self.wiring)
        }
        self._delays.ask(json.dumps(figures))

    def _build(self) -> None:
        wiring = self.wiring
        for host in wiring.hosts.values():
            system.add_namespace(host.namespace)
        system.batch("ip", wiring.namespace, network_links(wiring))
        system.batch("bridge", wiring.namespace, network_ports(wiring))
        for host in wiring.hosts.values():
            system.batch("ip", host.namespace, host_links(wiring, host))
        for number, line in numbered(wiring):
            system.batch("tc", wiring.namespace, shapers(number, line))
        self._configure_delays()
        system.restore_rules(wiring.namespace, detour(wiring))

    def _end_programs(self) -> None:
        for each in self._children:
            each.kill()
        for process in self._processes:
            process.terminate()
        give_up_at = time.monotonic() + END_SECONDS
        for process in self._processes:
            try:
                process.wait(max(0.0, give_up_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                with suppress(BrokenPipeError):
                    pipe.close()


@contextmanager
def open_lab(*lines: Line, seed: int = 0) -> Iterator[Lab]:
    """Builds a laboratory and takes it away again, with all that runs in it, however the block ends.

    `seed` decides which packets are lost. Raises LabError for an impossible plan or machine.
    """
    prefix = f"penstock-{os.getpid()}-{next(_numbers)}-"
    wiring = plan(prefix, lines)
    remove_stale()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        remover = child.start("remover", prefix, str(folder))
        stack.callback(remover.result)
        system.add_namespace(wiring.namespace)
        delays = child.start("delay", within=lambda argv: system.within(wiring.namespace, argv))
        stack.callback(delays.kill)
        lab = Lab(wiring, seed, folder, delays)
        stack.callback(lab._end_programs)
        lab._build()
        yield lab
