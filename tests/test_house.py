"""The rules of the house that no tool of its own checks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
ROLES = ("tracker", "peer", "edge")
PACKAGES = (*ROLES, "shared")
MAX_LINES = 400
MAX_FUNCTION_LINES = 60
VAGUE = {"manager", "helper", "helpers", "util", "utils", "common", "misc", "data", "info", "base", "handler"}
VAGUE |= {"processor"}
# Libraries that only the named part of the house may load, at run time as well.
OWNERS = {"av": r"edge\.media\b.*", "textual": r"\w+\.tui\b.*"}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def test_no_file_is_too_long() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in sources(*PACKAGES, "tests", "benchmarks")}
    assert len(lines) > 20
    assert {str(path.relative_to(ROOT)): n for path, n in lines.items() if n > MAX_LINES} == {}


def test_no_function_is_too_long() -> None:
    long = {
        f"{module_name(path)}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in sources(*PACKAGES)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        module_name(path) for path in sources(*PACKAGES) if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_names_of_modules_and_classes_mean_something() -> None:
    names = {
        f"{module_name(path)}:{name}"
        for path in sources(*PACKAGES)
        for name in [path.stem, *re.findall(r"^\s*class (\w+)", path.read_text(), re.MULTILINE)]
    }
    words = {name: re.findall(r"[A-Z]?[a-z]+", name.split(":")[1]) for name in names}
    # The noun that carries the name is the last word: a data_folder is a folder, piece_data says nothing.
    assert {name for name, parts in words.items() if parts and parts[-1].lower() in VAGUE} == set()
    assert {name for name, parts in words.items() if parts and parts[0] == "Base"} == set()


def test_a_core_imports_only_cores(imports: grimp.ImportGraph) -> None:
    """Shell calls core, never the reverse; and of the shared code a core sees only shared.core."""
    cores = [module for module in imports.modules if re.match(r"\w+\.core\b", module)]
    assert len(cores) > 10
    outside = {
        (module, imported)
        for module in cores
        for imported in imports.find_modules_directly_imported_by(module)
        if not re.match(rf"({module.split('.')[0]}|shared)\.core\b", imported) and imported not in PACKAGES
    }
    assert outside == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_loading_a_package_loads_no_heavy_library(package: str) -> None:
    """Daemons start without textual, and only a child process ever loads PyAV."""
    names = [module_name(path) for path in sources(package)]
    names = [name for name in names if not any(re.match(owner, name) for owner in OWNERS.values())]
    names = [name for name in names if not name.endswith("__main__")]
    script = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    script += f"print([library for library in {list(OWNERS)!r} if library in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("role", ROLES)
def test_registering_commands_is_cheap(role: str) -> None:
    """Every command pays for every role's registration, so it loads nothing heavy."""
    script = f"import sys\nfrom cyclopts import App\nfrom {role}.commands import register\nregister(App())\n"
    script += (
        "print([name for name in 'aioquic anycorn av starlette textual'.split() if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def wanted(path: Path) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return sorted(line for line in lines if line and not line.startswith(("-", "setuptools")))


def test_locks_ask_for_what_the_project_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert wanted(ROOT / "requirements/run.in") == sorted(project["dependencies"])
    assert wanted(ROOT / "requirements/dev.in") == sorted(project["optional-dependencies"]["dev"])


def test_locks_have_hashes_and_no_addresses() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert not re.search(r"://|--index-url|--find-links|@|(^|\s)/", text), path
        for pinned in re.split(r"\n(?=\S)", text.strip()):
            assert re.match(r"[a-z0-9.-]+==\S+", pinned), pinned
            assert "--hash=sha256:" in pinned, pinned


def test_tests_run_on_the_versions_that_users_get() -> None:
    def locked(name: str) -> set[tuple[str, str]]:
        return set(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))

    assert locked("requirements/run.txt") <= locked("requirements/dev.txt")


def test_no_machine_or_registry_is_named() -> None:
    """The tree works on any machine: no paths of one, no hosts of a registry."""
    named = re.compile(r"/(?:work|home/\w+|root|opt)/|pypi\.org|pythonhosted|registry\.npm")
    suffixes = {".py", ".toml", ".md", ".txt", ".in", ".service", ".html", ".css"}
    folders = (*PACKAGES, "docs", "requirements", "benchmarks")
    texts = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    texts += [ROOT / name for name in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", ".ci/run")]
    assert {str(path) for path in texts if named.search(path.read_text(encoding="utf-8"))} == set()
