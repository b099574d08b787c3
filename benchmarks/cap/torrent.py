"""libtorrent in a host of the laboratory: `python -m benchmarks.cap.torrent VERB ...`.

make FOLDER BYTES                     writes a payload and its torrent (version 1: others know no other)
seed TORRENT FOLDER ADDRESS RATE      seeds it at up to RATE bytes/s until standard input ends
leech TORRENT FOLDER ADDRESS:PORT     downloads from one seeder, and gives nothing, until standard input ends

Each says `ready`.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from random import Random
from typing import Any

import libtorrent as lt

PAYLOAD = "payload.bin"
PORT = 6881
PIECE_BYTES = 1 << 18
SLOTS = 14  # as many as its leechers and more
QUIET: dict[str, Any] = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "in_enc_policy": int(lt.enc_policy.disabled),
    "out_enc_policy": int(lt.enc_policy.disabled),
}


def make(folder: str, size: str) -> None:
    """Random bytes, and a torrent of them beside."""
    (Path(folder) / PAYLOAD).write_bytes(Random(1).randbytes(int(size)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # file_storage, the only way Python has
        files = lt.file_storage()
        files.add_file(PAYLOAD, int(size))
        torrent = lt.create_torrent(files, PIECE_BYTES, lt.create_torrent.v1_only)
        lt.set_piece_hashes(torrent, folder)
    (Path(folder) / "payload.torrent").write_bytes(lt.bencode(torrent.generate()))
    print("ready", flush=True)


def seed(torrent: str, folder: str, address: str, rate: str) -> None:
    """With its own limit at `rate` bytes/s."""
    at = f"{address}:{PORT}"
    session = _session(listen_interfaces=at, upload_rate_limit=int(rate), unchoke_slots_limit=SLOTS)
    parameters = _parameters(torrent, folder)
    parameters.flags |= lt.torrent_flags.seed_mode
    session.add_torrent(parameters)
    _wait()


def leech(torrent: str, folder: str, seeder: str) -> None:
    """From the seeder alone."""
    session = _session(listen_interfaces="0.0.0.0:0")
    host, _, port = seeder.rpartition(":")
    parameters = _parameters(torrent, folder)
    parameters.flags |= lt.torrent_flags.disable_pex  # leechers do not hear of one another
    session.add_torrent(parameters).connect_peer((host, int(port)))
    _wait()


def _session(**settings: Any) -> Any:
    pack: Any = QUIET | settings
    return lt.session(pack)


def _parameters(torrent: str, folder: str) -> Any:
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = folder
    return parameters


def _wait() -> None:
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)  # ending a session in order would take seconds


VERBS: dict[str, Any] = {"make": make, "seed": seed, "leech": leech}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*sys.argv[2:])
