"""The API tier is a real control plane: it starts, refuses, schedules and repairs."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from kubernetes import client
from tests.cluster.api_server import ApiServer
from tests.cluster.api_tier import ApiTier, running_api_tier, wait_until
from tests.cluster.ports import free_ports
from tests.cluster.run_folder import ClusterError

pytestmark = pytest.mark.cluster


def own_tier(server: ApiServer) -> ApiTier:
    """Return the tier of a test that ends or restarts its parts."""
    if server.tier is None:
        pytest.skip("KUBECONFIG_FOR_TESTS names a cluster whose processes are not ours to end")
    return server.tier


def test_the_server_says_its_version_and_that_it_is_ready(api_client: client.ApiClient) -> None:
    assert client.VersionApi(api_client).get_code().git_version.startswith("v1.")
    assert client.CoreV1Api(api_client).read_namespace("kube-system").status.phase == "Active"


def test_a_namespace_is_the_tests_own(api_client: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api_client)
    assert core.list_namespaced_pod(namespace).items == []
    assert core.read_namespace(namespace).status.phase == "Active"


def test_rights_are_enforced(
    api_server: ApiServer, api_client: client.ApiClient, namespace: str
) -> None:
    core, rbac = client.CoreV1Api(api_client), client.RbacAuthorizationV1Api(api_client)
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "reader"}})
    kubeconfig = api_server.service_account_kubeconfig(namespace, "reader")
    with api_server.connect(kubeconfig) as connection:
        reader = client.CoreV1Api(connection)
        with pytest.raises(client.ApiException) as refused:
            reader.list_namespaced_pod(namespace)
        assert refused.value.status == 403
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
        rbac.create_namespaced_role(namespace, {"metadata": {"name": "pods"}, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": "reader", "namespace": namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"}
        binding = {"metadata": {"name": "pods"}, "subjects": [subject], "roleRef": role}
        rbac.create_namespaced_role_binding(namespace, binding)

        def may_list() -> bool:
            try:
                reader.list_namespaced_pod(namespace)
            except client.ApiException:
                return False
            return True

        wait_until(may_list, "the role to count")
        with pytest.raises(client.ApiException) as refused:
            reader.list_namespaced_secret(namespace)
        assert refused.value.status == 403


def test_strangers_may_not_read(api_server: ApiServer) -> None:
    with api_server.connect() as connection:
        settings = connection.configuration
        settings.cert_file = settings.key_file = None
        settings.api_key = {}
        with (
            client.ApiClient(settings) as stranger,
            pytest.raises(client.ApiException) as refused,
        ):
            client.CoreV1Api(stranger).list_namespace()
    assert refused.value.status in {401, 403}


def test_private_files_are_for_their_owner_only(api_server: ApiServer) -> None:
    folder = own_tier(api_server).folder.path
    private = [*folder.glob("*.key"), *folder.glob("*.kubeconfig")]
    assert private
    assert {path.stat().st_mode & 0o077 for path in (folder, *private)} == {0}


def test_only_loopback_is_listened_on(api_server: ApiServer) -> None:
    listening = set()
    for process in own_tier(api_server).processes.values():
        for connection in psutil.Process(process.process.pid).net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                listening.add(connection.laddr.ip)
    assert listening == {"127.0.0.1"}


def test_two_clusters_run_at_once_and_leave_nothing(tmp_path: Path) -> None:
    with running_api_tier(tmp_path) as one, running_api_tier(tmp_path) as other:
        assert one.server != other.server
        pids = [each.process.pid for tier in (one, other) for each in tier.processes.values()]
        for tier, name in ((one, "only-one"), (other, "only-other")):
            server = ApiServer(tier.admin_kubeconfig, tmp_path, tier)
            with server.connect() as connection:
                client.CoreV1Api(connection).create_namespace({"metadata": {"name": name}})
                seen = {each.metadata.name for each in _namespaces(connection)}
            assert {"only-one", "only-other"} & seen == {name}
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def _namespaces(connection: client.ApiClient) -> list[client.V1Namespace]:
    return list(client.CoreV1Api(connection).list_namespace().items)


def test_the_api_server_crashes_and_comes_back(tmp_path: Path) -> None:
    with running_api_tier(tmp_path) as tier:
        server = ApiServer(tier.admin_kubeconfig, tmp_path, tier)
        with server.connect() as connection:
            core = client.CoreV1Api(connection)
            core.create_namespace({"metadata": {"name": "kept"}})
            tier.kill_api_server()
            with pytest.raises(OSError):  # noqa: PT011  # whichever way a refused connection shows
                _open(tier)
            tier.start_api_server()
            assert core.read_namespace("kept").metadata.name == "kept"


def _open(tier: ApiTier) -> None:
    parts = urlsplit(tier.server)
    socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=5).close()


@pytest.mark.parametrize("which", [0, 2], ids=["etcd", "api-server"])
def test_a_taken_port_is_not_the_end(tmp_path: Path, which: int) -> None:
    asked: list[list[int]] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()

        def pick(count: int) -> list[int]:
            ports = free_ports(count)
            if not asked:
                ports[which] = taken.getsockname()[1]
            asked.append(ports)
            return ports

        with running_api_tier(tmp_path, pick) as tier:
            assert tier.server.endswith(f":{asked[-1][2]}")
    assert len(asked) == 2


def test_a_process_that_ends_is_named_with_its_last_words(tmp_path: Path) -> None:
    with running_api_tier(tmp_path) as tier:
        tier.processes["kube-scheduler"].kill()
        with pytest.raises(ClusterError, match="kube-scheduler was ended by SIGKILL; its log"):
            tier.require_alive()
