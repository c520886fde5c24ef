"""KubeRay on the cluster, as it is published but for how fast it starts."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.go_command import module_folder
from tests.cluster.node.work import Work
from tests.cluster.tool_modules import binary_path


def find_kuberay_image() -> str:
    """Return the name and tag of the operator's image in KubeRay's own manifests."""
    document = yaml.safe_load((_find_manifests() / "kustomization.yaml").read_text())
    [image] = document["images"]
    return f"{image['newName']}:{image['newTag']}"


def install_kuberay(work: Work) -> None:
    """Apply KubeRay's manifests and wait until its operator runs.

    Raises:
        ClusterFailure: If it does not.
    """
    kubectl = str(binary_path("kubectl"))
    with work.step("Installing KubeRay") as step:
        environment = {"KUBECONFIG": str(work.place.kubeconfig)}
        manifests = work.place.state / "kuberay.yaml"
        render = [kubectl, "kustomize", str(_find_manifests())]
        documents = work.run(step, render).split("\n---\n")
        # Only what changes is parsed: the definitions are 4 MB, which takes seconds.
        deployment = re.compile(r"^kind: Deployment$", re.MULTILINE)
        made = [
            yaml.safe_dump(_hasten(yaml.safe_load(each))) if deployment.search(each) else each
            for each in documents
        ]
        manifests.write_text("\n---\n".join(made))
        apply = [kubectl, "apply", "--server-side", "--filename", str(manifests)]
        work.run(step, apply, environment)
        wait = [kubectl, "rollout", "status", "deployment/kuberay-operator"]
        work.run(step, [*wait, "--timeout=180s"], environment)


def _find_manifests() -> Path:
    return module_folder("kuberay") / "config" / "default"


def _hasten(document: dict[str, Any]) -> dict[str, Any]:
    """Return a deployment whose containers may use a whole core and are asked sooner if ready.

    A tenth of a core, as published, lets the operator take half a minute to start.
    """
    made = copy.deepcopy(document)
    for container in made["spec"]["template"]["spec"]["containers"]:
        container["resources"]["limits"]["cpu"] = "1"
        container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 1}
    return made
