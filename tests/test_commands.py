"""The commands as people meet them: help that teaches, settings that print, and one clear line
for whatever is wrong."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from edge.config import EdgeConfig
from peer.config import PeerConfig
from peer.viewing import title_of
from shared import cli
from shared.config import load
from tests.house_parts import Done, Standing, run, says_one_line, small_film, standing_house
from tracker.config import TrackerConfig

NOBODY = f"penstock://{'0f' * 32}@127.0.0.1:9"
NO_TITLE = f"{NOBODY}/{'ab' * 16}"
HERE = "127.0.0.1:0"
IN_USE = "in use"

Here: TypeAlias = Callable[..., Done]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("house")
    with standing_house(folder, small_film(folder, 4)) as standing:
        yield standing


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Here]:
    """Runs a command in this process, as a person whose home is `tmp_path`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")

    def run_here(*arguments: object) -> Done:
        capfd.readouterr()
        status = cli.main([str(argument) for argument in arguments])
        return Done(status, *capfd.readouterr())

    root = logging.getLogger()
    before = root.level, root.handlers[:]
    yield run_here
    root.level, root.handlers[:] = before


# -- help and settings ----------------------------------------------------------------------------------

TAUGHT = {
    "tracker": ("--listen", "--print-address", "its address"),
    "edge": ("--tracker", "--print-id", "operator"),
    "peer": ("--uplink", "60 %", "http://127.0.0.1:8480"),
    "play": ("ADDRESS", "--player", "mpv", "what penstock publish printed"),
    "fetch": ("--output", "-o", "fetch ADDRESS -o film.mp4"),
    "publish": ("--title", "--edge penstock://ID@host:port", "publishers"),
    "demo": ("--keep", "--seconds", "three PCs and a set-top box"),
    "place": ("--before", "2026-12-24T20:00", "--regions", "--cancel", "--tracker-api"),
    "group": ("create", "keep", "--csv family.csv", "Others get no ticket"),
    "top": ("--api", "--once", "Keys:"),
}


@pytest.mark.parametrize("command", TAUGHT)
def test_help_teaches(here: Here, command: str) -> None:
    done = here(command, "--help")
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.replace("│", " ").split())
    assert text.startswith(f"Usage: penstock {command}")
    for words in TAUGHT[command]:
        assert words in text, words
    assert "TODO" not in text
    assert f"{command}  " in here("--help").out


@pytest.mark.parametrize(
    ("command", "kind"), [("tracker", TrackerConfig), ("edge", EdgeConfig), ("peer", PeerConfig)]
)
def test_printed_settings_read_back(here: Here, tmp_path: Path, command: str, kind: Any) -> None:
    done = here(command, "--print-config")
    assert (done.status, done.err) == (0, "")
    path = tmp_path / "settings.toml"
    path.write_text(done.out)
    assert load(kind, command, path, environ={}) == load(kind, command, None, environ={})
    assert sum(line.startswith("# ") for line in done.out.splitlines()) >= len(kind.__struct_fields__)


# -- settings that cannot be --------------------------------------------------------------------------

SETTINGS = [
    (("--bogus", 1), r"Unknown option: --bogus"),
    (("--uplink", "0 Mbit/s"), r"peer\.uplink: .*above 0.*\(in --uplink\)"),
    (("--uplink", "0"), r"peer\.uplink: .*its unit"),
    (("--uplink", "-5 Mbit/s"), r"peer\.uplink: '-5 Mbit/s' is not a rate"),
    (("--uplink", "1e30 Mbit/s"), r"peer\.uplink: "),
    (("--uplink", "9999 Tbit/s"), r"peer\.uplink: .*at most 1 Tbit/s"),
    (("--uplink", "20 kbit/s"), r"peer: uplink: .*mode = \"direct\""),
    (("--uplink", "10 furlongs"), r"peer\.uplink: .*unknown unit.*Mbit/s"),
    (("--kind", "phone"), r"peer\.kind: 'phone' is not known; allowed: pc, stb"),
    (("--mode", "share"), r"peer\.mode: .*did you mean shared\?"),
    (("--quota", "-1 GB"), r"peer\.quota: |--quota requires an argument"),
    (("--listen", "here:there"), r"peer\.listen: .*expected host:port"),
    (("--player", "127.0.0.1:99999"), r"peer\.player: .*expected host:port"),
    (("--tracker", "nonsense"), r"peer\.tracker: 'nonsense' is not a Penstock address"),
    (("--config", "missing.toml"), r"missing\.toml: there is no such settings file; write one with"),
]


