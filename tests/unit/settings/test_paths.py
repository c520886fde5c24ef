"""Where state lives."""

from pathlib import Path

import pytest

from trierarch.core.errors import InvalidInput
from trierarch.settings.paths import default_data_dir, ledger_url, spool_dir, user_data_dir


@pytest.mark.parametrize(
    ("environment", "platform", "folder"),
    [
        ({"HOME": "/h"}, "linux", "/h/.local/share/trierarch"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/x"}, "linux", "/x/trierarch"),
        ({"HOME": "/h", "XDG_DATA_HOME": "relative"}, "linux", "/h/.local/share/trierarch"),
        ({"XDG_DATA_HOME": "/x"}, "linux", "/x/trierarch"),
        ({"HOME": "/h"}, "darwin", "/h/Library/Application Support/trierarch"),
    ],
)
def test_each_platform_has_its_place(environment, platform, folder):
    assert user_data_dir(environment, platform) == Path(folder)


def test_user_without_a_home_is_asked_for_a_folder():
    with pytest.raises(InvalidInput, match="--data-dir"):
        user_data_dir({}, "linux")


def test_variable_names_the_folder(monkeypatch):
    monkeypatch.setenv("TRIERARCH_DATA_DIR", "/d")
    assert default_data_dir() == Path("/d")


def test_parts_of_the_folder_have_their_names():
    assert ledger_url(Path("/d")) == "sqlite:////d/ledger.db"
    assert spool_dir(Path("/d"), "gateway-0") == Path("/d/spool/gateway-0")
