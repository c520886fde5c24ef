"""What enforces network policies on nodes made here, as it is published but for what it logs."""

from __future__ import annotations

from typing import Any

import yaml
from tests.cluster.go_command import module_folder
from tests.cluster.node.work import Work
from tests.cluster.tool_modules import binary_path


def find_policies_image() -> str:
    """Return the name and tag of the program's image in its own manifest."""
    return str(_container_in(_read())["image"])


def install_policies(work: Work) -> None:
    """Apply the manifest and wait until the program runs on every node.

    Raises:
        ClusterFailure: If it does not.
    """
    kubectl = str(binary_path("kubectl"))
    with work.step("Installing what enforces network policies") as step:
        environment = {"KUBECONFIG": str(work.place.kubeconfig)}
        documents = _read()
        # A line for every connection of every pod, as published.
        _container_in(documents)["args"].remove("--v=2")
        manifest = work.place.state / "network-policies.yaml"
        manifest.write_text(yaml.safe_dump_all(documents))
        work.run(step, [kubectl, "apply", "--filename", str(manifest)], environment)
        wait = [kubectl, "--namespace", "kube-system", "rollout", "status"]
        work.run(step, [*wait, "daemonset/kube-network-policies", "--timeout=180s"], environment)


def _read() -> list[dict[str, Any]]:
    manifest = module_folder("network-policies") / "install.yaml"
    return [one for one in yaml.safe_load_all(manifest.read_text()) if one]


def _container_in(documents: list[dict[str, Any]]) -> dict[str, Any]:
    [daemon_set] = [one for one in documents if one["kind"] == "DaemonSet"]
    [container] = daemon_set["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = container
    return found
