"""The fixtures of the API tier, for every test that needs an API server.

A test that uses them is marked ``cluster``: its tools may have to be built first, outside the
time that a test may take. The server starts when the first such test asks, and serves them all.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from kubernetes import client
from tests.cluster.accelerator_nodes import AcceleratorNodes, simulated_kubelets
from tests.cluster.api_server import ApiServer
from tests.cluster.api_tier import running_api_tier
from tests.cluster.build import BuildError, build
from tests.cluster.run_folder import RunProcess

EXISTING_CLUSTER_VARIABLE = "KUBECONFIG_FOR_TESTS"
"""Path of an administrator's kubeconfig: the tests run on that cluster instead."""

TOOLS = ("kubernetes", "etcd", "kwok")
"""What every test of the API tier needs."""

TOOLS_OF_FIXTURES = {
    "api_server": TOOLS,
    "helm_program": ("helm",),
    "promtool_program": ("promtool",),
}
"""What a test needs that uses a fixture, marked or not."""

_FAILED = pytest.StashKey[set[str]]()
"""Tools whose build has failed in this run: once is enough."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Build a test's tools before its time begins to run."""
    failed = item.config.stash.setdefault(_FAILED, set())
    for name in _tools_of(item):
        if name not in failed:
            try:
                build(name)
            except BuildError:  # What needs the tool tries again, and says why it cannot.
                failed.add(name)
    return (yield)


def _tools_of(item: pytest.Item) -> list[str]:
    """Return the tools that a test needs, by its marker and its fixtures."""
    mark = item.get_closest_marker("cluster")
    names = [] if mark is None else [*TOOLS, *mark.args]
    for fixture, tools in TOOLS_OF_FIXTURES.items():
        if fixture in getattr(item, "fixturenames", ()):
            names += tools
    return names


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Yield the API server that all tests share; each works in a namespace of its own."""
    scratch = tmp_path_factory.mktemp("kubeconfigs")
    if existing := os.environ.get(EXISTING_CLUSTER_VARIABLE):
        kubeconfig = Path(existing).absolute()
        if not kubeconfig.is_file():
            pytest.fail(f"{EXISTING_CLUSTER_VARIABLE} names no file: {existing}", pytrace=False)
        yield ApiServer(kubeconfig, scratch)
        return
    with running_api_tier() as tier:
        yield ApiServer(tier.admin_kubeconfig, scratch, tier)


@pytest.fixture
def namespace(api_server: ApiServer) -> Iterator[str]:
    """Yield a namespace that only this test uses; it is deleted afterwards."""
    api_server.require_alive()
    with api_server.new_namespace() as name:
        yield name


@pytest.fixture
def api_client(api_server: ApiServer) -> Iterator[client.ApiClient]:
    """Yield an administrator's client for the classes of the ``kubernetes`` package."""
    api_server.require_alive()  # Else each test from here on would only say "refused".
    with api_server.connect() as connection:
        yield connection


@pytest.fixture(scope="session")
def kubelets(api_server: ApiServer) -> Iterator[RunProcess]:
    """Run the simulated kubelets; use `gpu_nodes`, which gives them nodes."""
    with simulated_kubelets(api_server) as process:
        yield process


@pytest.fixture
def gpu_nodes(api_client: client.ApiClient, kubelets: RunProcess) -> Iterator[AcceleratorNodes]:
    """Yield what adds simulated nodes; they are deleted after the test.

    ``gpu_nodes(count=4, accelerator="H200", per_node=8, capacity_type="Spot", zone="zone-b")``
    """
    nodes = AcceleratorNodes(client.CoreV1Api(api_client), kubelets)
    try:
        yield nodes
    finally:
        nodes.remove_all()
