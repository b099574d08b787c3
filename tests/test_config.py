"""Settings: file, environment and flags, and what is said when they are wrong."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from shared.config import MAX_FILE_BYTES, load, render
from shared.core.errors import ConfigError
from shared.core.units import Duration, Rate, Size, parse_duration, parse_rate, parse_size
from shared.setting_types import AddressText, HostPortText, show


class Pace(StrEnum):
    SLOW = "slow"
    BRISK = "brisk"


class Mill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings as a role declares them, one of each type."""

    listen: Annotated[HostPortText, Meta(description="Where to listen.")] = HostPortText("127.0.0.1:4430")
    tracker: Annotated[
        AddressText | None,
        Meta(description="Whom to ask.", examples=[f"penstock://{'ab' * 32}@tracker.example:4430"]),
    ] = None
    uplink: Annotated[Rate, Meta(description="The line.", examples=["10 Mbit/s"])] = parse_rate("20 Mbit/s")
    quota: Annotated[Size, Meta(description="The disk.")] = parse_size("10 GB")
    patience: Annotated[Duration, Meta(description="The wait.")] = parse_duration("90 s")
    folder: Annotated[Path, Meta(description="Where pieces go.")] = Path("~/pieces")
    pace: Annotated[Pace, Meta(description="How fast.")] = Pace.SLOW
    wheels: Annotated[int, Meta(description="How many. " * 20, ge=1, le=8)] = 2
    slope: Annotated[float, Meta(description="How steep.", gt=0)] = 0.5
    open: Annotated[bool, Meta(description="Whether it is open.")] = True
    names: Annotated[tuple[str, ...], Meta(description="What it is called.")] = ("a", 'b "c"\\\n')

    def __post_init__(self) -> None:
        if self.wheels == 7 and not self.open:
            raise ValueError("seven wheels need an open gate")


def load_text(tmp_path: Path, text: str, **overrides: Any) -> Mill:
    path = tmp_path / "penstock.toml"
    path.write_text(text, encoding="utf-8")
    return load(Mill, "mill", path, overrides, environ={})


def refusal(tmp_path: Path, text: str, **overrides: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text, **overrides)
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_defaults_need_no_file() -> None:
    mill = load(Mill, "mill", None, environ={})
    assert (mill.wheels, mill.pace, mill.tracker) == (2, Pace.SLOW, None)
    assert mill.folder == Path.home() / "pieces"


def test_rendered_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_text(tmp_path, render(Mill, "mill")) == load(Mill, "mill", None, environ={})


def test_rendered_file_says_what_settings_mean() -> None:
    text = render(Mill, "mill")
    assert text.startswith("[mill]\n\n# Where to listen.\nlisten = ")
    assert '# The line.\n# For example: "10 Mbit/s".\nuplink = "20 Mbit/s"\n' in text
    assert '# Allowed: "slow", "brisk".\npace = "slow"\n' in text
    assert "# Allowed: at least 1, at most 8.\nwheels = 2\n" in text
    assert '# tracker = "penstock://abab' in text
    assert 'folder = "~/pieces"' in text  # nobody's home in a printed file
    assert max(len(line) for line in text.splitlines() if "penstock://" not in line) <= 100


def test_a_setting_without_description_cannot_be_printed() -> None:
    class Bare(msgspec.Struct):
        silent: int = 3

    with pytest.raises(ValueError, match=r"bare\.silent has no description"):
        render(Bare, "bare")


def test_a_default_that_its_text_cannot_give_back_is_refused() -> None:
    with pytest.raises(ValueError, match="rounder"):
        show(Rate(1_000_000 / 3))


def test_file_values_of_every_type(tmp_path: Path) -> None:
    mill = load_text(
        tmp_path,
        '[mill]\nlisten = "[::1]:0"\nuplink = "1 MB/s"\nquota = "1 GiB"\npatience = "2 min"\nfolder = "/x"\n'
        'pace = "brisk"\nwheels = 8\nslope = 1\nopen = false\nnames = ["n"]\n'
        f'tracker = "penstock://{"0A" * 32}@h:1"\n',
    )
    assert mill.tracker == f"penstock://{'0a' * 32}@h:1"
    assert (str(mill.listen), float(mill.uplink), int(mill.quota)) == ("[::1]:0", 1e6, 2**30)
    assert float(mill.patience) == 120
    assert (mill.folder, mill.pace, mill.wheels, mill.slope) == (Path("/x"), Pace.BRISK, 8, 1.0)
    assert (mill.open, mill.names) == (False, ("n",))


