"""The engine's programs, from the distribution's packages but not installed.

Packages are fetched with apt and unpacked into the cache; the engine sees them through an overlay
of ``/usr`` in its own mount namespace. Nothing on the machine changes and no service starts.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.node.place import digest_of
from tests.cluster.node.work import ClusterFailure, Work

from trierarch_setup.progress import Step

PACKAGES = ("docker.io", "debootstrap", "jq", "nftables", "iptables", "tini", "e2fsprogs")

SUITE = "bookworm"
"""Debian's release inside the images: its systemd still knows both kinds of control groups."""

_TABLES = ("iptables", "ip6tables")


@dataclasses.dataclass(frozen=True)
class Apt:
    """apt with lists and archives of its own, so that the machine's stay as they are."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        """Return apt-get's command line."""
        options = [
            f"Dir::State::lists={self.folder}/lists",
            f"Dir::Cache={self.folder}",
            f"Dir::Cache::archives={self.folder}/archives",
            "APT::Sandbox::User=root",
        ]
        return ["apt-get", *(word for option in options for word in ("-o", option)), *arguments]

    def prepare(self) -> None:
        """Make the folders apt expects."""
        for name in ("lists/partial", "archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)


def make_engine_root(work: Work, packages: Sequence[str] = PACKAGES) -> Path:
    """Fetch and unpack packages; return the folder that has ``usr`` in it.

    Args:
        work: Progress and log.
        packages: The engine's, or those and more.

    Raises:
        ClusterFailure: If a package cannot be fetched.
    """
    release = Path("/etc/os-release")
    target = work.place.cache / f"engine-{digest_of(packages, release)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with work.making(target) as made:
        if made is None:
            return target
        with work.step(f"Fetching {', '.join(packages)} (unpacked, not installed)") as step:
            apt = Apt(made.parent / "apt")
            apt.prepare()
            work.run(step, apt.command("update"))
            fetch = ("install", "--yes", "--no-install-recommends", "--download-only")
            work.run(step, apt.command(*fetch, *packages))
            made.mkdir()
            for archive in sorted((apt.folder / "archives").glob("*.deb")):
                work.run(step, ["dpkg-deb", "--extract", archive, made])
            _arrange(made)
            (made / "mirror").write_text(_find_mirror(work, apt, step))
    return target


def _arrange(root: Path) -> None:
    """Do by hand what the packages' own scripts would have done, inside ``usr`` only."""
    for name in ("lib", "bin", "sbin"):
        if (root / name).is_dir():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
    (root / "usr/lib/modules").mkdir(parents=True, exist_ok=True)
    for table in _TABLES:
        for suffix in ("", "-save", "-restore"):
            link = root / "usr/sbin" / f"{table}{suffix}"
            if (root / "usr/sbin/xtables-nft-multi").exists() and not link.exists():
                link.symlink_to("xtables-nft-multi")


def _find_mirror(work: Work, apt: Apt, step: Step) -> str:
    """Return the address of the machine's own mirror of the suite."""
    targets = work.run(step, apt.command("indextargets", "--format", "$(REPO_URI) $(CODENAME)"))
    mirrors = [line.split()[0] for line in targets.splitlines() if line.split()[1:] == [SUITE]]
    if not mirrors:
        raise ClusterFailure(
            f"apt has no source for Debian {SUITE}, which the cluster's images are made from: "
            f"add one, or use Docker with a registry"
        )
    return mirrors[0]


def find_missing_programs() -> list[str]:
    """Return what the machine itself must have to fetch the rest."""
    needed = ("apt-get", "dpkg-deb", "unshare", "nsenter", "ip", "tar", "setsid")
    return [name for name in needed if shutil.which(name) is None]


def make_system(work: Work, engine_root: Path, name: str, packages: tuple[str, ...]) -> Path:
    """Install a minimal Debian with some packages into a folder of the cache.

    Args:
        work: Progress and log.
        engine_root: Has debootstrap.
        name: What the system is for.
        packages: Beyond the minimal set.
    """
    target = work.place.cache / f"system-{name}-{digest_of(SUITE, packages)}"
    with work.making(target) as made:
        if made is None:
            return target
        with work.step(f"Installing a small Debian for {name} images") as step:
            mirror = (engine_root / "mirror").read_text()
            include = f"--include={','.join(packages)}"
            script = (
                "set -e; mount --make-rprivate /; root=$1; shift\n"
                'mount -t overlay overlay -o "lowerdir=$root/usr:/usr" /usr\n'
                'exec debootstrap --variant=minbase "$@"'
            )
            # Of its own: whatever debootstrap mounts or starts ends with it.
            namespaces = ["unshare", "-m", "-p", "--fork", "--kill-child", "--mount-proc"]
            work.run(
                step,
                [*namespaces, "sh", "-c", script, "sh", engine_root, include, SUITE, made, mirror],
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"},
            )
            _slim(made)
    return target


def _slim(root: Path) -> None:
    """Delete what no container reads."""
    for folder in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
        shutil.rmtree(root / folder, ignore_errors=True)
    for locale in (root / "usr/share/locale").glob("*"):
        shutil.rmtree(locale, ignore_errors=True)
    # debootstrap leaves the host's there.
    (root / "etc/hostname").write_text("")
    (root / "etc/resolv.conf").write_text("")
    subprocess.run(["chmod", "755", root], check=True, env=dict(os.environ))
