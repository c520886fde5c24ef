"""What holds for every test: which may open sockets, and in what order they run.

Folders decide. Tests in ``unit`` and ``property`` are pure: they may not open a
network socket at all. All others may reach this machine and nothing else (set
in pyproject.toml). Tests in ``SHARING_PLACES`` start vLLM, Ray, the whole stack
or a cluster. One process runs all that share a slow start. With ``-n 2``, as in
``make test``, two processes share everything else first, and then one has those
with engines and nodes: an engine that starts takes both cores, and what runs
beside it stands still for seconds at a time. Engines on this machine and engines
on nodes never run at once either.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).parent

PURE_FOLDERS = ("unit", "property")
SHARING_PLACES = (
    "chart/test_api_server.py",
    "cluster",
    "cluster/test_engines_on_nodes.py",
    "cluster/test_node_crashes.py",
    "cluster/test_node_tier.py",
    "e2e",
    "integration/serving",
    "integration/stack",
)
"""Folders and files; a file may be named beside its folder."""

API_SERVER_PLACES = ("chart/test_api_server.py", "cluster")
"""Those that share no more than an API server, which takes seconds to start."""

SHARING_NOTHING = ("cluster/test_build.py", "cluster/test_by_hand.py", "cluster/test_crashes.py")
"""Files of those folders that start what they need for themselves."""

# A shell without job control starts what it puts in the background with interrupts ignored, and
# every process started from here would inherit that; some tests are about interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.cluster.fixtures", "tests.cluster.node.fixtures"]


def find_place(path: str) -> str | None:
    """Return which of the places with a slow start a test file below ``tests`` is in."""
    if path in SHARING_NOTHING:
        return None
    found = [each for each in SHARING_PLACES if f"{path}/".startswith(f"{each}/")]
    return max(found, key=len, default=None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take sockets away from pure tests and put those that share a slow start together.

    Runs after the plugin that shuffles; within each part its order stays. The quick tests come
    first, which tells of mistakes early; but several processes begin with those of the API
    server, beside which all others go on.
    """
    is_one_of_several = hasattr(config, "workerinput")
    places: dict[pytest.Item, tuple[int, int, int]] = {}
    for item in items:
        path = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else item.path
        if path.parts[0] in PURE_FOLDERS:
            item.add_marker(pytest.mark.disable_socket)
        shared = find_place(path.as_posix())
        place = 0 if shared is None else 1 + SHARING_PLACES.index(shared)
        # What a fault leaves behind (a node under disk pressure, evicted pods) takes minutes to go.
        disrupts = item.get_closest_marker("disrupts")
        order = disrupts.args[0] if disrupts else 0
        if is_one_of_several:
            stage = 0 if shared in API_SERVER_PLACES else 1 if shared is None else 2
            places[item] = (stage, -place, order)
        else:
            places[item] = (0, place, order)
    items.sort(key=places.__getitem__)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Hand whole files to processes, and all files that share a slow start to one."""
    config.option.loadscopereorder = False  # the order above is on purpose
    return SharedStartScheduling(config, log)


class SharedStartScheduling(LoadScopeScheduling):
    """Keeps together what belongs together."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        place = find_place(path.removeprefix("tests/"))
        if place is None:
            return path
        return "API server" if place in API_SERVER_PLACES else "engines and nodes"
