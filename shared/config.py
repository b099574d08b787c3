"""Settings: one TOML file with a table per role, then the environment, then flags.

A role declares its settings once, as a frozen `msgspec.Struct` in which every field has a
default and says what it means (`Annotated[Rate, Meta(description=..., examples=[...])]`).
That one declaration is what the file is checked against and what `render` prints, so the
documentation cannot drift from the program. Nothing is ignored: an unknown key, table or
environment variable is refused by name.
"""

from __future__ import annotations

import os
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from shared.core.errors import ConfigError, LocalError
from shared.setting_types import convert, description_of, examples_of, limits_of, show

T = TypeVar("T", bound=msgspec.Struct)

COMMAND_GROUP = "penstock.commands"  # entry points; a role's table has its command's name
MAX_FILE_BYTES = 1 << 20  # a settings file has a few kilobytes; anything else is a wrong path


class _Given(NamedTuple):
    """A value somebody gave, and where, for the error text."""

    value: Any
    place: str
    is_text: bool  # the environment and flags have only text, for numbers too


def load(
    kind: type[T],
    section: str,
    path: Path | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> T:
    """The settings of one role: defaults, then the table `[section]` of the file at `path`
    (None: no file), then `PENSTOCK_<SECTION>_<KEY>`, then `overrides` (flags; None = not given).

    Raises ConfigError that starts with the key's dotted path, or with the file's.
    """
    given = _from_file(section, path) if path is not None else {}
    given |= _from_environment(section, os.environ if environ is None else environ)
    given |= _from_flags(overrides or {})
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key in given:
        if key not in fields:
            raise _unknown(f"{section}.{key}", "setting", key, fields, given[key].place)
    for key, field in fields.items():
        if field.required and key not in given:
            raise ConfigError(f"{section}.{key}: must be set, in the file or as {_variable(section, key)}")
    values = {key: _value(section, key, fields[key].type, given[key]) for key in given}
    return _build(kind, section, _home_paths(fields, values) | values)


def render(kind: type[msgspec.Struct], section: str) -> str:
    """The whole settings file of a role, commented, with every default: TOML that `load` reads
    back as the defaults. Settings without a default value stand commented out.

    Raises ValueError for a setting that nobody described.
    """
    fields = msgspec.structs.fields(kind)
    return "\n".join([f"[{section}]", *(_render_field(section, field) for field in fields)])


def _home_paths(fields: Mapping[str, msgspec.structs.FieldInfo], values: Mapping[str, Any]) -> dict[str, Any]:
    """Default paths with `~` filled in, as for paths that are given: `render` prints the `~`."""
    return {
        key: convert(str(field.default), Path, is_text=True)
        for key, field in fields.items()
        if key not in values and isinstance(field.default, Path)
    }


def _build(kind: type[T], section: str, values: dict[str, Any]) -> T:
    try:
        return kind(**values)
    except ConfigError:
        raise
    except (LocalError, ValueError, TypeError) as error:  # a rule between settings, in __post_init__
        raise ConfigError(f"{section}: {error}") from None


def _value(section: str, key: str, kind: Any, given: _Given) -> Any:
    try:
        return convert(given.value, kind, is_text=given.is_text)
    except LocalError as error:
        raise ConfigError(f"{section}.{key}: {error} (in {given.place})") from None


def _from_file(section: str, path: Path) -> dict[str, _Given]:
    document = _read_toml(section, path)
    known = {section, *(point.name for point in entry_points(group=COMMAND_GROUP))}
    for name, table in document.items():
        if name not in known:
            raise _unknown(name, "table" if isinstance(table, dict) else "setting", name, known, str(path))
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: must be a table, [{name}] (in {path})")
    return {key: _Given(value, str(path), False) for key, value in document.get(section, {}).items()}


def _read_toml(section: str, path: Path) -> dict[str, Any]:
    raw = _read(section, path)
    try:
        # The newline makes an error at the end of the file one with a line number.
        return tomllib.loads(raw.decode("utf-8-sig") + "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line} is not UTF-8; save the file as UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        cure = f"compare with `penstock {section} --print-config`"
        raise ConfigError(f"{path}: not valid TOML: {error}; {cure}") from None
    except (RecursionError, ValueError) as error:  # a nest of brackets; a number of 5000 digits
        raise ConfigError(f"{path}: not valid settings: {error}") from None


def _read(section: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        cure = f"write one with `penstock {section} --print-config > {path}`"
        raise ConfigError(f"{path}: there is no such settings file; {cure}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(f"{path}: the settings file cannot be read: {reason}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: over {MAX_FILE_BYTES} bytes, so not a settings file; give another path")
    return raw


def _from_environment(section: str, environ: Mapping[str, str]) -> dict[str, _Given]:
    prefix = _variable(section, "")
    return {
        name.removeprefix(prefix).lower(): _Given(text, name, True)
        for name, text in environ.items()
        if name.startswith(prefix)
    }


def _from_flags(overrides: Mapping[str, Any]) -> dict[str, _Given]:
    return {
        key: _Given(value, f"--{key.replace('_', '-')}", isinstance(value, str))
        for key, value in overrides.items()
        if value is not None
    }


def _variable(section: str, key: str) -> str:
    return f"PENSTOCK_{section}_{key}".upper()


def _unknown(path: str, what: str, name: str, known: Iterable[str], place: str) -> ConfigError:
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return ConfigError(f"{path}: unknown {what} (in {place}); {hint}known: {', '.join(sorted(known))}")


def _render_field(section: str, field: msgspec.structs.FieldInfo) -> str:
    description = description_of(field.type)
    if not description:
        raise ValueError(f"{section}.{field.name} has no description; write it where it is declared")
    lines = textwrap.wrap(description, 96)
    if limits := limits_of(field.type):
        lines.append(f"Allowed: {limits}.")
    if examples := examples_of(field.type):
        lines.append(f"For example: {', '.join(show(example) for example in examples)}.")
    return "\n".join(["", *(f"# {line}" for line in lines), _render_default(field), ""]).rstrip("\n") + "\n"


def _render_default(field: msgspec.structs.FieldInfo) -> str:
    default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
    if default is not msgspec.NODEFAULT and default is not None:
        return f"{field.name} = {show(default)}"
    examples = examples_of(field.type)
    word = "must be set" if field.required else "not set"
    return f"# {field.name} = {show(examples[0] if examples else '')}  # {word}"
