"""Clients that know nothing of Penstock fetch a published film: libtorrent by the .torrent, aria2 by HTTP.

Our torrents are of version 2 only, or their infohash would not be the swarm's name: libtorrent reads
them; Transmission 3 and aria2 1.36 read version 1 only, and say so.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from shared.core import bencode
from tests.node_parts import Published, published_once
from tests.test_web_seed import Doors, doors

CLIENT_SECONDS = 20.0


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return published_once(tmp_path_factory)


def session(host: str = "127.0.0.1") -> Any:
    """A libtorrent that asks trackers and web seeds, and nobody else."""
    libtorrent = pytest.importorskip("libtorrent")
    return libtorrent.session(
        {
            "listen_interfaces": f"{host}:0",
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
            "allow_multiple_connections_per_ip": True,
            "enable_outgoing_utp": False,
            "enable_incoming_utp": False,
            "min_reconnect_time": 1,
            "stop_tracker_timeout": 1,
            "alert_mask": libtorrent.alert.category_t.all_categories,
        }
    )


def add(client: Any, torrent: dict[bytes, Any], folder: Path) -> Any:
    libtorrent = pytest.importorskip("libtorrent")
    folder.mkdir(exist_ok=True)
    what = libtorrent.add_torrent_params()
    what.ti = libtorrent.torrent_info(libtorrent.bdecode(bencode.dumps(torrent)))
    what.save_path = str(folder)
    return client.add_torrent(what)


def finish(client: Any, handle: Any) -> None:
    """Waits until a client has all of it."""
    until, said = time.monotonic() + CLIENT_SECONDS, []
    while not handle.status().is_seeding:
        said += [alert.message() for alert in client.pop_alerts()]
        assert time.monotonic() < until, "\n".join(said)
        time.sleep(0.05)


def only(torrent: dict[bytes, Any], *, tracker: str | None, seeds: bool) -> dict[bytes, Any]:
    """The torrent with one tracker or none, and with web seeds or without."""
    kept = {key: value for key, value in torrent.items() if key in (b"info", b"piece layers")}
    if tracker is not None:
        kept[b"announce"] = tracker.encode()
    if seeds:
        kept[b"url-list"] = torrent[b"url-list"]
    return kept


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_libtorrent_fetches_from_the_edge_and_gives_to_another(tmp_path: Path, film: Published) -> None:
    """The first has the film from the web seed alone, and announces over UDP; the second has it from the
    first, whom it is told of over HTTP."""
    async with doors(tmp_path, film) as there:
        await trio.to_thread.run_sync(_fetch_and_pass_on, there, await there.torrent(), tmp_path)
    for name in ("first", "second"):
        assert digest(tmp_path / name / film.manifest.name) == hashlib.sha256(film.data).hexdigest(), name


def _fetch_and_pass_on(there: Doors, torrent: dict[bytes, Any], folder: Path) -> None:
    udp, http = (url[0].decode() for url in torrent[b"announce-list"])
    first, second = session(), session()
    seeding = add(first, only(torrent, tracker=udp, seeds=True), folder / "first")
    assert seeding.info_hashes().v2.to_bytes() == there.film.infohash
    finish(first, seeding)
    assert seeding.status().total_payload_download >= len(there.film.data)
    finish(second, add(second, only(torrent, tracker=http, seeds=False), folder / "second"))
    until = time.monotonic() + CLIENT_SECONDS
    while seeding.status().total_payload_upload < len(there.film.data):  # counted a moment later
        assert time.monotonic() < until
        time.sleep(0.05)


async def test_aria2_fetches_the_file_in_parts(tmp_path: Path, film: Published) -> None:
    aria2 = _program("aria2c")
    async with doors(tmp_path, film) as there:
        done = await _run(
            aria2, "--no-conf", "--split=4", "--min-split-size=1M", "--max-connection-per-server=4",
            f"--dir={tmp_path}", "--out=film.mp4", there.seed,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert digest(tmp_path / "film.mp4") == hashlib.sha256(film.data).hexdigest()


@pytest.mark.parametrize(("program", "says"), [("aria2c", b"Missing pieces"), ("transmission-show", b"rror")])
async def test_what_knows_version_1_only_refuses_the_torrent(
    tmp_path: Path, film: Published, program: str, says: bytes
) -> None:
    """It refuses before it asks anybody; if one day it does not, the sentence at the top is to change."""
    path = _program(program)
    async with doors(tmp_path, film) as there:
        torrent = tmp_path / "film.torrent"
        torrent.write_bytes(bencode.dumps(await there.torrent()))
        done = await _run(path, *(["--no-conf", "-S"] if program == "aria2c" else []), str(torrent))
        assert says in done.stdout


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


async def _run(*command: str) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(CLIENT_SECONDS):
        return await trio.run_process(
            command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, stdin=b""
        )
