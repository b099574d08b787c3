"""The commands `penstock tracker` and `penstock top`. What is heavy is imported when it runs."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from tracker import group_commands, place_command

if TYPE_CHECKING:
    from tracker.config import TrackerConfig

Flag = Parameter(negative=(), show_default=False)


def register(app: App) -> None:
    """Adds the tracker's commands."""
    command = App(name="tracker")
    command.default(tracker)
    command.command(explain)
    app.command(command)
    app.command(top)
    group_commands.register(app)
    place_command.register(app)


def tracker(
    *,
    config: Annotated[Path | None, Parameter(help="Settings file (TOML, table [tracker]).")] = None,
    listen: Annotated[str | None, Parameter(help="Where nodes reach it, host:port (UDP).")] = None,
    api: Annotated[str | None, Parameter(help="Where the JSON API and pages are, host:port.")] = None,
    data: Annotated[Path | None, Parameter(help="Folder of the key and the database.")] = None,
    tier: Annotated[str | None, Parameter(help="single, regional or central.")] = None,
    central: Annotated[
        str | None, Parameter(help="The central tracker's address, for a regional one.")
    ] = None,
    print_config: Annotated[bool, Flag, Parameter(help="Print the whole settings file and exit.")] = False,
    print_address: Annotated[bool, Flag, Parameter(help="Print this tracker's address and exit.")] = False,
) -> None:
    """Run a tracker: it knows who holds what and sends viewers there.

    Once it is ready it says its address, which edges and viewers need. Name the edges that may
    publish in the setting `edges`; `--print-config` shows every setting.
    """
    from shared import config as settings
    from tracker.config import TrackerConfig

    if print_config:
        print(settings.render(TrackerConfig, "tracker"), end="")
        return
    flags = {"listen": listen, "api": api, "data": None if data is None else str(data)}
    flags |= {"tier": tier, "central": central}
    chosen = settings.load(TrackerConfig, "tracker", config, flags)
    if print_address:
        _print_address(chosen)
    else:
        _run(chosen)


def explain(
    log: Annotated[Path, Parameter(help="A log that the setting `redirect_log` named.")],
    *,
    redirect: Annotated[int | None, Parameter(help="Only this one, by its number.")] = None,
) -> None:
    """Say of logged redirects why each source was chosen or passed over."""
    from shared.core.errors import LocalError
    from tracker.core.explain import explain as lines_of
    from tracker.redirect_log import read

    found = False
    for trace in read(log):
        if redirect in (None, trace.number):
            print(*([""] if found else []), *lines_of(trace), sep="\n")
            found = True
    if not found:
        which = "no redirect" if redirect is None else f"no redirect {redirect}"
        raise LocalError(f"{log}: there is {which} in it")


def top(
    *,
    api: Annotated[str, Parameter(help="The tracker's API.")] = "http://127.0.0.1:8430",
    interval: Annotated[float, Parameter(help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, Flag, Parameter(help="Print one table as plain text and exit.")] = False,
    json: Annotated[bool, Flag, Parameter(help="Print one look as JSON and exit.")] = False,
) -> None:
    """Watch a tracker's swarms in the terminal. Keys: q, p, s, Tab, ?"""
    from shared.core.errors import ConfigError

    if not 0.1 <= interval <= 3600:
        raise ConfigError("--interval: expected seconds from 0.1 to 3600")
    if not (once or json) and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("top: there is no terminal to draw on; use --once for a table or --json")
    if once or json:
        from tracker.tui import plain

        snapshot = plain.look(api)
        print(plain.as_json(snapshot) if json else plain.as_text(snapshot))
        return
    from tracker.tui.feed import Feed
    from tracker.tui.screen import TopApp

    TopApp(Feed(api), interval).run()


def _print_address(chosen: TrackerConfig) -> None:
    from shared.core.ids import Address, parse_host_port
    from tracker.server import load_identity, public_at

    print(Address(load_identity(chosen).id, public_at(chosen, parse_host_port(chosen.listen))))


def _run(chosen: TrackerConfig) -> None:
    import trio

    from shared.cli import configure_logging, run_daemon
    from tracker.server import serve

    async def serve_and_say() -> None:
        async with trio.open_nursery() as nursery:
            print(await nursery.start(serve, chosen), flush=True)
            gc.collect()
            gc.freeze()  # the catalogue stays: later collections need not look through it

    configure_logging(chosen.log_level)
    run_daemon(serve_and_say)
