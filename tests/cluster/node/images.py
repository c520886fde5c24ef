"""The images that every cluster runs, made here: one static program each, on nothing or on Debian.

They bear the names that kubeadm and other projects' manifests ask for, so all stay as published.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.go_command import find_go, go_environment
from tests.cluster.node.archives import Image, Layer, pack_files, pack_folder, write_archive
from tests.cluster.node.kuberay import find_kuberay_image
from tests.cluster.node.network_policies import find_policies_image
from tests.cluster.node.place import digest_of
from tests.cluster.node.work import Work
from tests.cluster.tool_modules import MODULES, binary_path

KUBERNETES_VERSION = MODULES["kubernetes"].version

BASE_PACKAGES = (
    "python3", "python3-venv", "wget", "ca-certificates", "iproute2", "procps", "iptables",
    "nftables", "conntrack", "kmod", "libsqlite3-0", "libffi8", "libssl3", "libreadline8",
    "liblzma5", "libbz2-1.0", "libgomp1", "libnuma1",
)  # fmt: skip
"""Of the one Debian under all images with a shell: kube-proxy's tools, what a Python built on the
host is linked to, and what KubeRay's probes call."""

BASE_TAG = "python:3.11-slim-bookworm"
"""The public image that the base stands in for, by the name that ``deploy/images`` calls it."""

DATABASE_PACKAGES = ("postgresql-15",)
"""Of a Debian of its own: no other image needs a database server and its compiler."""

DATABASE_TAG = "docker.io/library/postgres:15-bookworm"
"""The public image that it stands in for, by the name that the chart's CPU mode asks for."""

_PAUSE = Path(__file__).parent / "pause" / "main.go"


@dataclasses.dataclass(frozen=True)
class Archives:
    """The images that a cluster starts with.

    Attributes:
        nodes: Archive of all that nodes run.
        base: Archive of the base image alone, for the engine that builds on it.
    """

    nodes: Path
    base: Path


def find_image_names() -> dict[str, str]:
    """Return the names and tags kubeadm asks for, by their last word without the tag."""
    command = [str(binary_path("kubeadm")), "config", "images", "list"]
    command += ["--kubernetes-version", KUBERNETES_VERSION]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.strip() for line in listing.splitlines() if ":" in line]
    return {line.rpartition("/")[2].partition(":")[0]: line for line in lines}


def make_archives(work: Work, system: Path, database_system: Path) -> Archives:
    """Make the archives of all images that a cluster starts with.

    Args:
        work: Progress and log.
        system: A Debian with ``BASE_PACKAGES``.
        database_system: A Debian with ``DATABASE_PACKAGES``.
    """
    programs = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"]
    programs += ["etcd", "coredns", "kuberay-operator", "kube-network-policies"]
    paths = [str(binary_path(name)) for name in programs]
    systems = [system.name, database_system.name]
    target = work.place.cache / f"images-{digest_of(paths, systems, _PAUSE, Path(__file__))}"
    with work.making(target) as made:
        if made is not None:
            with work.step("Making the images of the control plane, KubeRay and others"):
                made.mkdir()
                _make(made, system, database_system)
    return Archives(target / "nodes.tar", target / "base.tar")


def _make(folder: Path, system: Path, database_system: Path) -> None:
    names = find_image_names()
    base = pack_folder(system, folder / "base-layer.tar")
    database = pack_folder(database_system, folder / "database-layer.tar")
    path = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]

    def program(name: str, tag: str, on: Sequence[Layer], folder_in_image: str = "") -> Image:
        location = f"{folder_in_image}{name}"
        layer = pack_files({location: binary_path(name)}, folder / f"{name}.layer")
        entry = {"Entrypoint": [f"/{location}"], "Env": path}
        return Image(tag, [*on, layer], entry)

    pause = folder / "pause"
    build = [find_go(), "build", "-ldflags", "-s -w", "-o", str(pause), str(_PAUSE)]
    subprocess.run(build, check=True, env=go_environment(), cwd=_PAUSE.parent)
    pause_layer = pack_files({"pause": pause}, folder / "pause.layer")
    kuberay = pack_files({"manager": binary_path("kuberay-operator")}, folder / "kuberay.layer")
    policies = {"bin/netpol": binary_path("kube-network-policies")}
    policies_layer = pack_files(policies, folder / "policies.layer")
    base_image = Image(BASE_TAG, [base], {"Cmd": ["python3"], "Env": path})
    images = [
        Image(names["pause"], [pause_layer], {"Entrypoint": ["/pause"]}),
        base_image,
        Image(DATABASE_TAG, [database], {"Cmd": ["postgres"], "Env": path}),
        program("kube-proxy", names["kube-proxy"], [base], "usr/local/bin/"),
        program("coredns", names["coredns"], []),
        Image(find_kuberay_image(), [kuberay], {"Entrypoint": ["/manager"], "User": "65532:65532"}),
        Image(find_policies_image(), [policies_layer], {"Cmd": ["/bin/netpol"]}),
    ]
    control_plane = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
    images += [program(name, names[name], [], "usr/local/bin/") for name in control_plane]
    write_archive(images, folder / "nodes.tar")
    write_archive([base_image], folder / "base.tar")
    for scratch in [*folder.glob("*.layer"), *folder.glob("*-layer.tar"), pause]:
        scratch.unlink()
