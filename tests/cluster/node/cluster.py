"""Bring the cluster up, say how it is, take it down: the same cluster in every situation."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.lock_file import locked
from tests.cluster.node import engine as engines
from tests.cluster.node.access import environment_of, kubectl, list_nodes
from tests.cluster.node.environment import Mount, make_environment, make_models
from tests.cluster.node.image_store import fill_stores
from tests.cluster.node.images import BASE_PACKAGES, DATABASE_PACKAGES, make_archives
from tests.cluster.node.kuberay import install_kuberay
from tests.cluster.node.network_policies import install_policies
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

TOOLS = ("kubernetes", "etcd", "kind", "kuberay", "coredns", "network-policies", "helm")
"""What is built before anything starts, where every image is made here."""

TOOLS_WITH_REGISTRY = ("kubernetes", "kind", "helm")
"""The same where the control plane and KubeRay come as images."""

_OTHER = "the making or deleting of this cluster"
"""What a second command at the same time waits for."""

MODELS = ("tiny-qwen3-moe", "tiny-deepseek-v3", "pocket")


@dataclasses.dataclass(frozen=True, slots=True)
class PulledImages:
    """Names of images to pull instead of the published ones; empty means those.

    A registry of an organisation may hold the same images under other digests.

    Attributes:
        node: kind's node image.
        base: What ``deploy/images`` builds on.
    """

    node: str = ""
    base: str = ""


PUBLISHED = PulledImages()


def bring_up(
    work: Work, *, ends_with_this_process: bool = False, pulled: PulledImages = PUBLISHED
) -> dict[str, str]:
    """Bring the cluster up unless it is; return the environment that reaches it.

    Args:
        work: Progress and log.
        ends_with_this_process: Whether a kill of this process ends the cluster too; one that
            the machine's own engine runs stays until it is taken down or made anew.
        pulled: Only for an engine with a registry.

    Raises:
        ClusterFailure: If it cannot be made here; the message says what is missing.
    """
    place = work.place
    with locked(place.lock, work.stream, _OTHER):
        situation = find_situation()
        if situation.kind == "api-tier-only":
            raise ClusterFailure(situation.sentence)
        work.say(situation.sentence)
        if is_ready(place):
            work.say(f"the cluster {place.name} is up already")
            return environment_of(place)
        if situation.kind == "own-engine" and pulled != PUBLISHED:
            raise ClusterFailure(
                "--node-image and --base-image are for Docker or Podman with a registry: "
                "without one both images are made here"
            )
        _delete(place)
        place.state.mkdir(parents=True)
        if situation.kind == "own-engine":
            environment = _bring_up_with_own_engine(work, ends_with_this_process)
        else:
            environment = _bring_up_with_registry(work, situation, pulled)
        tidy_caches(work)
        return environment


def _bring_up_with_own_engine(work: Work, ends_with_this_process: bool) -> dict[str, str]:
    place = work.place
    build_tools(work, TOOLS)
    root = make_engine_root(work)
    node_image = make_node_image(work, make_system(work, root, "node", PACKAGES))
    base_system = make_system(work, root, "base", BASE_PACKAGES)
    database_system = make_system(work, root, "database", DATABASE_PACKAGES)
    archives = make_archives(work, base_system, database_system)
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
    install_policies(work)
    install_kuberay(work)
    _put_tools(place)
    return environment_of(place)


def _bring_up_with_registry(
    work: Work, situation: Situation, pulled: PulledImages
) -> dict[str, str]:
    place = work.place
    build_tools(work, TOOLS_WITH_REGISTRY)
    _put_tools(place)
    # Before anything exists, so that whatever a kill leaves is deleted later.
    place.note_provider(situation.kind)
    mounts = make_models(work, MODELS)
    on_linux = sys.platform == "linux"
    if on_linux:
        mounts += make_environment(work)
    target = "host" if on_linux else "cpu"
    ours = build_with_registry(work, situation.kind, engine_target=target, base=pulled.base)
    configuration = configure(yaml.safe_load(CONFIGURATION.read_text()), mounts=mounts)
    environment = {"KIND_EXPERIMENTAL_PROVIDER": situation.kind}
    image = ["--image", pulled.node] if pulled.node else []
    _create(work, configuration, environment, image)
    _load(work, ours, environment)
    install_kuberay(work)
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
        locked(place.lock, work.stream, _OTHER),
        work.step("Deleting the cluster"),
    ):
        _delete(place)


def _delete(place: Place) -> None:
    if place.provider:
        command = [str(binary_path("kind")), "delete", "cluster", "--name", place.name]
        environment = {**os.environ, "KIND_EXPERIMENTAL_PROVIDER": place.provider}
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterFailure(f"kind cannot delete {place.name}: {done.stderr.strip()}")
    if sys.platform == "linux":
        engines.stop_engine(place)
    elif place.state.exists():
        shutil.rmtree(place.state)


def is_ready(place: Place) -> bool:
    """Whether the cluster's API answers and all its nodes are ready."""
    try:
        nodes = list_nodes(place)
    except ClusterFailure:
        return False
    expected = len(yaml.safe_load(CONFIGURATION.read_text())["nodes"])
    return len(nodes) == expected and all(nodes.values())


def build_tools(work: Work, names: Sequence[str]) -> None:
    """Build the cluster's programs unless they are there."""
    folders = {name: binaries_folder(MODULES[name]) for name in names}
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


def _load(work: Work, archives: tuple[Path, Path], environment: Mapping[str, str]) -> None:
    """Put images onto the nodes; the engine's, which may be large, onto the workers only."""
    place = work.place
    engine, platform = archives
    nodes = list_nodes(place)
    with work.step("Loading our images onto the nodes") as step:
        for archive, targets in (
            (engine, [name for name in nodes if "worker" in name]),
            (platform, list(nodes)),
        ):
            load = [str(binary_path("kind")), "load", "image-archive", str(archive)]
            on = ["--name", place.name, "--nodes", ",".join(targets)]
            work.run(step, [*load, *on], environment)


def _put_tools(place: Place) -> None:
    """Fill the folder that goes on the user's PATH."""
    place.programs.mkdir(parents=True, exist_ok=True)
    for name in ("kubectl", "helm", "kind"):
        link = place.programs / name
        link.unlink(missing_ok=True)
        link.symlink_to(binary_path(name))
