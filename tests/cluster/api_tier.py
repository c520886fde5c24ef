"""The API tier: a real etcd, API server, controller manager and scheduler on loopback.

Ready in seconds, needs no root. Nodes are simulated (``accelerator_nodes``), everything else is
what a production cluster runs: validation, admission, RBAC, garbage collection, eviction.
"""

from __future__ import annotations

import datetime
import http.client
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.build import build
from tests.cluster.certificates import Authority, write_key
from tests.cluster.kubeconfig import write_kubeconfig
from tests.cluster.ports import free_ports
from tests.cluster.run_folder import ClusterError, RunFolder, RunProcess, run_folder

from trierarch_setup import disk

HOST = "127.0.0.1"

READY_SECONDS = 120.0
"""Three seconds on an idle machine; many times that beside compilers."""

POLL_SECONDS = 0.1

NODE_GRACE_SECONDS = 16
"""How long a silent node counts as alive: eight missed heartbeats (``accelerator_nodes``)."""

STARTS = 3
"""A free port may be taken before the server binds it; then the next ones are tried."""

NEEDED_BYTES = disk.GIB // 2
"""Room for etcd's files (64 MB each) and the logs of a long run."""

_PORT_TAKEN = "address already in use"


class ApiTier:
    """A running API tier.

    Args:
        folder: The run's folder; holds certificates, data and logs.
        ports: For etcd's clients, etcd's peers and the API server.
    """

    def __init__(self, folder: RunFolder, ports: Sequence[int]) -> None:
        self.folder = folder
        self._etcd_port, self._peer_port, port = ports
        self.server = f"https://{HOST}:{port}"
        self._port = port
        self._authority = Authority(folder.path, datetime.datetime.now(datetime.UTC))
        hosts = (HOST, "localhost", "kubernetes", "kubernetes.default.svc", "10.96.0.1")
        self._serving = self._authority.issue("api-server", "kube-apiserver", hosts=hosts)
        self._store = self._authority.issue("etcd", "etcd", hosts=(HOST,))
        write_key(folder.path / "service-accounts.key")
        self.admin_kubeconfig = self.issue_kubeconfig("admin", "admin", ["system:masters"])
        self._admin = self._authority.issue("readiness", "readiness", ["system:masters"])
        self.processes: dict[str, RunProcess] = {}

    def issue_kubeconfig(self, file_name: str, user: str, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig for a user with a certificate of its own, and return its path."""
        return write_kubeconfig(
            self.folder.path / f"{file_name}.kubeconfig",
            server=self.server,
            authority=self._authority.pair.certificate.read_bytes(),
            client=self._authority.issue(f"client-{file_name}", user, groups),
        )

    def start(self) -> None:
        """Start everything and wait until it is ready.

        Raises:
            ClusterError: If a process ends or nothing is ready in time.
        """
        self._launch("etcd", "etcd", self._etcd_options())
        self.start_api_server()
        for name, user, options in (
            ("kube-controller-manager", "system:kube-controller-manager", self._manager_options()),
            ("kube-scheduler", "system:kube-scheduler", []),
        ):
            kubeconfig = self.issue_kubeconfig(name, user)
            common = [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
            self._launch(name, name, [*common, *options])
        # The controller manager works once it has made what every namespace needs.
        self._wait("/api/v1/namespaces/default/serviceaccounts/default")

    def start_api_server(self) -> None:
        """Start the API server, for the first time or after `kill_api_server`, and wait for it."""
        self._launch("kube-apiserver", "kube-apiserver", self._server_options())
        self._wait("/readyz")

    def kill_api_server(self) -> None:
        """End the API server at once, as a crash would; everything it stored stays."""
        self.processes.pop("kube-apiserver").kill()

    def stop(self) -> None:
        """End all processes, clients before servers."""
        for process in reversed(self.processes.values()):
            # Nothing is worth waiting for: the data goes with the run.
            process.kill()
        self.processes.clear()

    def require_alive(self) -> None:
        """Raise `ClusterError` with the log's end if any process has ended."""
        for process in self.processes.values():
            process.require_alive()

    def met_taken_port(self) -> bool:
        """Tell whether a process could not listen because another one had its port."""
        logs = (process.log_file for process in self.processes.values())
        return any(_PORT_TAKEN in log.read_text(errors="replace") for log in logs)

    def _launch(self, name: str, binary: str, options: Sequence[str]) -> None:
        self.processes[name] = self.folder.start(name, [str(build(binary)), *options])

    def _wait(self, path: str) -> None:
        """Wait until the API server answers a path with 200."""
        wait_until(
            lambda: self._status_of(path) == http.client.OK,
            f"the API server's {path}",
            check=self.require_alive,
        )

    def _status_of(self, path: str) -> int | None:
        """Return the status of an answer to an administrator; None if there is none."""
        context = ssl.create_default_context(cafile=str(self._authority.pair.certificate))
        context.load_cert_chain(self._admin.certificate, self._admin.key)
        connection = http.client.HTTPSConnection(HOST, self._port, timeout=5, context=context)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    def _etcd_options(self) -> list[str]:
        clients = f"https://{HOST}:{self._etcd_port}"
        peers = f"http://{HOST}:{self._peer_port}"
        authority = self._authority.pair.certificate
        return [
            "--name=only",
            f"--data-dir={self.folder.path / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=only={peers}",
            "--client-cert-auth",
            f"--trusted-ca-file={authority}",
            f"--cert-file={self._store.certificate}",
            f"--key-file={self._store.key}",
            # The data need not survive the machine, only the API server.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _server_options(self) -> list[str]:
        authority = self._authority.pair.certificate
        key = self.folder.path / "service-accounts.key"
        return [
            f"--bind-address={HOST}",
            f"--advertise-address={HOST}",
            f"--secure-port={self._port}",
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            f"--client-ca-file={authority}",
            f"--etcd-servers=https://{HOST}:{self._etcd_port}",
            f"--etcd-cafile={authority}",
            f"--etcd-certfile={self._store.certificate}",
            f"--etcd-keyfile={self._store.key}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            # No pod runs here that could reach the server by its Service.
            "--endpoint-reconciler-type=none",
        ]

    def _manager_options(self) -> list[str]:
        authority = self._authority.pair
        return [
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self.folder.path / 'service-accounts.key'}",
            f"--root-ca-file={authority.certificate}",
            f"--cluster-signing-cert-file={authority.certificate}",
            f"--cluster-signing-key-file={authority.key}",
            f"--node-monitor-grace-period={NODE_GRACE_SECONDS}s",
            "--node-monitor-period=1s",
        ]


def wait_until(
    holds: Callable[[], bool],
    what: str,
    *,
    check: Callable[[], None] = lambda: None,
    seconds: float = READY_SECONDS,
) -> None:
    """Wait until something holds.

    Args:
        holds: Asked again and again.
        what: What is waited for, for the message.
        check: Called each time it does not hold; may raise to end the wait.
        seconds: The longest wait; only a hanging cluster reaches it.

    Raises:
        ClusterError: If it does not hold in time.
    """
    deadline_seconds = time.monotonic() + seconds
    while not holds():
        check()
        if time.monotonic() > deadline_seconds:
            raise ClusterError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(POLL_SECONDS)


@contextmanager
def running_api_tier(
    parent: Path | None = None,
    pick_ports: Callable[[int], list[int]] = free_ports,
) -> Iterator[ApiTier]:
    """Run an API tier until the block ends; call from the main thread.

    Args:
        parent: Where runs have their folders; in the user's cache when left out.
        pick_ports: Returns so many free ports.

    Raises:
        BuildError: If a tool is not there and cannot be built.
        ClusterError: If it does not start.
    """
    for binary in ("etcd", "kube-apiserver"):
        build(binary)
    for attempt in range(1, STARTS + 1):
        with run_folder("api", parent, needed_bytes=NEEDED_BYTES) as folder:
            tier = ApiTier(folder, pick_ports(3))
            try:
                try:
                    tier.start()
                except ClusterError:
                    if attempt == STARTS or not tier.met_taken_port():
                        raise
                    continue
                yield tier
                return
            finally:
                tier.stop()
