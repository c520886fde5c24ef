"""Bring the cluster up, say how it is, take it down: the same cluster in every situation."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.go_command import locked, module_folder
from tests.cluster.node import engine as engines
from tests.cluster.node.environment import Mount, make_environment, make_models
from tests.cluster.node.image_store import fill_stores
from tests.cluster.node.images import BASE_PACKAGES, DATABASE_PACKAGES, make_archives
from tests.cluster.node.node_image import PACKAGES, TAG, make_node_image
from tests.cluster.node.our_images import build_with_own_engine, build_with_registry
from tests.cluster.node.packages import make_engine_root, make_system
from tests.cluster.node.place import CHECKOUT, Place
from tests.cluster.node.situation import Situation, find_situation
from tests.cluster.node.tidying import tidy_caches
from tests.cluster.node.work import ClusterFailure, Work
from tests.cluster.old_versions import mark_used
from tests.cluster.tool_modules import MODULES, binaries_folder, binary_path

CONFIGURATION = CHECKOUT / "deploy" / "kind" / "cluster.yaml"

API_PORT = 6443
"""Free for sure: the engine has a network of its own."""

READY_SECONDS = 180.0
"""Three nodes on two busy cores took a third of it."""

TOOLS = ("kubernetes", "etcd", "kind", "kuberay", "coredns", "helm")
"""What is built before anything starts."""

_OTHER = "the making or deleting of this cluster"
"""What a second command at the same time waits for."""

MODELS = ("tiny-qwen3-moe", "tiny-deepseek-v3", "pocket")


def bring_up(work: Work, *, ends_with_this_process: bool = False) -> dict[str, str]:
    """Bring the cluster up unless it is; return the environment that reaches it.

    Args:
        work: Progress and log.
        ends_with_this_process: Whether a kill of this process ends the cluster too.

    Raises:
        ClusterFailure: If it cannot be made here; the message says what is missing.
    """
    place = work.place
    place.state.parent.mkdir(parents=True, exist_ok=True)
    with locked(place.state.parent / f".{place.name}.lock", work.stream, _OTHER):
        situation = find_situation()
        if situation.kind == "api-tier-only":
            raise ClusterFailure(situation.sentence)
        work.say(situation.sentence)
        if is_ready(place):
            work.say(f"the cluster {place.name} is up already")
            return environment_of(place)
        if situation.kind != "own-engine":
            environment = _bring_up_with_registry(work, situation)
        else:
            engines.stop_engine(place)
            place.state.mkdir(parents=True)
            environment = _bring_up_with_own_engine(work, ends_with_this_process)
        tidy_caches(work)
        return environment


def _bring_up_with_own_engine(work: Work, ends_with_this_process: bool) -> dict[str, str]:
    place = work.place
    _build_tools(work)
    root = make_engine_root(work)
    node_image = make_node_image(work, make_system(work, root, "node", PACKAGES))
    base_system = make_system(work, root, "base", BASE_PACKAGES)
    database_system = make_system(work, root, "database", DATABASE_PACKAGES)
    archives = make_archives(work, base_system, database_system, find_kuberay_image())
    mounts = make_models(work, MODELS) + make_environment(work)
    engine = engines.start_engine(work, root, ends_with_this_process=ends_with_this_process)
    with work.step("Loading the node image") as step:
        work.run(step, ["docker", "load", "--input", node_image], engine.environment)
    ours = build_with_own_engine(work, engine.environment, archives.base)
    document = yaml.safe_load(CONFIGURATION.read_text())
    stores = fill_stores(work, engine, [archives.nodes, *ours], len(document["nodes"]))
    configuration = configure(
        document,
        api_address=str(engine.network.engine),
        mounts=mounts,
        each=[[disk, store] for disk, store in zip(_list_disks(), stores, strict=True)],
    )
    _create(work, configuration, engine.environment, ["--image", TAG, "--retain"])
    _install_kuberay(work)
    _put_tools(place)
    return environment_of(place)


def _bring_up_with_registry(work: Work, situation: Situation) -> dict[str, str]:
    place = work.place
    place.state.mkdir(parents=True, exist_ok=True)
    _build_tools(work)
    _put_tools(place)
    environment = {"KIND_EXPERIMENTAL_PROVIDER": situation.kind}
    kind = str(binary_path("kind"))
    with work.step("Deleting what is left of an earlier cluster") as step:
        work.run(step, [kind, "delete", "cluster", "--name", place.name], environment)
    mounts = make_models(work, MODELS)
    on_linux = sys.platform == "linux"
    if on_linux:
        mounts += make_environment(work)
    target = "host" if on_linux else "cpu"
    ours = build_with_registry(work, situation.kind, engine_target=target)
    configuration = configure(yaml.safe_load(CONFIGURATION.read_text()), mounts=mounts)
    _create(work, configuration, environment, [])
    _load(work, ours, environment)
    _install_kuberay(work)
    (place.state / "situation").write_text(situation.kind)
    return environment_of(place)


def configure(
    document: dict[str, Any],
    *,
    mounts: list[Mount],
    api_address: str | None = None,
    each: Sequence[Sequence[Mount]] = (),
) -> dict[str, Any]:
    """Return the shared configuration with this machine's addresses and folders.

    Args:
        document: ``deploy/kind/cluster.yaml``.
        mounts: Folders that every node sees.
        api_address: Where the API server answers; None leaves it to kind.
        each: Further folders of each node, in the order of the nodes.
    """
    networking = dict(document["networking"])
    if api_address is not None:
        networking |= {"apiServerAddress": api_address, "apiServerPort": API_PORT}
    further = each or [()] * len(document["nodes"])
    nodes = [
        {**node, "extraMounts": [*mounts, *own]}
        for node, own in zip(document["nodes"], further, strict=True)
    ]
    return {**document, "networking": networking, "nodes": nodes}


def take_down(work: Work) -> None:
    """Delete the cluster and everything of it; caches stay."""
    place = work.place
    with (
        locked(place.state.parent / f".{place.name}.lock", work.stream, _OTHER),
        work.step("Deleting the cluster"),
    ):
        note = place.state / "situation"
        if note.exists():
            command = [str(binary_path("kind")), "delete", "cluster", "--name", place.name]
            environment = {**os.environ, "KIND_EXPERIMENTAL_PROVIDER": note.read_text()}
            subprocess.run(command, env=environment, check=True, capture_output=True)
        engines.stop_engine(place)


def is_ready(place: Place) -> bool:
    """Whether the cluster's API answers and all its nodes are ready."""
    try:
        nodes = list_nodes(place)
    except ClusterFailure:
        return False
    expected = len(yaml.safe_load(CONFIGURATION.read_text())["nodes"])
    return len(nodes) == expected and all(nodes.values())


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


