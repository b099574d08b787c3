"""Taking laboratories away: `python -m tests.lab.remover PREFIX FOLDER` waits for its owner's end.

The owner holds the other end of standard input. Whether it leaves in good order, crashes or is
killed, that end closes, and everything in namespaces that start with PREFIX goes, and FOLDER.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

NAMESPACES = "/run/netns"
PATIENCE_SECONDS = 1.0
_OWNED = re.compile(r"penstock-(?P<owner>[0-9]+)-[0-9]+-")


def namespaces(prefix: str) -> list[str]:
    """Names of network namespaces that start with `prefix`."""
    try:
        names = os.listdir(NAMESPACES)  # noqa: PTH208  # pathlib costs start-up
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name.startswith(prefix))


def remove(prefix: str) -> None:
    """Ends the processes in those namespaces, then removes them; harmless when repeated."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while (inside := _processes(prefix)) and time.monotonic() < give_up_at:
            for process in inside:
                with suppress(ProcessLookupError):
                    os.kill(process, number)
            time.sleep(0.02)
    for name in namespaces(prefix):
        _ip("netns", "del", name)


def remove_stale() -> None:
    """Removes what is left of owners that are no more."""
    for name in namespaces("penstock-"):
        match = _OWNED.match(name)
        if match and not os.path.exists(f"/proc/{match['owner']}"):  # noqa: PTH110
            remove(match[0])


def _processes(prefix: str) -> list[int]:
    found = [_ip("netns", "pids", name) for name in namespaces(prefix)]
    return [int(number) for text in found for number in text.split()]


def _ip(*arguments: str) -> str:
    # What has gone in the meantime is no failure: somebody else removed it.
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False).stdout


def main(prefix: str, folder: str) -> None:
    """Waits for the end of standard input, then removes."""
    print("ready", flush=True)
    sys.stdin.read()
    remove(prefix)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