@pytest.mark.parametrize(("flags", "pattern"), SETTINGS, ids=lambda value: str(value)[:40])
def test_a_wrong_setting_is_named(here: Here, flags: tuple[object, ...], pattern: str) -> None:
    tracker = () if "--tracker" in flags else ("--tracker", NOBODY)
    says_one_line(here("peer", *tracker, *flags), 2, pattern)


def test_a_misspelt_setting_in_a_file_is_named(here: Here, tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[peer]\nupling = "10 Mbit/s"\n')
    says_one_line(here("peer", "--config", path), 2, r"peer\.upling: unknown setting.*did you mean uplink\?")


@pytest.mark.parametrize("role", ["peer", "edge"])
def test_a_node_without_a_tracker_asks_for_it(here: Here, role: str) -> None:
    says_one_line(here(role), 2, rf"{role}\.tracker: must be set; it is the address string")


def test_a_door_for_everybody_is_refused(here: Here, tmp_path: Path) -> None:
    done = here(
        "peer", "--tracker", NOBODY, "--listen", HERE, "--player", "0.0.0.0:0", "--data", tmp_path / "p"
    )
    says_one_line(
        done, 1, r"peer\.player: 0\.0\.0\.0 is not this machine's loopback address; use 127\.0\.0\.1"
    )


# -- ports and folders ----------------------------------------------------------------------------------


def _flags(role: str, data: Path, **others: str) -> list[str]:
    """Flags with which a role would start, some of them otherwise."""
    flags = {"data": str(data), "listen": HERE}
    flags |= {"api": HERE} if role == "tracker" else {"tracker": NOBODY}
    flags |= {"player": HERE} if role == "peer" else {}
    return [f"--{name}={value}" for name, value in (flags | others).items()]


@pytest.mark.parametrize("role", ["tracker", "edge", "peer"])
def test_a_udp_port_in_use_is_said(here: Here, tmp_path: Path, role: str) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        done = here(role, *_flags(role, tmp_path / role, listen=at))
    says_one_line(done, 1, rf"cannot listen on {at} \(UDP\): .*{IN_USE}; set {role}\.listen to")


@pytest.mark.parametrize(("role", "flag"), [("tracker", "api"), ("peer", "player")])
def test_an_http_port_in_use_is_said(here: Here, tmp_path: Path, role: str, flag: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        done = here(role, *_flags(role, tmp_path / role, **{flag: f"127.0.0.1:{port}"}))
    says_one_line(
        done, 1, rf"{role}\.{flag}: cannot listen on 127\.0\.0\.1 port {port}: the port is {IN_USE}"
    )


@pytest.mark.parametrize("role", ["tracker", "edge", "peer"])
def test_a_folder_that_is_none_is_said(here: Here, tmp_path: Path, role: str) -> None:
    taken = tmp_path / "file"
    taken.write_text("a file")
    for data in (taken, taken / "below", Path("/proc/nowhere")):
        says_one_line(
            here(role, *_flags(role, data)), 1, rf"{role}\.data: {data} cannot be used: .*; choose another"
        )
    assert taken.read_text() == "a file"


@pytest.mark.parametrize("role", ["tracker", "edge", "peer"])
def test_a_folder_in_use_is_said(here: Here, house: Standing, role: str) -> None:
    data = house.folder / ("viewer" if role == "peer" else role)
    says_one_line(
        here(role, *_flags(role, data)), 1, rf"{role}\.data: {data} is {IN_USE} by another process; stop it"
    )


def test_a_damaged_key_is_said(here: Here, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    (tmp_path / "key").chmod(0o600)
    says_one_line(here("edge", "--data", tmp_path, "--print-id"), 1, r"key holds no Ed25519 private key")


# -- addresses, and a tracker or an edge that is not there -----------------------------------------------


@pytest.mark.parametrize("command", [("play",), ("fetch", "-o", "film.mp4")])
def test_a_title_address_without_a_title_is_said(here: Here, command: tuple[str, ...]) -> None:
    says_one_line(here(*command, NOBODY), 1, r"names a tracker; a title's address ends in /TITLE-ID")
    says_one_line(here(*command, "http://example.org"), 1, r"is not a Penstock address; expected penstock://")
    says_one_line(here(*command, f"{NO_TITLE}0"), 1, r"is not a Penstock address")
    assert title_of(f" {NO_TITLE} ").title == b"\xab" * 16


def test_a_player_that_is_not_known_is_said(here: Here) -> None:
    says_one_line(
        here("play", NO_TITLE, "--player", "winamp"), 2, r"--player: 'winamp' is not known; allowed: auto"
    )


def test_nobody_there_is_said_in_time(tmp_path: Path) -> None:
    film, output = tmp_path / "film.mp4", tmp_path / "output.mp4"
    film.write_bytes(b"a film")
    output.write_bytes(b"an older film")
    tracker, edge = ("the tracker at 127.0.0.1:9 is not reached", "the edge at 127.0.0.1:9 is not reached")
    commands: list[tuple[tuple[object, ...], str]] = [
        (("play", NO_TITLE, "--headless"), tracker),
        (("play", NO_TITLE, "--player", "none"), tracker),
        (("fetch", NO_TITLE, "-o", output), tracker),
        (("publish", film, "--edge", NOBODY), edge),
    ]

    def attempt(number: int) -> Done:
        data = tmp_path / f"data{number}"
        return run(*commands[number][0], "--data", data, PENSTOCK_PEER_PLAYER="127.0.0.1:1")

    began = time.monotonic()
    with ThreadPoolExecutor() as threads:
        for number, done in enumerate(threads.map(attempt, range(len(commands)))):
            says_one_line(done, 1, commands[number][1])
    assert time.monotonic() - began < 30  # ten of patience, and a busy machine's way to them
    assert output.read_bytes() == b"an older film"
    assert not output.with_name("output.mp4.part").exists()


def test_top_without_a_tracker_says_so(here: Here) -> None:
    says_one_line(
        here("top", "--once", "--api", "http://127.0.0.1:9"), 1, r"no tracker answers at http://127"
    )


# -- files --------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_published_is_said(here: Here, tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    cases = [
        ((), 2, r"publish: FILE is missing; penstock publish FILE"),
        ((empty,), 2, r"publish: --edge is missing"),
        ((empty, "--edge", NOBODY), 1, r"empty\.mp4 is empty"),
        ((tmp_path / "none.mp4", "--edge", NOBODY), 1, r"none\.mp4 cannot be read: No such file"),
        ((tmp_path, "--edge", NOBODY), 1, r"is not a file; name a film"),
        ((empty, "--edge", "nonsense"), 1, r"'nonsense' is not a Penstock address"),
    ]
    for flags, status, pattern in cases:
        says_one_line(here("publish", *flags), status, pattern)


def test_what_is_no_film_is_said_by_the_edge(house: Standing, tmp_path: Path) -> None:
    text = tmp_path / "letter.mp4"
    text.write_text("Dear edge,\n" * 1000)
    done = run("publish", text, "--edge", house.edge, "--data", tmp_path / "publisher")
    says_one_line(done, 1, r"not a film")
    assert "letter.mp4: uploading" in done.err or "letter.mp4: reading" in done.err


def test_an_output_that_cannot_be_written_is_said_at_once(here: Here, tmp_path: Path) -> None:
    began = time.monotonic()
    for output in (tmp_path / "none/film.mp4", Path("/proc/film.mp4")):
        done = here("fetch", NO_TITLE, "-o", output)
        says_one_line(
            done, 1, rf"{output} cannot be written: No such file or directory; name another file with -o"
        )
    says_one_line(here("fetch", NO_TITLE, "-o", tmp_path), 1, r"is a folder; name the file to write in it")
    assert time.monotonic() - began < 5


def test_a_full_disk_is_said_and_the_older_file_stays(house: Standing, tmp_path: Path) -> None:
    full = tmp_path / "film.mp4.part"
    full.symlink_to("/dev/full")
    done = run("fetch", house.title, "-o", tmp_path / "film.mp4", "--data", tmp_path / "peer")
    says_one_line(done, 1, r"film\.mp4 cannot be written: No space left on device")
    assert not (tmp_path / "film.mp4").exists()
