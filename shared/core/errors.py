"""Every error Penstock raises on purpose, named by whose fault it is.

A `LocalError` is ours or our user's: its text names the setting or file and the way out.
A `RemoteError` is the other side's: it costs them the request or the connection, never us
the process. Foreign exceptions (aioquic, av, sqlite3, OSError) stop at the shells, which
raise one of these instead.
"""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Why a request, stream or connection was refused; the number travels on the wire."""

    NONE = 0
    MALFORMED = 1  # could not be parsed strictly
    UNEXPECTED = 2  # valid, but not now or not from this sender
    TOO_LARGE = 3  # over the limit of its field
    UNKNOWN_TITLE = 4  # no such title, rendition or infohash here
    NOT_HELD = 5  # the piece is not held here
    TICKET_INVALID = 6  # not signed by our tracker, or for somebody or something else
    TICKET_EXPIRED = 7  # ask the tracker for a new one
    NOT_SHARING = 8  # direct mode, paused, or over budget
    BUSY = 9  # no upload slot; ask somebody else
    BAD_DATA = 10  # bytes did not match their hash
    NOT_ALLOWED = 11  # this sender may not do that here
    NOT_A_FILM = 12  # the media probe refused the file
    NO_SPACE = 13  # disk or quota is full
    VERSION = 14  # no common protocol version
    SHUTDOWN = 15  # the node is stopping
    TIMEOUT = 16  # promised and did not deliver
    INTERNAL = 17  # our fault; see the log of the node that said it
    CANCELLED = 18  # the asker no longer wants it


class PenstockError(Exception):
    """The root of all errors raised on purpose; `str()` is one line a user can act on."""


class LocalError(PenstockError):
    """Our own or our user's fault: the text says what to change."""


class ConfigError(LocalError):
    """A setting is unknown or unusable; the text starts with its path, e.g. `tracker.listen`."""


class StoreError(LocalError):
    """The disk refused: full, read-only or damaged. Nothing that was held is lost."""


class StoreFull(StoreError):
    """No room within the quota or on the disk, even after giving up what is worth least."""


class RemoteError(PenstockError):
    """The other side's fault, or its refusal; carries the `Reason` for the wire."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        text = reason.name.lower().replace("_", " ")
        super().__init__(f"{text}: {detail}" if detail else text)


class ProtocolError(RemoteError):
    """Bytes or a message that the protocol forbids: close the connection with its reason."""


class Refused(RemoteError):
    """A valid request that the other side declined; ask another source or a new ticket."""


class ConnectionLost(RemoteError):
    """The connection ended (closed, timed out or never came up); dial again or go elsewhere."""
