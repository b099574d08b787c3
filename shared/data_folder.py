"""One process per data folder: two would evict each other's pieces and share one identity."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.core.errors import LocalError


@contextmanager
def locked(folder: Path, setting: str) -> Iterator[None]:
    """Holds the folder, made if need be, until the context is left.

    Raises LocalError that starts with `setting` if it is taken or cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("a")
    except OSError as error:
        raise LocalError(f"{setting}: {folder} cannot be used: {error.strerror}; choose another") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            text = f"{setting}: {folder} is in use by another process; stop it, or choose another folder"
            raise LocalError(text) from None
        yield
