"""Waiting for a ledger that does not answer yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from trierarch.adapters.ledger.__main__ import RETRY_SECONDS, open_when_it_answers
from trierarch.core.clock import ManualClock
from trierarch.core.errors import InvalidInput, Unavailable
from trierarch.settings.ledger import LedgerSettings


def test_a_ledger_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    clock = ManualClock()
    in_the_way = tmp_path / "folder"
    in_the_way.write_text("")
    said: list[str] = []

    def sleep(seconds: float) -> None:
        clock.advance(seconds)
        if clock.monotonic_seconds() >= 3 * RETRY_SECONDS:
            in_the_way.unlink(missing_ok=True)

    settings = LedgerSettings(url=f"sqlite:///{in_the_way}/ledger.db", wait_seconds=10)
    database = open_when_it_answers(settings, clock, sleep, said.append)
    database.close()
    assert clock.monotonic_seconds() == 3 * RETRY_SECONDS
    [line] = said
    assert line.startswith("waiting up to 10 s: ")
    assert "a file is in the way" in line


def test_the_wait_ends_with_the_reason(tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / "folder").write_text("")
    settings = LedgerSettings(url=f"sqlite:///{tmp_path}/folder/ledger.db", wait_seconds=5)
    with pytest.raises(Unavailable, match="a file is in the way"):
        open_when_it_answers(settings, clock, clock.advance, lambda _line: None)
    assert clock.monotonic_seconds() == 5


def test_an_address_that_is_wrong_is_not_waited_for() -> None:
    clock = ManualClock()
    settings = LedgerSettings(url="mysql://host/ledger")
    with pytest.raises(InvalidInput, match="SQLite or PostgreSQL"):
        open_when_it_answers(settings, clock, clock.advance, lambda _line: None)
    assert clock.monotonic_seconds() == 0


def test_settings_are_the_names_that_commands_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIERARCH_LEDGER_URL", "sqlite:////l")
    monkeypatch.setenv("TRIERARCH_LEDGER_WAIT_SECONDS", "7")
    settings = LedgerSettings.from_environment()
    assert (settings.url, settings.wait_seconds) == ("sqlite:////l", 7)
