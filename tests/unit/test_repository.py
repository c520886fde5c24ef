"""The repository keeps the promises that make it readable and installable anywhere."""

from __future__ import annotations

import ast
import functools
import platform
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import trierarch

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCE_ROOTS = ("platform", "operators", "loadtests", "deploy/local")

MOST_LINES = 500
"""A longer file holds more than one idea."""

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "interfaces"}

NAMES_OF_MODELS = {"tiny_deepseek_v3"}
"""The number is in the architecture's own name."""


def repository_files() -> list[Path]:
    """Return every file that belongs to the repository, committed or about to be."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in files if path.is_file()]


FILES = repository_files()
PYTHON_FILES = [path for path in FILES if path.suffix == ".py"]
SHIPPED = [path for path in PYTHON_FILES if path.is_relative_to(ROOT / "platform" / "trierarch")]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_lists_of_files_are_not_empty() -> None:
    assert ROOT / "pyproject.toml" in FILES
    assert ROOT / "platform/trierarch/__init__.py" in SHIPPED


def test_platform_folder_is_not_a_package() -> None:
    """A platform/__init__.py would shadow the standard library's module."""
    assert platform.python_implementation()
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("source_root", "allowed"),
    [("platform", set()), ("operators", set()), ("loadtests", {"locustfile.py"})],
)
def test_source_roots_hold_packages_only(source_root: str, allowed: set[str]) -> None:
    loose = {path.name for path in PYTHON_FILES if path.parent == ROOT / source_root}
    assert loose <= allowed


def test_the_package_is_imported_from_this_checkout() -> None:
    assert Path(trierarch.__file__).is_relative_to(ROOT)


def test_no_file_names_a_package_registry() -> None:
    """Behind a mirror such an address is wrong; package clients know where to look."""
    registries = [
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "download.pytorch" + ".org",
        "proxy.golang" + ".org",
        "sum.golang" + ".org",
        "registry.npmjs" + ".org",
        "repo1.maven" + ".org",
        "repo.maven.apache" + ".org",
        "crates" + ".io",
        "deb.debian" + ".org",
    ]
    found = []
    for path in FILES:
        text = path.read_bytes().decode(errors="replace")
        found += [f"{named(path)}: {host}" for host in registries if host in text]
    assert found == []


def test_no_file_names_the_place_of_this_checkout() -> None:
    place = str(ROOT).encode()
    if len(ROOT.parts) < 3:
        pytest.skip("the checkout's path is too short to be told from ordinary words")
    assert [named(path) for path in FILES if place in path.read_bytes()] == []


def test_python_files_are_short_enough_to_read() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in PYTHON_FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_names_say_what_is_inside() -> None:
    vague = [
        named(path)
        for path in PYTHON_FILES
        if {*path.relative_to(ROOT).parent.parts, path.stem} & VAGUE_NAMES
        or (
            re.search(r"_v\d+$|^new_|^legacy_", path.stem.removeprefix("test_"))
            and path.stem.removeprefix("test_") not in NAMES_OF_MODELS
        )
    ]
    assert vague == []


def test_every_package_folder_has_an_init() -> None:
    """A folder without one is found by some tools and not by others."""
    folders = {path.parent for path in PYTHON_FILES if path.is_relative_to(ROOT / "platform")}
    missing = [named(folder) for folder in folders if not (folder / "__init__.py").exists()]
    assert sorted(missing) == []


@functools.cache
def imported_packages(path: Path) -> set[str]:
    """Return the top-level names a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("vllm", r"serving/"),
        ("torch", r"serving/"),
        ("ray", r"serving/|adapters/ray_"),
        ("locust", r"$^"),
        ("trierarch_loadtests", r"$^"),
    ],
)
def test_heavy_packages_stay_in_their_layer(package: str, allowed: str) -> None:
    inside = ROOT / "platform" / "trierarch"
    users = [
        path.relative_to(inside).as_posix()
        for path in SHIPPED
        if package in imported_packages(path)
    ]
    assert [user for user in users if not re.match(allowed, user)] == []


def test_version_is_said_once() -> None:
    assert PYPROJECT["project"]["version"] == trierarch.__version__


def test_changelog_begins_with_what_is_unreleased() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == "[Unreleased]"


def test_license_is_the_full_apache_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_every_make_target_is_explained_by_make_help() -> None:
    explained = re.findall(r"^([a-z-]+):.*## \S", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(explained) == makefile_targets()
    phony = re.findall(r"^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(phony) == makefile_targets()


def found_in_pages(pattern: str) -> list[tuple[Path, str]]:
    """Return every match of a pattern in a Markdown page, with the page."""
    pages = [path for path in FILES if path.suffix == ".md"]
    return [
        (page, match)
        for page in pages
        for match in re.findall(pattern, page.read_text(), flags=re.MULTILINE)
    ]


def test_every_make_target_named_in_a_page_exists() -> None:
    named_targets = found_in_pages(r"(?:`|^|\$ )make ([a-z][a-z-]*)")
    assert named_targets
    wrong = [(named(page), name) for page, name in named_targets if name not in makefile_targets()]
    assert wrong == []


def test_every_relative_link_in_a_page_leads_somewhere() -> None:
    links = [
        (page, link) for page, link in found_in_pages(r"\]\(([^)#\s]+)[^)]*\)") if "://" not in link
    ]
    assert links
    assert [(named(page), link) for page, link in links if not (page.parent / link).exists()] == []


def test_continuous_integration_runs_what_a_person_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith("exec make test")
