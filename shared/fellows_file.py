"""The trackers that a node may turn to when its own is dead, as they were named last."""

from __future__ import annotations

import logging
from pathlib import Path

from shared.core import bencode, codec
from shared.core.errors import LocalError, PenstockError
from shared.core.ids import parse_host_port
from shared.core.messages import Fellow, Fellows

log = logging.getLogger(__name__)

NAME = "fellows"  # in the node's data folder
MAX_FILE_BYTES = 64 * 1024


def load(folder: Path) -> tuple[Fellow, ...]:
    """Those of the file; none if there is no file, or one that cannot be used (the log says so)."""
    path = folder / NAME
    try:
        with path.open("rb") as file:
            wire = bencode.loads(file.read(MAX_FILE_BYTES), max_bytes=MAX_FILE_BYTES)
        fellows = codec.from_wire(Fellows, wire).trackers
        for fellow in fellows:
            parse_host_port(fellow.at)
    except FileNotFoundError:
        return ()
    except (OSError, PenstockError) as error:
        log.warning("%s: cannot be used, and will be written anew: %s", path, error)
        return ()
    return fellows


def save(folder: Path, fellows: tuple[Fellow, ...]) -> None:
    """Replaces the file; if that fails, the log says so."""
    path, draft = folder / NAME, folder / f"{NAME}.new"
    try:
        draft.write_bytes(bencode.dumps(codec.to_wire(Fellows(fellows))))
        draft.replace(path)
    except (OSError, LocalError) as error:
        log.warning("%s: cannot be written: %s", path, error)
