"""What holds for every test: which may open sockets, and in what order they run.

Folders decide. Tests in ``unit`` and ``property`` are pure: they may not open a
network socket at all. All others may reach this machine and nothing else (set
in pyproject.toml). Tests marked ``engine`` start vLLM, Ray or the whole stack;
they run last and in one process, so that they can share what is slow to start.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent

PURE_FOLDERS = ("unit", "property")

pytest_plugins = ["tests.cluster.fixtures"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Take sockets away from pure tests and put the engine tests last.

    Runs after the plugin that shuffles; within each part its order stays.
    """
    for item in items:
        if (
            item.path.is_relative_to(TESTS)
            and item.path.relative_to(TESTS).parts[0] in PURE_FOLDERS
        ):
            item.add_marker(pytest.mark.disable_socket)
    items.sort(key=lambda item: item.get_closest_marker("engine") is not None)
