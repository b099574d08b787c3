"""The viewer's commands: peer, play, fetch, publish, demo. What is heavy is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from peer import sharing_commands

if TYPE_CHECKING:
    from peer.config import PeerConfig

Flag = Parameter(negative=(), show_default=False)
Settings = Annotated[Path | None, Parameter(help="Settings file (TOML, table [peer]).")]
Data = Annotated[Path | None, Parameter(help="Folder of the key and the pieces.")]


def register(app: App) -> None:
    """Adds the viewer's commands."""
    viewer = App(name="peer")
    viewer.default(peer)
    sharing_commands.register(viewer)
    app.command(viewer)
    for command in (play, fetch, publish, demo):
        app.command(command)


def peer(
    *,
    config: Settings = None,
    tracker: Annotated[str | None, Parameter(help="The tracker's address string.")] = None,
    kind: Annotated[str | None, Parameter(help="pc, or stb for a set-top box.")] = None,
    mode: Annotated[str | None, Parameter(help="shared uploads under the cap, direct never.")] = None,
    uplink: Annotated[
        str | None, Parameter(help="What the line can upload, e.g. '40 Mbit/s'.", allow_leading_hyphen=True)
    ] = None,
    listen: Annotated[str | None, Parameter(help="Where peers reach it, host:port (UDP).")] = None,
    player: Annotated[str | None, Parameter(help="Where players reach it, loopback host:port.")] = None,
    data: Data = None,
    quota: Annotated[str | None, Parameter(help="Disk space for pieces, e.g. '20 GB'.")] = None,
    print_config: Annotated[bool, Flag, Parameter(help="Print the whole settings file and exit.")] = False,
) -> None:
    """Run a peer: it plays to any player on this machine, and shares what it holds.

    Give it the tracker's address once, here or in the settings file; `--print-config` shows every
    setting. Then open http://127.0.0.1:8480 in a browser, or use `penstock play` and `penstock fetch`.
    Uploads stay under 60 % of `--uplink`; with `--mode direct` there are none.
    """
    from peer.config import PeerConfig
    from shared import config as settings

    if print_config:
        print(settings.render(PeerConfig, "peer"), end="")
        return
    flags = {"tracker": tracker, "kind": kind, "mode": mode, "uplink": uplink, "listen": listen}
    flags |= {"player": player, "data": _text(data), "quota": quota}
    _run(settings.load(PeerConfig, "peer", config, flags))


def play(
    address: Annotated[str, Parameter(help="The title's address: penstock://…/TITLE.")],
    *,
    config: Settings = None,
    data: Data = None,
    player: Annotated[str, Parameter(help="mpv, vlc, browser or none; auto takes the first found.")] = "auto",
    headless: Annotated[
        bool, Flag, Parameter(help="Play without a picture at normal speed, and say how it went.")
    ] = False,
    json: Annotated[bool, Flag, Parameter(help="With --headless: say it as one line of JSON.")] = False,
) -> None:
    """Play a title in mpv, VLC or the browser, through the running peer or one of its own.

    The title's address is what `penstock publish` printed, and what the tracker's page shows. With
    `--player none` only the addresses for other players are printed.
    """
    from peer import viewing
    from shared.cli import run_trio

    title = viewing.title_of(address)
    settings = _settings_of(config, data, address)
    run_trio(viewing.play, title, settings, "headless" if headless else player, json)


def fetch(
    address: Annotated[str, Parameter(help="The title's address: penstock://…/TITLE.")],
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The file to write.")],
    config: Settings = None,
    data: Data = None,
) -> None:
    """Download a title into a file, and verify it.

    The file gets its name only when every byte has been checked. What was fetched before a broken-off
    download is not fetched again: `penstock fetch ADDRESS -o film.mp4` once more goes on.
    """
    from peer import viewing
    from shared.cli import run_trio

    title = viewing.title_of(address)
    run_trio(viewing.fetch, title, _settings_of(config, data, address), output)


def publish(
    file: Annotated[Path | None, Parameter(help="The film.")] = None,
    *,
    title: Annotated[str | None, Parameter(help="Its display title; else the file's name.")] = None,
    edge: Annotated[str | None, Parameter(help="The edge's address, as it prints it at its start.")] = None,
    data: Annotated[Path | None, Parameter(help="Folder of the publisher's key, a peer's.")] = None,
    print_id: Annotated[bool, Flag, Parameter(help="Print the id an edge must allow, and exit.")] = False,
) -> None:
    """Hand a film in to an edge, and print the address of the title that becomes of it.

    `penstock publish film.mkv --title "The Film" --edge penstock://ID@host:port`. An edge takes films
    from its own machine, and from those whose id (`--print-id`) its operator has put into the
    setting `publishers`. A broken-off upload goes on where it was.
    """
    from peer import handing_in

    handing_in.run(file, title, edge, _text(data), print_id)


def demo(
    *,
    keep: Annotated[bool, Flag, Parameter(help="Keep everything running afterwards.")] = False,
    seconds: Annotated[int, Parameter(help="Length of the film, 20 to 600.")] = 60,
    work: Annotated[Path | None, Parameter(help="Folder for everything the demo makes.")] = None,
) -> None:
    """Show the whole house on this machine: a tracker, an edge, four viewers, one film.

    The film is generated, published, and watched by three PCs and a set-top box that arrive five
    seconds apart. Without a terminal the last line is JSON. The status is 0 if every viewer got
    every byte, verified.
    """
    from peer.demo import run_demo

    run_demo(keep=keep, seconds=seconds, work=work)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _settings_of(config: Path | None, data: Path | None, address: str) -> PeerConfig:
    from peer.config import PeerConfig
    from shared import config as settings

    tracker = address.strip().rpartition("/")[0]
    return settings.load(PeerConfig, "peer", config, {"data": _text(data), "tracker": tracker})


def _run(chosen: PeerConfig) -> None:
    import trio

    from peer.daemon import serve
    from shared.cli import configure_logging, run_daemon

    async def serve_and_say() -> None:
        async with trio.open_nursery() as nursery:
            print(await nursery.start(serve, chosen), flush=True)

    configure_logging(chosen.log_level)
    run_daemon(serve_and_say)
