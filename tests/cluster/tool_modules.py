"""What the test cluster is made of: one pinned Go module per tool, and where its binaries lie.

Each folder under ``tools`` is one Go module: ``go.mod`` and ``go.sum`` pin every source file,
``tools.go`` names the packages. A binary lies in the user's cache folder under the hash of all
that decides about it, so two checkouts that pin the same share it and a change never meets an
old one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import platformdirs

TOOLS = Path(__file__).parent / "tools"

_VERSION_PACKAGE = "k8s.io/component-base/version"


@dataclasses.dataclass(frozen=True)
class ToolModule:
    """One Go module and the binaries that are built from it.

    Attributes:
        name: Its folder under ``tools``.
        pinned: Module path whose version gives the binaries theirs.
        packages: Binary name to package path.
        version_variables: Go string variables to what they are set to; ``{version}`` is the
            pinned version without its ``v``, ``{major}`` and ``{minor}`` are parts of it.
        tags: Build tags: what the module leaves out or adds with them.
        tools: The folder that holds its folder.
    """

    name: str
    pinned: str
    packages: Mapping[str, str]
    version_variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tags: tuple[str, ...] = ()
    tools: Path = TOOLS

    @property
    def folder(self) -> Path:
        """Where its ``go.mod`` is."""
        return self.tools / self.name

    @property
    def version(self) -> str:
        """The pinned version, as ``v1.2.3``."""
        for line in (self.folder / "go.mod").read_text().splitlines():
            words = line.removeprefix("require ").split()
            if len(words) >= 2 and words[0] == self.pinned and words[1] != "=>":
                return words[1]
        raise ValueError(f"{self.folder / 'go.mod'} requires no {self.pinned}")

    @property
    def linker_flags(self) -> str:
        """What the linker is told: no symbol tables, and the version.

        Without its version an API server calls itself v0.0.0 and clients refuse to talk to it.
        """
        version = self.version.removeprefix("v")
        major, minor = version.split(".")[:2]
        flags = ["-s", "-w"]
        for variable, value in self.version_variables.items():
            text = value.format(version=version, major=major, minor=minor)
            flags.append(f"-X {variable}={text}")
        return " ".join(flags)

    def digest(self) -> str:
        """Return a short hash of everything that decides about the binaries."""
        hashed = hashlib.sha256()
        for pinned in ("go.mod", "go.sum"):
            hashed.update((self.folder / pinned).read_bytes())
        hashed.update(repr(sorted(self.packages.items())).encode())
        hashed.update(" ".join([self.linker_flags, *self.tags]).encode())
        hashed.update(platform.machine().encode())
        return hashed.hexdigest()[:16]


_MODULES = (
    ToolModule(
        "kubernetes",
        "k8s.io/kubernetes",
        {
            name: f"k8s.io/kubernetes/cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubectl",
                "kubelet",
                "kube-proxy",
                "kubeadm",
            )
        },
        {
            f"{_VERSION_PACKAGE}.gitVersion": "v{version}",
            f"{_VERSION_PACKAGE}.gitMajor": "{major}",
            f"{_VERSION_PACKAGE}.gitMinor": "{minor}",
            f"{_VERSION_PACKAGE}.gitTreeState": "clean",
        },
    ),
    ToolModule("etcd", "go.etcd.io/etcd/server/v3", {"etcd": "go.etcd.io/etcd/server/v3"}),
    ToolModule(
        "kwok",
        "sigs.k8s.io/kwok",
        {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
        {"sigs.k8s.io/kwok/pkg/consts.Version": "v{version}"},
    ),
    ToolModule(
        "helm",
        "helm.sh/helm/v4",
        {"helm": "helm.sh/helm/v4/cmd/helm"},
        {"helm.sh/helm/v4/internal/version.version": "v{version}"},
    ),
    ToolModule("kind", "sigs.k8s.io/kind", {"kind": "sigs.k8s.io/kind"}),
    ToolModule(
        "kuberay",
        "github.com/ray-project/kuberay/ray-operator",
        {"kuberay-operator": "github.com/ray-project/kuberay/ray-operator"},
    ),
    ToolModule("coredns", "github.com/coredns/coredns", {"coredns": "github.com/coredns/coredns"}),
    ToolModule(
        "network-policies",
        "sigs.k8s.io/kube-network-policies",
        {"kube-network-policies": "sigs.k8s.io/kube-network-policies/cmd"},
    ),
    ToolModule(
        "prometheus",
        "github.com/prometheus/prometheus",
        {"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
        # Without the discovery of targets in every cloud, which testing rules does not need.
        tags=("remove_all_sd",),
    ),
)

MODULES: Mapping[str, ToolModule] = MappingProxyType({module.name: module for module in _MODULES})
"""All tools by name, in the order in which a cold cache is filled: what most tests need first."""


class UnknownToolError(KeyError):
    """No tool has this name; the message lists those there are."""

    def __str__(self) -> str:
        return str(self.args[0])


def find_module(name: str) -> ToolModule:
    """Return the module of this name, or the one that a binary of this name comes from."""
    for module in MODULES.values():
        if name == module.name or name in module.packages:
            return module
    binaries = sorted({*MODULES, *(b for module in MODULES.values() for b in module.packages)})
    raise UnknownToolError(f"unknown tool {name!r}: choose from {', '.join(binaries)}")


def cluster_cache() -> Path:
    """Return the user's cache folder for everything of the test cluster."""
    return Path(platformdirs.user_cache_dir("trierarch")) / "test-cluster"


def binaries_folder(module: ToolModule, cache: Path | None = None) -> Path:
    """Return the folder that holds a module's binaries once they are whole."""
    return (cache or cluster_cache()) / "binaries" / f"{module.name}-{module.digest()}"


def binary_path(name: str, cache: Path | None = None) -> Path:
    """Return where the binary of this name lies once it is built.

    Raises:
        UnknownToolError: If no tool gives such a binary.
    """
    module = find_module(name)
    if name not in module.packages:
        raise UnknownToolError(f"{name} is a module; its binaries: {', '.join(module.packages)}")
    return binaries_folder(module, cache) / name
