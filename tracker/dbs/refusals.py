"""Why a change that an operator wants cannot be; each text is one line that says the way out."""

from __future__ import annotations

from shared.core.errors import LocalError


class NotThere(LocalError):
    """What the wish names does not exist here."""


class NotSo(LocalError):
    """It contradicts what stands, or there is no room for more."""
