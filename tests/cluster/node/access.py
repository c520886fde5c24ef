"""Reach a cluster that is up, as its administrator."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping

from tests.cluster.node.place import Place
from tests.cluster.node.work import ClusterFailure
from tests.cluster.tool_modules import binary_path


def find_kubectl() -> str:
    """Return the kubectl that is built here."""
    return str(binary_path("kubectl"))


def kubectl(place: Place, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl as the cluster's administrator and return what it printed.

    Raises:
        ClusterFailure: If it fails.
    """
    if not place.kubeconfig.exists():
        raise ClusterFailure("there is no cluster: run `make kind`")
    done = subprocess.run(
        [find_kubectl(), "--request-timeout=20s", *arguments],
        env={**os.environ, "KUBECONFIG": str(place.kubeconfig)},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterFailure(f"kubectl {' '.join(arguments[:3])} failed: {done.stderr.strip()}")
    return done.stdout


def list_nodes(place: Place) -> Mapping[str, bool]:
    """Return the cluster's nodes and whether each is ready.

    Raises:
        ClusterFailure: If there is no cluster or its API does not answer.
    """
    answer = json.loads(kubectl(place, "get", "nodes", "--output", "json"))
    return {
        node["metadata"]["name"]: any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in node["status"].get("conditions", ())
        )
        for node in answer["items"]
    }


def environment_of(place: Place) -> dict[str, str]:
    """Return what a user exports to reach the cluster."""
    return {"KUBECONFIG": str(place.kubeconfig), "PATH": f"{place.programs}:$PATH"}


def run_provider(provider: str, *arguments: str) -> str:
    """Run a command of the machine's own engine, ``docker`` or ``podman``; return its output.

    Raises:
        ClusterFailure: If it fails.
    """
    done = subprocess.run([provider, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterFailure(f"{provider} {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout
