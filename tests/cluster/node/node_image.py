"""The image of a kind node, made here: Debian, systemd, containerd, kubelet and kind's own files.

kind is given what it finds in its published node images. What differs lies in ``node-files``, so
that one cluster configuration serves both: the kubelet settings for old control groups are a
drop-in file of the image, and pod networking needs no image of its own.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.cluster.go_command import module_folder
from tests.cluster.node.archives import Image, pack_folder, write_archive
from tests.cluster.node.images import KUBERNETES_VERSION, find_image_names
from tests.cluster.node.place import digest_of
from tests.cluster.node.work import Work
from tests.cluster.tool_modules import binary_path

PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "containerd", "runc", "containernetworking-plugins",
    "iptables", "nftables", "conntrack", "socat", "ethtool", "mount", "util-linux", "jq",
    "iproute2", "procps", "kmod", "ca-certificates",
)  # fmt: skip

TAG = "trierarch/kind-node:local"

FILES = Path(__file__).parent / "node-files"
"""Laid over kind's own files, by their path on a node."""

PROGRAMS = ("kubeadm", "kubelet", "kubectl")

_SERVICES = ("containerd", "kubelet", "kind-routes", "kind-policies", "undo-mount-hacks")

_MASKED = ("systemd-binfmt", "systemd-sysctl", "systemd-udevd", "systemd-modules-load")
"""They would write settings of the whole machine."""

_EMPTIED = (
    "lib/systemd/system/multi-user.target.wants",
    "lib/systemd/system/local-fs.target.wants",
    "lib/systemd/system/basic.target.wants",
    "etc/systemd/system/multi-user.target.wants",
    "etc/systemd/system/timers.target.wants",
    "etc/systemd/system/getty.target.wants",
)
"""Where Debian's packages ask for services that a node does not need."""


def make_node_image(work: Work, system: Path) -> Path:
    """Return the archive of the node image, made from a system with ``PACKAGES``."""
    ours = sorted(path for path in FILES.rglob("*") if path.is_file())
    programs = [binary_path(name) for name in PROGRAMS]
    digest = digest_of(system.name, [str(path) for path in programs], *ours, Path(__file__))
    target = work.place.cache / f"node-image-{digest}.tar"
    with work.making(target) as made:
        if made is None:
            return target
        with work.step("Making the node image") as step:
            root = made.parent / "root"
            work.run(step, ["cp", "--archive", system, root])
            _fill(root, module_folder("kind") / "images" / "base" / "files", programs)
            layer = pack_folder(root, made.parent / "layer.tar")
            config = {
                "Entrypoint": ["/usr/local/bin/entrypoint", "/sbin/init"],
                "Env": [
                    "container=docker",
                    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                ],
                "StopSignal": "SIGRTMIN+3",
            }
            write_archive([Image(TAG, [layer], config)], made)
    return target


def _fill(root: Path, kind_files: Path, programs: list[Path]) -> None:
    """Turn a Debian into a node."""
    for folder in _EMPTIED:
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    for source in (kind_files, FILES):
        for path in sorted(source.rglob("*")):
            if path.is_file():
                _install(path, root / path.relative_to(source))
    for program in programs:
        _install(program, root / "usr/bin" / program.name, mode=0o755)
    names = find_image_names()
    config = root / "etc/containerd/config.toml"
    config.write_text(config.read_text().replace("@PAUSE_IMAGE@", names["pause"]))
    (root / "kind/version").write_text(KUBERNETES_VERSION)
    units = root / "etc/systemd/system"
    for service in _SERVICES:
        link = units / "multi-user.target.wants" / f"{service}.service"
        link.symlink_to(f"/etc/systemd/system/{service}.service")
    for service in _MASKED:
        unit = units / f"{service}.service"
        unit.unlink(missing_ok=True)
        unit.symlink_to("/dev/null")
    with (root / "etc/systemd/journald.conf").open("a") as journald:
        journald.write("ReadKMsg=no\n")
    (root / "etc/kubernetes/manifests").mkdir(parents=True, exist_ok=True)
    (root / "etc/machine-id").write_text("")


def _install(source: Path, target: Path, mode: int | None = None) -> None:
    """Copy one file; programs are told by their folder, because modules keep no modes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    is_program = target.parent.name == "bin"
    os.chmod(target, mode or (0o755 if is_program else 0o644))
