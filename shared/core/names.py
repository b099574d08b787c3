"""Names that people give to files and titles: what may be shown, stored and sent.

They end up in file systems, playlists and terminals of strangers, so control characters,
bidirectional overrides and line separators are refused with everything else that
`str.isprintable` refuses.
"""

from __future__ import annotations

from shared.core.errors import LocalError

MAX_NAME_BYTES = 255  # what common file systems take
MAX_TITLE_CHARACTERS = 200


def clean_name(text: str) -> str:
    """The file name, unchanged. Raises LocalError that says what is wrong with it."""
    _check_printable(text, "file name", "rename the file")
    if text in (".", "..") or "/" in text or "\\" in text:
        raise LocalError(f"file name {_shown(text)} would be a path; rename the file")
    if len(text.encode()) > MAX_NAME_BYTES:
        raise LocalError(f"file name {_shown(text)} is over {MAX_NAME_BYTES} bytes; rename the file")
    return text


def clean_title(text: str) -> str:
    """The display title, unchanged. Raises LocalError that says what is wrong with it."""
    _check_printable(text, "title", "choose another")
    if text != text.strip():
        raise LocalError(f"title {_shown(text)} starts or ends with a space; take it away")
    if len(text) > MAX_TITLE_CHARACTERS:
        raise LocalError(f"title {_shown(text)} is over {MAX_TITLE_CHARACTERS} characters; shorten it")
    return text


def _check_printable(text: str, what: str, cure: str) -> None:
    if not text:
        raise LocalError(f"the {what} is empty; {cure}")
    if not text.isprintable():
        raise LocalError(f"{what} {_shown(text)} has characters that cannot be printed; {cure}")


def _shown(text: str) -> str:
    return ascii(text[:60])
