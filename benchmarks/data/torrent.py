"""libtorrent at both ends, over TCP or uTP: a BitTorrent v2 torrent, which it verifies as it always does.

A pair of its sessions has one connection, so many connections are many downloading sessions.
"""

from __future__ import annotations

import os
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import libtorrent as lt

from benchmarks.data.orders import Order, Ready, play, say
from benchmarks.data.readings import Tally, block

PIECE_BYTES = 256 * 1024
POLL_SECONDS = 0.01
PAYLOAD, TORRENT = "payload", "payload.torrent"


def write_payload(folder: Path, size: int) -> None:
    """The block over and over, `size` bytes in all."""
    with (folder / PAYLOAD).open("wb") as file:
        for start in range(0, size, len(block())):
            file.write(block()[: size - start])


def make(order: Order) -> None:
    """Hash the payload into a torrent file beside it."""
    folder = Path(order.folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # file_storage, the only way Python has
        files = lt.file_storage()
        files.add_file(PAYLOAD, (folder / PAYLOAD).stat().st_size)
        torrent = lt.create_torrent(files, PIECE_BYTES, lt.create_torrent.v2_only)
        lt.set_piece_hashes(torrent, str(folder))
    (folder / TORRENT).write_bytes(lt.bencode(torrent.generate()))
    say(Ready())


def send(utp: bool, order: Order) -> None:
    """Seed until killed."""
    session = _session(order, utp, order.host)
    _add(session, order, order.folder, lt.torrent_flags.seed_mode)
    say(Ready(session.listen_port(), os.getpid()))
    while True:
        time.sleep(1)


def receive(utp: bool, order: Order) -> None:
    """Download in so many sessions, and measure."""
    tally = Tally(order)
    downloads = []
    sessions = []
    for at in range(order.connections):
        folder = Path(order.save_folder) / str(at)
        folder.mkdir()
        sessions.append(_session(order, utp, "0.0.0.0"))
        downloads.append(_add(sessions[-1], order, str(folder), lt.torrent_flags.default_flags))
        downloads[-1].connect_peer((order.host, order.port))
    while not _count(downloads):
        time.sleep(POLL_SECONDS)
    time.sleep(order.warm_seconds)
    tally.count = _count(downloads)
    first = tally.read()
    _sleep_while_busy(downloads, order.seconds)
    tally.count = _count(downloads)
    say(first.until(tally.read()))
    os._exit(0)  # ending its sessions in order would take seconds


def _session(order: Order, utp: bool, listen: str) -> Any:
    """Quiet, without discovery or encryption, and with its authors' buffers for speed."""
    settings: Any = dict(lt.high_performance_seed()) if order.rate is None else {}
    settings |= {
        "listen_interfaces": f"{listen}:0",
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "in_enc_policy": int(lt.enc_policy.disabled),
        "out_enc_policy": int(lt.enc_policy.disabled),
        "enable_incoming_utp": utp,
        "enable_outgoing_utp": utp,
        "enable_incoming_tcp": not utp,
        "enable_outgoing_tcp": not utp,
        "mixed_mode_algorithm": int(lt.bandwidth_mixed_algo_t.prefer_tcp),
        "allow_multiple_connections_per_ip": True,
        "connections_limit": 1000,
        "alert_mask": 0,
        "aio_threads": 1 if order.connections > 1 else 4,
    }
    session = lt.session(settings)
    if order.rate is not None:
        everyone = lt.ip_filter()  # by default local addresses are in a class that no limit holds for
        everyone.add_rule("0.0.0.0", "255.255.255.255", 1 << int(lt.session.global_peer_class_id))
        session.set_peer_class_filter(everyone)
        session.apply_settings({"upload_rate_limit": int(order.rate)})
    return session


def _add(session: Any, order: Order, folder: str, flags: int) -> Any:
    wanted = lt.add_torrent_params()
    wanted.ti = lt.torrent_info(str(Path(order.folder) / TORRENT))
    wanted.save_path = folder
    wanted.flags = flags & ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
    return session.add_torrent(wanted)


def _count(downloads: list[Any]) -> int:
    return sum(download.status().total_payload_download for download in downloads)


def _sleep_while_busy(downloads: list[Any], seconds: float) -> None:
    """Until the time is over or one has everything: a second without traffic would be no measure."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not any(one.status().is_seeding for one in downloads):
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    play(
        {
            "make": make,
            "send_tcp": partial(send, False),
            "send_utp": partial(send, True),
            "receive_tcp": partial(receive, False),
            "receive_utp": partial(receive, True),
        }
    )
