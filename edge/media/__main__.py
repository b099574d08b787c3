"""`python -m edge.media prepare|clip`: the child that touches media files, and the test film."""

from __future__ import annotations

import argparse
import errno
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Literal

import msgspec

from edge.media.film import Limits, Line
from shared.core.errors import PenstockError, Reason, Refused

_NICENESS = 10  # behind the edge, which has viewers waiting
_Said = Literal["NOT_A_FILM", "TOO_LARGE", "NO_SPACE", "LOCAL"]
_REASONS: dict[Reason, _Said] = {
    Reason.NOT_A_FILM: "NOT_A_FILM",
    Reason.TOO_LARGE: "TOO_LARGE",
    Reason.NO_SPACE: "NO_SPACE",
}


def main() -> int:
    """Run one command; 0 when it worked, 1 after one line that says why not."""
    asked = _arguments().parse_args()
    return _clip(asked) if asked.command == "clip" else _prepare(asked)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edge.media", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    clip = commands.add_parser("clip", help="write a test film: moving picture, clock, sound")
    clip.add_argument("target", type=Path)
    clip.add_argument("--seconds", type=int, default=60)
    clip.add_argument("--width", type=int, default=1280)
    clip.add_argument("--height", type=int, default=720)
    clip.add_argument("--fps", type=int, default=30)
    clip.add_argument("--seed", type=int, default=0)
    prepare = commands.add_parser("prepare", help="any film in, one fragmented MP4 out")
    prepare.add_argument("source", type=Path)
    prepare.add_argument("target", type=Path)
    standard = Limits()
    for field in fields(Limits):
        value = getattr(standard, field.name)
        prepare.add_argument(f"--{field.name.replace('_', '-')}", type=type(value), default=value)
    return parser


def _clip(asked: argparse.Namespace) -> int:
    from edge.media.clip import write_clip

    def report(done: float) -> None:
        print(f"test film: {100 * done:.0f} %", flush=True)

    try:
        write_clip(
            asked.target, asked.seconds, asked.width, asked.height, asked.fps, asked.seed, report=report
        )
    except (PenstockError, OSError) as error:
        print(f"cannot write {asked.target}: {error}", file=sys.stderr)
        return 1
    return 0


def _prepare(asked: argparse.Namespace) -> int:
    limits = Limits(**{field.name: getattr(asked, field.name) for field in fields(Limits)})
    _confine(limits)
    try:
        from edge.media.remux import prepare_film

        _say(Line(result=prepare_film(asked.source, asked.target, limits, _progress)))
        return 0
    except BrokenPipeError:
        return 1  # whoever asked is gone
    except Exception as error:  # the media library raises more than its own errors
        _say(explain(error, limits))
        return 1


def _confine(limits: Limits) -> None:
    """Give up resources before the media library is loaded."""
    os.nice(_NICENESS)
    for kind, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 5),
        (resource.RLIMIT_FSIZE, limits.output_bytes, limits.output_bytes),
        (resource.RLIMIT_NOFILE, 64, 64),
    ):
        _, ceiling = resource.getrlimit(kind)
        top = hard if ceiling == resource.RLIM_INFINITY else min(hard, ceiling)
        resource.setrlimit(kind, (min(soft, top), top))


def explain(error: BaseException, limits: Limits) -> Line:
    """One line for any failure: what is wrong with the file, or what it ran into.

    Closing the output after a failure fails once more and hides the reason, so the whole chain
    of errors is looked at, the first cause first.
    """
    chain = list(_chain(error))
    line = next((line for cause in reversed(chain) if (line := _known(cause, limits))), None)
    if line is not None:
        return line
    text = getattr(chain[-1], "strerror", None) or str(chain[-1]) or type(chain[-1]).__name__
    return Line(error=f"it is damaged or cut short ({text})"[:300])


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _known(error: BaseException, limits: Limits) -> Line | None:
    code = getattr(error, "errno", None)
    if isinstance(error, Refused):
        return Line(error=error.detail, reason=_REASONS.get(error.reason, "NOT_A_FILM"))
    if isinstance(error, MemoryError):
        return Line(error=f"it needs more than {limits.memory_bytes} bytes of memory", reason="TOO_LARGE")
    if isinstance(error, ImportError):
        text = f"cannot load the media library ({error})"[:300]
        return Line(error=f"{text}; raise its memory limit or install av again", reason="LOCAL")
    if isinstance(error, OSError) and code in (errno.ENOSPC, errno.EDQUOT):
        return Line(error="the disk is full", reason="NO_SPACE")
    if isinstance(error, OSError) and code == errno.EFBIG:
        return Line(error=f"prepared, it is over {limits.output_bytes} bytes", reason="TOO_LARGE")
    if isinstance(error, OSError) and type(error).__module__ == "builtins":  # the library has its own
        return Line(error=f"cannot use {error.filename}: {error.strerror}"[:900], reason="LOCAL")
    return None


def _progress(stage: str, done: float) -> None:
    _say(Line(stage=stage, done=done))  # type: ignore[arg-type]


def _say(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
