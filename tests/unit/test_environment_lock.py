"""The locks say everything that is installed, with hashes and without an index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trierarch_setup.locking import LEFT_OUT_EXTRAS, blocks, split

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
LOCKS = ("all.lock", "torch.lock", "bootstrap.lock")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, Requirement]:
    """Return the requirements of one lock by name."""
    heads = [block.partition("\\")[0] for block in blocks((REQUIREMENTS / name).read_text())]
    requirements = [Requirement(head.strip()) for head in heads]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def declared() -> list[Requirement]:
    """Return what pyproject.toml asks for, of all extras that are locked."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    groups = [extras[name] for name in extras if name not in LEFT_OUT_EXTRAS]
    groups += [PYPROJECT["project"]["dependencies"], PYPROJECT["dependency-groups"]["dev"]]
    return [Requirement(text) for group in groups for text in group]


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_has_one_version_and_hashes(name: str) -> None:
    for block in blocks((REQUIREMENTS / name).read_text()):
        head, *rest = block.splitlines()
        assert re.fullmatch(r"[a-z0-9._-]+==\S+( ; .*)? \\", head), head
        assert rest, head
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line) for line in rest), (
            head
        )


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_an_index(name: str) -> None:
    text = (REQUIREMENTS / name).read_text()
    assert (
        re.findall(
            r"^\s*(--(extra-)?index-url|--find-links|-[if] ).*$|https?://", text, re.MULTILINE
        )
        == []
    )


def test_everything_declared_is_locked_at_an_allowed_version() -> None:
    everything = locked("all.lock")
    for wanted in declared():
        found = everything.get(canonicalize_name(wanted.name))
        assert found is not None, f"{wanted} is not locked: run `make lock`"
        (pin,) = found.specifier
        assert wanted.specifier.contains(pin.version), f"{found} is locked, {wanted} is declared"


def test_torch_and_its_libraries_are_only_in_their_own_lock() -> None:
    heavy = ("torch", "nvidia-", "cuda-", "triton")
    assert [name for name in locked("all.lock") if name.startswith(heavy)] == []
    assert "torch" in locked("torch.lock")
    assert [name for name in locked("torch.lock") if not name.startswith(heavy)] == []


def test_what_is_overridden_away_is_in_no_lock() -> None:
    lines = (REQUIREMENTS / "overrides.txt").read_text().splitlines()
    away = {line.partition(" ")[0] for line in lines if '== "never"' in line}
    assert away
    assert away & (set(locked("all.lock")) | set(locked("torch.lock"))) == set()


def test_splitting_keeps_every_line_once() -> None:
    hashes = "    --hash=sha256:0 \\\n    --hash=sha256:1\n"
    resolved = "".join(
        f"{head} \\\n{hashes}"
        for head in (
            "click==8.5.1",
            "cuda-toolkit==13.0 ; sys_platform == 'linux'",
            "llm==0.36 ; sys_platform == 'never'",
            "nvidia-nccl-cu13==2.29 ; sys_platform == 'linux'",
            "torch==2.13.0",
            "torchvision==0.29 ; sys_platform == 'never'",
            "xgrammar==0.2.8",
        )
    )
    common, torch = split(f"# a comment\n{resolved}")
    assert [line for line in common.splitlines() if "==" in line] == [
        "click==8.5.1 \\",
        "xgrammar==0.2.8 \\",
    ]
    assert [line.partition("==")[0] for line in torch.splitlines() if "==" in line] == [
        "cuda-toolkit",
        "nvidia-nccl-cu13",
        "torch",
    ]
    assert common.count(hashes) == 2
    assert torch.count(hashes) == 3