def test_environment_beats_file_and_flags_beat_both(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    path.write_text("[mill]\nwheels = 3\nslope = 3\nopen = false\n")
    environ = {"PENSTOCK_MILL_WHEELS": "4", "PENSTOCK_MILL_SLOPE": "4", "PENSTOCK_OTHER_WHEELS": "9"}
    mill = load(Mill, "mill", path, {"wheels": "5", "open": None}, environ=environ)
    assert (mill.wheels, mill.slope, mill.open) == (5, 4.0, False)


def test_environment_values_of_every_type() -> None:
    environ = {
        "PENSTOCK_MILL_UPLINK": "1 MB/s",
        "PENSTOCK_MILL_OPEN": "false",
        "PENSTOCK_MILL_NAMES": "a, b,",
        "PENSTOCK_MILL_FOLDER": "~/x",
        "PENSTOCK_MILL_PACE": "brisk",
    }
    mill = load(Mill, "mill", None, environ=environ)
    assert (float(mill.uplink), mill.open, mill.names) == (1e6, False, ("a", "b"))
    assert (mill.folder, mill.pace) == (Path.home() / "x", Pace.BRISK)


def test_flags_may_be_values_already() -> None:
    mill = load(Mill, "mill", None, {"uplink": Rate(5), "folder": Path("/y"), "pace": Pace.BRISK}, environ={})
    assert (float(mill.uplink), mill.folder, mill.pace) == (5.0, Path("/y"), Pace.BRISK)


@pytest.mark.parametrize(
    ("text", "start", "part"),
    [
        ("[mill]\nweels = 3", "mill.weels: unknown setting", "did you mean wheels? known: folder, listen"),
        ("[mil]\nwheels = 3", "mil: unknown table", "did you mean mill?"),
        ("wheels = 3", "wheels: unknown setting", "known: "),
        ("mill = 3", "mill: must be a table", "[mill]"),
        ("[[mill]]", "mill: must be a table", "[mill]"),
        ("[mill]\nwheels = 9", "mill.wheels: Expected int <= 8", "penstock.toml"),
        ("[mill]\nwheels = '3'", "mill.wheels: Expected int, got str", ""),
        ("[mill]\nwheels = true", "mill.wheels: Expected int, got bool", ""),
        ("[mill]\nslope = nan", "mill.slope: Expected float > 0.0", ""),
        ("[mill]\nslope = inf", "mill.slope: expected a finite number", ""),
        ("[mill]\npace = 'brsk'", "mill.pace: 'brsk' is not known", "mean brisk? allowed: slow, brisk"),
        ("[mill]\nuplink = 5", "mill.uplink: expected text in quotes, got int", ""),
        ("[mill]\nuplink = '0 B/s'", "mill.uplink: '0 B/s' is out of range", ""),
        ("[mill]\nquota = '5 Gb'", "mill.quota: '5 Gb' has an unknown unit", ""),
        ("[mill]\nlisten = 'a:b:c'", "mill.listen: 'a:b:c' is not an address", "host:port"),
        ("[mill]\ntracker = 'h:1'", "mill.tracker: 'h:1' is not a Penstock address", ""),
        ("[mill]\nfolder = ''", "mill.folder: '' is not a path", ""),
        ("[mill]\nfolder = '~nobody-at-all/x'", "mill.folder: '~nobody-at-all/x'", "write the whole path"),
        ("[mill]\nnames = [1]", "mill.names: Expected str, got int", "[0]"),
        ("[mill]\nnames = 'a'", "mill.names: Expected list, got str", ""),
        ("[mill]\nwheels = 7\nopen = false", "mill: seven wheels need an open gate", ""),
        ("[mill]\nwheels = ", "PATH: not valid TOML", "line 2"),
        ("[mill]\nwheels = 1\nwheels = 2", "PATH: not valid TOML", "line 3"),
        ("x = " + "[" * 100_000, "PATH: not valid", ""),
        ("x = " + "9" * 10_000, "PATH: not valid", ""),
        ("#" * (MAX_FILE_BYTES + 1), "PATH: over ", "not a settings file"),
    ],
)
def test_a_wrong_file_is_refused_by_its_path(tmp_path: Path, text: str, start: str, part: str) -> None:
    said = refusal(tmp_path, text)
    assert said.startswith(start.replace("PATH", str(tmp_path / "penstock.toml")))
    assert part in said


def test_a_wrong_variable_or_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^mill\.weels: unknown .*PENSTOCK_MILL_WEELS.* wheels"):
        load(Mill, "mill", None, environ={"PENSTOCK_MILL_WEELS": "1"})
    with pytest.raises(ConfigError, match=r"^mill\.wheels: Expected int, .*PENSTOCK_MILL_WHEELS"):
        load(Mill, "mill", None, environ={"PENSTOCK_MILL_WHEELS": "many"})
    assert refusal(tmp_path, "", wheels=0).endswith("(in --wheels)")


def test_unusable_files_say_what_to_do(tmp_path: Path) -> None:
    def refuse(path: Path) -> str:
        with pytest.raises(ConfigError) as caught:
            load(Mill, "mill", path, environ={})
        return str(caught.value)

    assert "penstock mill --print-config >" in refuse(tmp_path / "absent.toml")
    assert "directory" in refuse(tmp_path)
    assert "null byte" in refuse(Path("a\0b"))
    (tmp_path / "latin.toml").write_bytes(b"[mill]\n# fine\nnames = ['\xe9']\n")
    assert "line 3 is not UTF-8" in refuse(tmp_path / "latin.toml")


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert load_text(tmp_path, "\ufeff[mill]\nwheels = 3\n").wheels == 3


def test_a_setting_without_default_must_be_given(tmp_path: Path) -> None:
    class Needy(msgspec.Struct, frozen=True, kw_only=True):
        name: Annotated[str, Meta(description="Its name.", examples=["Ada"])]

    with pytest.raises(ConfigError, match=r"^needy\.name: must be set, .* PENSTOCK_NEEDY_NAME"):
        load(Needy, "needy", None, environ={})
    assert render(Needy, "needy").endswith(
        '# Its name.\n# For example: "Ada".\n# name = "Ada"  # must be set\n'
    )
    assert load(Needy, "needy", None, environ={"PENSTOCK_NEEDY_NAME": "Bo"}).name == "Bo"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_text_survives_being_shown(text: str) -> None:
    """A text shown as TOML reads back as itself."""
    import tomllib

    assert tomllib.loads(f"x = {show(text)}") == {"x": text}
