"""Simulated nodes with accelerators, and the ways in which real ones are lost.

kwok plays the kubelet: it renews the node's lease, and says that scheduled pods run. Scheduling,
node monitoring, taints and evictions are those of the real control plane.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kubernetes import client
from tests.cluster.api_server import ApiServer
from tests.cluster.api_tier import NODE_GRACE_SECONDS, wait_until
from tests.cluster.build import build, module_folder
from tests.cluster.run_folder import RunProcess, run_folder

KUBELET_LABEL = "trierarch.test/simulated-kubelet"
"""kwok plays the kubelet of nodes whose label says ``running``."""

CAPACITY_TYPE_LABEL = "karpenter.sh/capacity-type"
PRODUCT_LABEL = "nvidia.com/gpu.product"
ZONE_LABEL = "topology.kubernetes.io/zone"

CAPACITY_TYPES: Mapping[str, str] = {
    "OnDemand": "on-demand",
    "Reserved": "reserved",
    "Spot": "spot",
}
"""The platform's word for a capacity type to the value of the nodes' label."""

RECLAIM_TAINT = "karpenter.sh/disrupted"
"""What a node gets when its provider takes it back."""

LEASE_SECONDS = 8
"""A lease is renewed each quarter of this."""

_STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)

_LOSS_SECONDS = 10 * NODE_GRACE_SECONDS
"""An existing cluster may wait longer than ours before it gives a node up."""


@contextlib.contextmanager
def simulated_kubelets(server: ApiServer, parent: Path | None = None) -> Iterator[RunProcess]:
    """Run kwok against a cluster until the block ends.

    Args:
        server: The cluster.
        parent: Where runs have their folders; in the user's cache when left out.
    """
    stages = module_folder("kwok") / "kustomize" / "stage"
    with run_folder("kwok", parent) as folder:
        joined = folder.path / "stages.yaml"
        joined.write_text("\n---\n".join((stages / name).read_text() for name in _STAGES))
        process = folder.start("kwok", _kwok_command(server.kubeconfig, joined))
        try:
            yield process
        finally:
            process.kill()


def _kwok_command(kubeconfig: Path, stages: Path) -> list[str]:
    return [
        str(build("kwok")),
        f"--kubeconfig={kubeconfig}",
        f"--config={stages}",
        "--manage-all-nodes=false",
        f"--manage-nodes-with-label-selector={KUBELET_LABEL}=running",
        f"--node-lease-duration-seconds={LEASE_SECONDS}",
    ]


@dataclasses.dataclass
class AcceleratorNodes:
    """Adds simulated nodes to a cluster and takes them away again.

    Attributes:
        core: Client of the cluster.
        kubelets: The process that plays the nodes' kubelets.
        names: The nodes that are there.
    """

    core: client.CoreV1Api
    kubelets: RunProcess
    names: list[str] = dataclasses.field(default_factory=list)

    def __call__(
        self,
        count: int = 1,
        *,
        accelerator: str = "H200",
        per_node: int = 8,
        capacity_type: str = "OnDemand",
        zone: str = "zone-a",
        resource: str = "nvidia.com/gpu",
        labels: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Add nodes, wait until they are ready, and return their names.

        Args:
            count: How many nodes.
            accelerator: Name of the accelerator, as in price files.
            per_node: Accelerators on each node; 0 gives nodes without any.
            capacity_type: ``OnDemand``, ``Spot`` or ``Reserved``.
            zone: Where they are.
            resource: What pods ask for to get an accelerator.
            labels: Further labels; one given here replaces the usual one.
        """
        if capacity_type not in CAPACITY_TYPES:
            raise ValueError(f"{capacity_type!r} is none of {', '.join(CAPACITY_TYPES)}")
        group = f"{accelerator.lower()}-{secrets.token_hex(3)}"
        added = [f"{group}-{number}" for number in range(count)]
        own = {KUBELET_LABEL: "running", ZONE_LABEL: zone}
        own[CAPACITY_TYPE_LABEL] = CAPACITY_TYPES[capacity_type]
        if per_node:
            own[PRODUCT_LABEL] = f"NVIDIA-{accelerator}"
        for name in added:
            all_labels = {**own, "kubernetes.io/hostname": name, **(labels or {})}
            self.core.create_node(_node(name, all_labels, resource, per_node))
            self.names.append(name)
        for name in added:
            self._wait(name, lambda node: self.readiness(node) == "True", "become ready")
        return added

    def readiness(self, name: str) -> str | None:
        """Return the status of a node's condition ``Ready``: True, False or Unknown."""
        conditions = self.core.read_node(name).status.conditions or []
        return next((each.status for each in conditions if each.type == "Ready"), None)

    def lose(self, name: str) -> None:
        """Let a node fall silent, as if its power had failed, and wait until the cluster knows.

        Its pods stay bound to it, as they do in a real cluster, until their toleration of an
        unreachable node runs out.
        """
        self._label(name, "lost")
        self._wait(name, lambda node: self.readiness(node) == "Unknown", "be given up")

    def restore(self, name: str) -> None:
        """Let a lost node speak again and wait until it is ready."""
        self._label(name, "running")
        self._wait(name, lambda node: self.readiness(node) == "True", "come back")

    def warn_of_reclaim(self, name: str) -> None:
        """Announce that a spot node will be taken back: nothing new is placed on it."""
        self._taint_spot(name, "NoSchedule")

    def reclaim(self, name: str) -> None:
        """Take a spot node back: the control plane evicts its pods, then the node is gone."""
        self._taint_spot(name, "NoExecute")
        on_node = f"spec.nodeName={name}"
        wait_until(
            lambda: not self.core.list_pod_for_all_namespaces(field_selector=on_node).items,
            f"the pods of {name} to end",
            check=self.kubelets.require_alive,
        )
        self.remove(name)

    def remove(self, name: str) -> None:
        """Delete a node; the garbage collector ends pods that are still bound to it."""
        self.core.delete_node(name)
        self.names.remove(name)

    def remove_all(self) -> None:
        """Delete every node that is left, and its pods at once."""
        for name in list(self.names):
            self.remove(name)
            for pod in self.core.list_pod_for_all_namespaces(
                field_selector=f"spec.nodeName={name}"
            ).items:
                with _already_gone():
                    self.core.delete_namespaced_pod(
                        pod.metadata.name, pod.metadata.namespace, grace_period_seconds=0
                    )

    def _taint_spot(self, name: str, effect: str) -> None:
        """Add the taint of a disruption to a spot node."""
        node = self.core.read_node(name)
        if node.metadata.labels.get(CAPACITY_TYPE_LABEL) != CAPACITY_TYPES["Spot"]:
            raise ValueError(f"{name} is no spot node: its provider does not take it back")
        taints = [
            {"key": taint.key, "value": taint.value, "effect": taint.effect}
            for taint in node.spec.taints or []
            if (taint.key, taint.effect) != (RECLAIM_TAINT, effect)
        ]
        taints.append({"key": RECLAIM_TAINT, "value": "", "effect": effect})
        self.core.patch_node(name, {"spec": {"taints": taints}})

    def _label(self, name: str, state: str) -> None:
        self.core.patch_node(name, {"metadata": {"labels": {KUBELET_LABEL: state}}})

    def _wait(self, name: str, holds: Callable[[str], bool], what: str) -> None:
        wait_until(
            lambda: holds(name),
            f"node {name} to {what}",
            check=self.kubelets.require_alive,
            seconds=_LOSS_SECONDS,
        )


@contextlib.contextmanager
def _already_gone() -> Iterator[None]:
    """Do not mind an object that another one has just deleted."""
    try:
        yield
    except client.ApiException as error:
        if error.status != 404:
            raise


def _node(name: str, labels: Mapping[str, str], resource: str, per_node: int) -> dict[str, object]:
    """Return a node as its kubelet would register it."""
    capacity = {"cpu": "192", "memory": "2Ti", "pods": "110", "ephemeral-storage": "8Ti"}
    if per_node:
        capacity[resource] = str(per_node)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": dict(labels)},
        "status": {"capacity": capacity, "allocatable": capacity},
    }