def environment_of(place: Place) -> dict[str, str]:
    """Return what a user exports to reach the cluster."""
    return {"KUBECONFIG": str(place.kubeconfig), "PATH": f"{place.programs}:$PATH"}


def find_kuberay_image() -> str:
    """Return the name and tag of the operator's image in KubeRay's own manifests."""
    document = yaml.safe_load((_kuberay_manifests() / "kustomization.yaml").read_text())
    [image] = document["images"]
    return f"{image['newName']}:{image['newTag']}"


def _kuberay_manifests() -> Path:
    return module_folder("kuberay") / "config" / "default"


def _build_tools(work: Work) -> None:
    folders = {name: binaries_folder(MODULES[name]) for name in TOOLS}
    for folder in folders.values():
        mark_used(folder)
    missing = [name for name, folder in folders.items() if not folder.exists()]
    if missing:
        with work.step("Building the cluster's programs (once, several minutes)") as step:
            paths = f"{CHECKOUT}:{CHECKOUT / 'deploy' / 'local'}"
            for name in missing:
                command = [sys.executable, "-m", "tests.cluster.build", name]
                work.run(step, command, {"PYTHONPATH": paths})


def _list_disks() -> list[Mount]:
    """Return the mounts of the small disks that ``inside.sh`` makes, one for each node."""
    return [
        {"hostPath": f"/run/disks/{number}", "containerPath": "/var/lib/kubelet"}
        for number in range(3)
    ]


def _create(
    work: Work, configuration: Mapping[str, Any], environment: Mapping[str, str], extra: list[str]
) -> None:
    place = work.place
    path = place.state / "cluster.yaml"
    path.write_text(yaml.safe_dump(configuration))
    with work.step("Creating the cluster with kind") as step:
        command = [str(binary_path("kind")), "create", "cluster", "--name", place.name]
        command += ["--config", str(path), "--kubeconfig", str(place.kubeconfig), *extra]
        work.run(step, command, environment)
    with work.step("Waiting for the nodes") as step:
        deadline_seconds = time.monotonic() + READY_SECONDS
        while not is_ready(place):
            if time.monotonic() > deadline_seconds:
                nodes = kubectl(place, "get", "nodes", "--output", "wide")
                raise ClusterFailure(
                    f"not every node is ready after {READY_SECONDS:.0f} s\n{nodes}"
                )
            step.tick()
            time.sleep(0.5)


def _load(work: Work, archives: Sequence[Path], environment: Mapping[str, str]) -> None:
    """Put images onto the workers: nothing of ours runs on the control plane."""
    place = work.place
    with work.step("Loading our images onto the nodes") as step:
        load = [str(binary_path("kind")), "load", "image-archive", *map(str, archives)]
        workers = ",".join(name for name in list_nodes(place) if "worker" in name)
        work.run(step, [*load, "--name", place.name, "--nodes", workers], environment)


def _install_kuberay(work: Work) -> None:
    with work.step("Installing KubeRay") as step:
        environment = {"KUBECONFIG": str(work.place.kubeconfig)}
        render = [find_kubectl(), "kustomize", str(_kuberay_manifests())]
        manifests = work.place.state / "kuberay.yaml"
        documents = work.run(step, render).split("\n---\n")
        # Only what changes is parsed: the definitions are 4 MB, which takes seconds.
        deployment = re.compile(r"^kind: Deployment$", re.MULTILINE)
        made = [
            yaml.safe_dump(hasten(yaml.safe_load(each))) if deployment.search(each) else each
            for each in documents
        ]
        manifests.write_text("\n---\n".join(made))
        apply = [find_kubectl(), "apply", "--server-side", "--filename", str(manifests)]
        work.run(step, apply, environment)
        wait = [find_kubectl(), "rollout", "status", "deployment/kuberay-operator"]
        work.run(step, [*wait, "--timeout=180s"], environment)


def hasten(document: dict[str, Any]) -> dict[str, Any]:
    """Return a deployment whose containers may use a whole core and are asked sooner if ready.

    A tenth of a core, as published, lets the operator take half a minute to start.
    """
    made = copy.deepcopy(document)
    for container in made["spec"]["template"]["spec"]["containers"]:
        container["resources"]["limits"]["cpu"] = "1"
        container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 1}
    return made


def _put_tools(place: Place) -> None:
    """Fill the folder that goes on the user's PATH."""
    place.programs.mkdir(parents=True, exist_ok=True)
    for name in ("kubectl", "helm", "kind"):
        link = place.programs / name
        link.unlink(missing_ok=True)
        link.symlink_to(binary_path(name))
