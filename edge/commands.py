"""The command `penstock edge`. What is heavy is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from edge.config import EdgeConfig

Flag = Parameter(negative=(), show_default=False)


def register(app: App) -> None:
    """Adds the edge's commands."""
    app.command(edge)


def edge(
    *,
    config: Annotated[Path | None, Parameter(help="Settings file (TOML, table [edge]).")] = None,
    tracker: Annotated[str | None, Parameter(help="The tracker's address string.")] = None,
    listen: Annotated[str | None, Parameter(help="Where nodes reach it, host:port (UDP).")] = None,
    data: Annotated[Path | None, Parameter(help="Folder of the key, pieces and uploads.")] = None,
    region: Annotated[str | None, Parameter(help="Where this edge is.")] = None,
    quota: Annotated[str | None, Parameter(help="Disk space for titles, e.g. '500 GB'.")] = None,
    workers: Annotated[int | None, Parameter(help="How many processes serve viewers.")] = None,
    print_config: Annotated[bool, Flag, Parameter(help="Print the whole settings file and exit.")] = False,
    print_id: Annotated[bool, Flag, Parameter(help="Print this edge's node id and exit.")] = False,
) -> None:
    """Run an edge: it takes uploads, makes titles of them, and seeds them to viewers.

    The tracker's operator must know it first: give them what `penstock edge --print-id` prints.
    `--print-config` shows every setting; the edge says its address for publishers once it is ready.
    SIGUSR1 makes it drain: viewers who are here are served, nobody new is sent. Again, and it goes on.
    """
    from edge.config import EdgeConfig
    from shared import config as settings

    if print_config:
        print(settings.render(EdgeConfig, "edge"), end="")
        return
    flags = {
        "tracker": tracker,
        "listen": listen,
        "data": None if data is None else str(data),
        "region": region,
        "quota": quota,
        "workers": workers,
    }
    chosen = settings.load(EdgeConfig, "edge", config, flags)
    if print_id:
        from shared.identity import Identity

        print(Identity.load(chosen.data / "key").id.hex())
    else:
        _run(chosen)


def _run(chosen: EdgeConfig) -> None:
    import signal

    import trio

    from edge.server import serve
    from edge.supervisor import supervise
    from shared.cli import configure_logging, run_daemon

    run = serve if chosen.workers == 1 else supervise

    async def serve_and_say() -> None:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGUSR1) as signals:
                ready = await nursery.start(run, chosen)
                print(ready, flush=True)
                draining = False
                async for _ in signals:
                    draining = not draining
                    ready.set_draining(draining)

    configure_logging(chosen.log_level)
    run_daemon(serve_and_say)
