"""`penstock peer pause`, `resume`, `statement` and `capcheck`: what a user does about their uploads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from peer.config import PeerConfig

ANSWER_SECONDS = 5.0
Settings = Annotated[Path | None, Parameter(help="Settings file (TOML, table [peer]).")]
Door = Annotated[str | None, Parameter(help="Where the running peer's door is, loopback host:port.")]


def register(viewer: App) -> None:
    """Adds the commands below `penstock peer`."""
    for command in (pause, resume, statement, capcheck):
        viewer.command(command)


def pause(
    duration: Annotated[str | None, Parameter(help="How long, e.g. '2 h'; else until `resume`.")] = None,
    *,
    config: Settings = None,
    player: Door = None,
) -> None:
    """Stop the running peer's uploads, at once; downloads go on.

    A pause survives restarts. `penstock peer resume` ends it.
    """
    from shared.core.units import parse_duration

    wish: bool | float = True if duration is None else float(parse_duration(duration))
    _say(_ask(config, player, {"pause": wish}))


def resume(*, config: Settings = None, player: Door = None) -> None:
    """End a pause of the running peer's uploads."""
    _say(_ask(config, player, {"pause": False}))


def statement(
    month: Annotated[str | None, Parameter(help="Such as 2026-11; this month without it.")] = None,
    *,
    verify: Annotated[Path | None, Parameter(help="Check this statement's signature instead.")] = None,
    config: Settings = None,
    data: Annotated[Path | None, Parameter(help="Folder of the peer's key and ledger.")] = None,
) -> None:
    """Print a month's signed statement: what was uploaded, for which titles, and the fullest windows.

    `penstock peer statement 2026-11 > november.json`, and for anybody who is shown it
    `penstock peer statement --verify november.json`.
    """
    from peer import statement as statements

    if verify is not None:
        _say_verified(statements.verify(statements.read(verify)))
        return
    import time

    from peer.ledger import Ledger
    from shared.identity import Identity

    folder = _settings(config, {"data": None if data is None else str(data)}).data
    month = statements.check_month(month or time.strftime("%Y-%m"))
    if not (folder / "uploads.db").exists():
        _fail(f"peer.data: {folder} has no upload ledger; name the folder of a peer that has run")
    ledger = Ledger(folder / "uploads.db")
    made_at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    print(statements.make(ledger, Identity.load(folder / "key"), month, made_at), end="")


def capcheck(
    *,
    seconds: Annotated[float, Parameter(help="How long to count, 11 to 3600.")] = 60.0,
    interface: Annotated[str | None, Parameter(help="What to count; else the default route's.")] = None,
    uplink: Annotated[
        str | None,
        Parameter(help="What the line carries; else as the peer believes.", allow_leading_hyphen=True),
    ] = None,
    json: Annotated[bool, Parameter(negative=(), help="One line of JSON.")] = False,
    config: Settings = None,
    player: Door = None,
) -> None:
    """Prove the upload cap: count what this machine's interface sends, from outside the peer.

    The system's counters are read for a minute, while the peer runs and uploads. Printed are the fullest
    100 ms, second and ten seconds as shares of the line. The interface counts whatever this machine sends, so
    keep it quiet meanwhile; what the peer says that it sent tells how much was others'. The status is 0 if
    the peer uploaded and kept its cap, 3 if it did not keep it, 4 if this minute proves neither.
    """
    import sys

    from peer import capcheck as check
    from shared.core.units import parse_rate

    if not 11 <= seconds <= 3600:
        _fail("--seconds: from 11 (or there is no window of ten) to 3600")
    line_rate = None if uplink is None else float(parse_rate(uplink))
    settings = _settings(config, {"player": player})
    proof = check.run(seconds, interface, line_rate, settings)
    print(check.as_json(proof) if json else check.as_text(proof))
    sys.exit(proof.verdict.status)


def _settings(config: Path | None, flags: dict[str, str | None]) -> PeerConfig:
    from peer.config import PeerConfig
    from shared import config as settings

    return settings.load(PeerConfig, "peer", config, flags)


def _ask(config: Path | None, player: str | None, wish: dict[str, Any]) -> dict[str, Any]:
    import httpx2

    base = f"http://{_settings(config, {'player': player}).player}"
    try:
        with httpx2.Client(base_url=base, timeout=ANSWER_SECONDS, trust_env=False, verify=False) as client:
            answer = client.post("/api/v1/sharing", json=wish)
    except httpx2.HTTPError as error:
        _fail(f"peer.player: no peer answers at {base} ({error}); start one, or give its --player")
    if answer.status_code != 200:
        _fail(answer.text.strip()[:300] or f"the peer answers with status {answer.status_code}")
    return dict(answer.json())


def _say(sharing: dict[str, Any]) -> None:
    import time

    until = sharing["until"]
    end = "" if until is None else time.strftime(" until %Y-%m-%d %H:%M:%S", time.localtime(until))
    print(f"uploading: {sharing['why'] if sharing['uploading'] else 'no, ' + sharing['why']}{end}")


def _say_verified(figures: dict[str, Any]) -> None:
    print(
        f"good: node {figures['node']} says it sent {figures['sent_bytes']} bytes in {figures['month']}; "
        f"fullest second {figures['worst_second_share']:.1%} of its line, "
        f"fullest ten seconds {figures['worst_ten_seconds_share']:.1%}"
    )


def _fail(text: str) -> Any:
    from shared.core.errors import LocalError

    raise LocalError(text)
