"""Break a node on purpose, as tests need it, and mend it again."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

_TABLE = "trierarch_fault"

_CUT = f"""
table inet {_TABLE} {{
  chain incoming {{ type filter hook prerouting priority -300; iifname "eth0" drop; }}
  chain outgoing {{ type filter hook postrouting priority 300; oifname "eth0" drop; }}
}}
"""


@dataclasses.dataclass(frozen=True)
class Faults:
    """Fault commands for the nodes of one cluster; each ends with its ``with`` block.

    Attributes:
        engine: Runs a command of the engine that runs the nodes, and returns what it printed.
    """

    engine: Callable[..., str]

    @contextlib.contextmanager
    def partition(self, node: str) -> Iterator[None]:
        """Cut a node off from every other machine; what runs on it runs on."""
        self._shell(node, f"nft -f - <<'RULES'\n{_CUT}\nRULES")
        try:
            yield
        finally:
            self._shell(node, f"nft delete table inet {_TABLE}")

    @contextlib.contextmanager
    def freeze(self, node: str) -> Iterator[None]:
        """Stop every process of a node where it stands; connections stay open."""
        self.engine("pause", node)
        try:
            yield
        finally:
            self.engine("unpause", node)

    @contextlib.contextmanager
    def kill_node(self, node: str) -> Iterator[None]:
        """Take a node's power away; give it back at the end, with its disk as it was."""
        self.engine("kill", node)
        try:
            yield
        finally:
            self.engine("start", node)

    def kill_container(self, node: str, container_id: str) -> None:
        """End a container by SIGKILL; its pod starts another with the pod's files.

        Args:
            node: Where it runs.
            container_id: As in the pod's status, ``containerd://...``.
        """
        bare = container_id.removeprefix("containerd://")
        kill = ("ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", bare)
        self.engine("exec", node, *kill)

    @contextlib.contextmanager
    def fill_disk(self, node: str, free_bytes: int = 0) -> Iterator[None]:
        """Leave no room where the node's pods keep their files.

        Args:
            node: A worker.
            free_bytes: What stays free.
        """
        file = "/var/lib/kubelet/trierarch-fill"
        free = self._shell(node, "df --output=avail --block-size=1 /var/lib/kubelet | tail -n1")
        size = int(free) - free_bytes
        # Blocks are reserved, not written.
        self._shell(node, f"fallocate --length {size} {file}")
        try:
            yield
        finally:
            self._shell(node, f"rm -f {file}")

    @contextlib.contextmanager
    def stop_api_server(self, control_plane: str) -> Iterator[None]:
        """Stop the API server; nodes and pods go on without it."""
        manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
        self._shell(control_plane, f"mv {manifest} /kind/kube-apiserver.yaml; {_KILL_API_SERVER}")
        try:
            yield
        finally:
            self._shell(control_plane, f"mv /kind/kube-apiserver.yaml {manifest}")

    def _shell(self, node: str, script: str) -> str:
        return self.engine("exec", node, "bash", "-ec", script)


_KILL_API_SERVER = "pkill -9 -x kube-apiserver || true"
"""In the node's own process namespace: it can meet no other one."""
