"""The upload ledger survives what happens to processes, and its statement cannot be changed unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from math import inf
from pathlib import Path
from typing import Any

import pytest

from peer import statement
from peer.core.consent import Choice
from peer.ledger import Ledger, Upload
from shared.core.errors import LocalError
from shared.core.ids import InfoHash, Mode
from shared.identity import Identity

FILM, CLIP = InfoHash(b"f" * 32), InfoHash(b"c" * 32)
KILLED = """
import os, sys
from pathlib import Path
from peer.ledger import Ledger, Upload
ledger = Ledger(Path(sys.argv[1]))
for _ in range(7):
    ledger.add("2026-11-24", Upload(100), {})
os.kill(os.getpid(), 9)
"""


def test_days_add_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "uploads.db")
    ledger.add("2026-10-31", Upload(7), {})
    ledger.add("2026-11-23", Upload(100, 0.5, 0.4, {FILM: 80}), {FILM: "The Film"})
    ledger.add("2026-11-24", Upload(50, 0.58, 0.3, {FILM: 20, CLIP: 9}), {CLIP: "A Clip"})
    ledger.add("2026-11-24", Upload(5, 0.2, 0.5), {})
    assert ledger.sent_since("2026-11-24") == 55
    assert ledger.sent_since("2026-11") == 155
    today = ledger.month("2026-11")[1]
    assert (today.sent_bytes, today.worst_second, today.worst_ten_seconds) == (55, 0.58, 0.5)
    assert today.titles == {FILM: 20, CLIP: 9}
    assert ledger.titles() == {FILM: "The Film", CLIP: "A Clip"}


def test_a_clock_that_went_back_gives_no_new_budget(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "uploads.db")
    ledger.add("2026-11-24", Upload(500), {})
    assert ledger.sent_since("2026-11-20") == 500


def test_a_killed_process_loses_nothing_that_was_added(tmp_path: Path) -> None:
    path = tmp_path / "uploads.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=dict(os.environ), check=False)
    assert done.returncode == -9
    assert Ledger(path).sent_since("2026-11-24") == 700


def test_a_choice_is_kept_until_the_setting_changes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "uploads.db")
    assert ledger.choice(Mode.SHARED) == Choice(Mode.SHARED)
    chosen = Choice(Mode.DIRECT, inf, frozenset({"wlan0 aa", "wwan0"}))
    ledger.choose(chosen, Mode.SHARED)
    ledger.close()
    again = Ledger(tmp_path / "uploads.db")
    assert again.choice(Mode.SHARED) == chosen
    assert again.choice(Mode.DIRECT).mode is Mode.DIRECT
    again.choose(Choice(Mode.SHARED), Mode.DIRECT)
    assert again.choice(Mode.SHARED).mode is Mode.SHARED


class Stuck(dict[InfoHash, str]):
    """Names that are asked for in the middle of a transaction, wait there for `other`, and cannot be kept."""

    def __init__(self, other: threading.Thread) -> None:
        super().__init__()
        self.other = other

    def items(self) -> Any:
        self.other.start()
        self.other.join(0.3)
        return [(FILM, object())]


def test_figures_that_cannot_be_kept_take_no_choice_with_them(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "uploads.db")
    chosen = Choice(Mode.DIRECT, 1500.0)
    user = threading.Thread(target=ledger.choose, args=(chosen, Mode.SHARED))
    with pytest.raises(LocalError, match="cannot be used"):
        ledger.add("2026-11-24", Upload(100), Stuck(user))
    user.join()
    ledger.close()
    again = Ledger(tmp_path / "uploads.db")
    assert again.choice(Mode.SHARED) == chosen
    assert again.sent_since("2026-11-24") == 0


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "uploads.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(LocalError, match=r"peer\.data: the upload ledger .*move it away"):
        Ledger(path)


def signed(tmp_path: Path) -> tuple[str, Identity]:
    ledger, identity = Ledger(tmp_path / "uploads.db"), Identity.generate()
    ledger.add("2026-11-23", Upload(100, 0.5, 0.4, {FILM: 80}), {FILM: "Größe"})
    ledger.add("2026-11-24", Upload(50, 0.58, 0.3, {FILM: 20}), {})
    return statement.make(ledger, identity, "2026-11", "2026-11-24T12:00:00+0100"), identity


def test_a_statement_says_what_was_uploaded(tmp_path: Path) -> None:
    text, identity = signed(tmp_path)
    figures = statement.verify(text)
    assert figures["node"] == identity.id.hex()
    assert (figures["sent_bytes"], figures["worst_second_share"]) == (150, 0.58)
    assert figures["titles"] == [{"infohash": FILM.hex(), "title": "Größe", "piece_bytes": 100}]
    assert [day["piece_bytes"] for day in figures["days"]] == [80, 20]


@pytest.mark.parametrize(
    "key", ["sent_bytes", "worst_second_share", "month", "titles", "node", "key", "days"]
)
def test_a_changed_statement_is_found_out(tmp_path: Path, key: str) -> None:
    document = json.loads(signed(tmp_path)[0])
    other = Identity.generate()
    changed = {"node": other.id.hex(), "key": other.public_key.hex(), "titles": [], "days": []}
    document["statement"][key] = changed.get(key, "2026-10" if key == "month" else 0)
    with pytest.raises(LocalError, match=r"signature does not fit|not that of the node"):
        statement.verify(json.dumps(document))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"statement": 1, "signature": ""}', "[" * 100_000, '"x"'])
def test_what_is_no_statement_is_refused(text: str) -> None:
    with pytest.raises(LocalError, match="no upload statement"):
        statement.verify(text)


@pytest.mark.parametrize("key", ["sent_bytes", "worst_second_share", "worst_ten_seconds_share", "month"])
@pytest.mark.parametrize("value", [None, [], {"a": 1}])
def test_a_good_signature_below_no_figures_is_refused(tmp_path: Path, key: str, value: object) -> None:
    text, identity = signed(tmp_path)
    figures = json.loads(text)["statement"]
    figures[key] = value
    if value is None:
        del figures[key]
    plain = json.dumps(figures, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    signature = identity.sign(statement.DOMAIN, plain).hex()
    with pytest.raises(LocalError, match=f"no upload statement: .*{key}"):
        statement.verify(json.dumps({"statement": figures, "signature": signature}))


@pytest.mark.parametrize("month", ["2026", "2026-13", "2026-1", "2026-11-01", "%", ""])
def test_a_month_is_checked(month: str) -> None:
    with pytest.raises(LocalError, match="not a month"):
        statement.check_month(month)
