"""The command line's entry: what it lists, what it imports, and how errors look."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from trierarch.cli.main import COMMANDS, commands, execute
from trierarch.core.errors import InvalidInput, Unavailable


@pytest.mark.parametrize("name", commands.list_commands(click.Context(commands)))
def test_every_listed_command_exists_and_has_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(commands, [name, "--help"]) == 0
    assert "Usage: trierarch" in capsys.readouterr().out


def test_help_lists_the_commands_in_the_order_a_newcomer_needs_them() -> None:
    listed = commands.list_commands(click.Context(commands))
    assert listed == [name for name in COMMANDS if name in listed]
    assert {"up", "down", "explain", "version"} <= set(listed)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from trierarch.cli.main import commands, execute; execute(commands, ['-h']);"
        "print(sorted({'ray', 'vllm', 'torch', 'numpy', 'sqlalchemy', 'pydantic'}"
        " & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("error", "code"),
    [(InvalidInput("port 1 is taken"), 2), (Unavailable("port 1 is taken"), 1)],
    ids=["input-is-wrong", "a-part-does-not-work"],
)
def test_an_error_is_one_line(
    error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fail() -> None:
        raise error

    assert execute(fail, []) == code
    assert capsys.readouterr().err == "trierarch: port 1 is taken\n"


def test_bad_usage_ends_with_2() -> None:
    assert execute(commands, ["up", "--port", "0"]) == 2
    assert execute(commands, ["no-such-command"]) == 2


def test_version_answers_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(commands, ["version", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {
        "trierarch", "python", "ray", "vllm", "torch",
    }  # fmt: skip


def test_down_says_so_when_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(commands, ["down", "--data-dir", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == f"Nothing runs in {tmp_path / 'none'}.\n"
