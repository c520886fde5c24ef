"""Logs that are put aside, and the file with the default tenant's key."""

from __future__ import annotations

from pathlib import Path

from trierarch.embedded.children import describe_end, read_log_tail, rotate_log
from trierarch.embedded.client_env import parse_client_env
from trierarch.embedded.folder import write_private


def test_earlier_logs_are_kept_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "ray.log"
    for run in range(6):
        rotate_log(path)
        path.write_text(f"run {run}")
    texts = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert texts == {
        "ray.log": "run 5",
        "ray.log.1": "run 4",
        "ray.log.2": "run 3",
        "ray.log.3": "run 2",
    }


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("\n".join(f"line {number}" for number in range(5000)))
    assert read_log_tail(path).splitlines()[-1] == "  line 4999"
    assert len(read_log_tail(path).splitlines()) == 8


def test_a_log_that_is_not_there_is_said_to_be_unreadable(tmp_path: Path) -> None:
    assert "cannot be read" in read_log_tail(tmp_path / "none.log")


def test_how_a_process_ended_is_worded() -> None:
    assert describe_end(3) == "ended with exit code 3"
    assert describe_end(-9) == "was ended by SIGKILL"


def test_a_private_file_is_for_its_owner_only_also_if_it_was_not(tmp_path: Path) -> None:
    path = tmp_path / "client.env"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "A=1\nB='2'\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert parse_client_env(path.read_text()) == {"A": "1", "B": "2"}
