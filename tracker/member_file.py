"""A file of members: one node id a line, and after a comma whatever people want to remember of it."""

from __future__ import annotations

import csv
from pathlib import Path

from shared.core.errors import LocalError
from shared.core.ids import SCHEME, NodeId, parse_address, parse_node_id

MAX_FILE_BYTES = 32 << 20
ERRORS_SHOWN = 20


def read(path: Path) -> list[NodeId]:
    """The members of a file, in its order. A first line `node` is a heading; `#` begins a remark.

    Raises LocalError naming every line that is wrong, up to ERRORS_SHOWN, and takes nothing then.
    """
    nodes: list[NodeId] = []
    wrong: list[str] = []
    for number, line in _lines(path):
        text = line[0].strip() if line else ""
        if not text or text.startswith("#") or (number == 1 and text.lower() == "node"):
            continue
        try:
            nodes.append(parse_address(text).node if text.startswith(f"{SCHEME}:") else parse_node_id(text))
        except LocalError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"; and {len(wrong) - ERRORS_SHOWN} more lines" if len(wrong) > ERRORS_SHOWN else ""
        raise LocalError(f"{path}: nobody is changed: {'; '.join(wrong[:ERRORS_SHOWN])}{more}")
    if not nodes:
        raise LocalError(f"{path}: names nobody; write one node id a line")
    return nodes


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise LocalError(f"{path}: is over {MAX_FILE_BYTES} bytes; that is no list of members")
        rows = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
        return [(rows.line_num, row) for row in rows]
    except OSError as error:
        raise LocalError(f"{path}: cannot be read: {error.strerror}; name a file of node ids") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise LocalError(f"{path}: is no CSV file in UTF-8: {error}") from None
